"""What Phaxio and Sinch post, at the carriers' door: kept whole, once, and only where it is proven."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from urllib3.filepost import encode_multipart_formdata

from faxbot import addresses, callbacks, wiring
from faxbot.config import Config
from faxbot.models import Artifact, Attempt, Callback, CallbackRefusal, FaxEvent, Job
from faxbot.plugins.base import LARGEST_IN_MEMORY, CallbackRequest
from faxbot.providers.phaxio import signature
from faxbot.runtime import Runtime
from tests.installation import Installation
from tests.integration.site import Site
from tests.integration.web import Unread, assert_problem, client_of, left_behind
from tests.providers import phaxio, sinch

BASE, OLD, NEW = "https://fax.example.com", "https://old.example.com/api", "https://new.example.com"
PHAXIO = {
    "PHAXIO_API_KEY": "key",
    "PHAXIO_API_SECRET": "secret",
    "PHAXIO_CALLBACK_TOKEN": phaxio.TOKEN,
}
SETTINGS = {
    **PHAXIO,
    "SINCH_PROJECT_ID": "project",
    "SINCH_BASE_URL": "http://127.0.0.1:9/v3",
    "SINCH_WEBHOOK_BASIC_USER": sinch.SETTINGS["webhookUser"],
    "SINCH_WEBHOOK_BASIC_PASS": sinch.SETTINGS["webhookPassword"],
    "ASTERISK_AMI_PASSWORD": "nobody is called",
    "ASTERISK_INBOUND_SECRET": "handed-over-by-us",
    "PUBLIC_API_URL": BASE,
}
BODIES = [(each["file"], each["type"]) for each in phaxio.vendor("callbacks.json")]
HOOKS = sorted(path.name for path in (sinch.VENDOR / "webhooks").iterdir())


@pytest.fixture
def store(embedded: Installation) -> Installation:
    """Nothing here depends on the kind of database."""
    return embedded


@pytest.fixture
def config(store: Installation, tmp_path: Path) -> Config:
    return store.config(**SETTINGS, ASTERISK_FOLDER=str(tmp_path))


def of_phaxio(name: str, kind: str, url: str) -> CallbackRequest:
    """A callback of the vendor's to this address, signed."""
    body = (phaxio.FILES / "callbacks" / name).read_bytes()
    bare = CallbackRequest("POST", url, {"content-type": kind}, body)
    proof = signature.sign(phaxio.TOKEN, url, signature.read(bare))
    return replace(bare, headers={**bare.headers, "x-phaxio-signature": proof})


def kept(runtime: Runtime) -> list[dict[str, Any]]:
    with runtime.database.reading() as session:
        rows = session.scalars(sa.select(Callback.raw_sealed)).all()
    return [json.loads(runtime.keyring.open(row, "callbacks.raw:default")) for row in rows]


def nothing_came_of_it(runtime: Runtime) -> bool:
    """Whether all was applied that was kept, as far as Sinch need not be asked, and moved no fax."""
    with runtime.database.reading() as session:
        for callback_id in session.scalars(sa.select(Callback.id)).all():
            callbacks.apply(runtime, callback_id)
        return not any(session.scalars(sa.select(each.id)).all() for each in (Job, FaxEvent))


def post(runtime: Runtime, request: CallbackRequest) -> Any:
    path = request.url.removeprefix(BASE).partition("?")[0]
    return client_of(runtime).post(path, data=request.body, headers=dict(request.headers))


@pytest.mark.parametrize(("name", "kind"), BODIES, ids=[name for name, _ in BODIES])
def test_whatever_phaxio_posts_is_kept_whole_and_acknowledged_as_often_as_it_comes(
    runtime: Runtime, name: str, kind: str
) -> None:
    request = of_phaxio(name, kind, f"{BASE}/callbacks/phaxio")

    assert [post(runtime, request).status_code for _ in range(2)] == [200, 200]

    assert [base64.b64decode(each["body"]) for each in kept(runtime)] == [request.body]
    assert nothing_came_of_it(runtime)


@pytest.mark.parametrize("filler", [0, LARGEST_IN_MEMORY], ids=["small", "in a file"])
def test_a_callback_of_phaxios_in_another_wrapping_is_the_same(
    runtime: Runtime, filler: int
) -> None:
    """Its signature is over the fields and files, and has no time: whoever caught one can wrap it anew."""
    url = f"{BASE}/callbacks/phaxio"

    def wrapped(border: str, fax: str) -> CallbackRequest:
        document = (b"%PDF-1.4" + b"x" * filler) * bool(filler)
        form: dict[str, str | tuple[str, bytes]] = {
            "fax": fax, "event_type": "fax_received", "file": ("any.pdf", document)
        }  # fmt: skip
        body, kind = encode_multipart_formdata(form, boundary=border)
        bare = CallbackRequest("POST", url, {"content-type": kind}, body)
        proof = signature.sign(phaxio.TOKEN, url, signature.read(bare))
        return replace(bare, headers={**bare.headers, "x-phaxio-signature": proof})

    said = [("one", '{"id": 1}'), ("two", '{"id": 1}'), ("one", '{"id": 2}'), ("six", '{"id": 2}')]
    answers = [post(runtime, wrapped(*each)).status_code for each in said]

    assert answers == [200] * 4
    with runtime.database.reading() as session:
        assert session.scalar(sa.select(sa.func.count(Callback.id))) == 2
        assert session.scalar(sa.select(sa.func.count(Artifact.id))) == 2 * bool(filler)


@pytest.mark.parametrize("name", HOOKS)
def test_whatever_sinch_posts_is_kept_whole_and_acknowledged_as_often_as_it_comes(
    runtime: Runtime, name: str
) -> None:
    request = sinch.webhook(name, BASE)

    assert [post(runtime, request).status_code for _ in range(2)] == [200, 200]

    assert [base64.b64decode(each["body"]) for each in kept(runtime)] == [request.body]
    assert nothing_came_of_it(runtime)


def test_who_keeps_the_credentials_in_an_address_until_he_is_asked_is_asked_for_them(
    runtime: Runtime,
) -> None:
    """Clients differ in that (RFC 7617, 2); how Sinch's does it is not documented."""
    bare = replace(sinch.webhook(HOOKS[0], BASE), headers={})

    for url in (bare.url, f"{BASE}/inbound/callback"):
        refused = post(runtime, replace(bare, url=url))
        assert_problem(refused, 401, "unauthenticated")
        assert refused.headers["WWW-Authenticate"].startswith("Basic ")


BASIC = sinch.webhook(HOOKS[0], BASE).headers["authorization"]


@pytest.mark.parametrize(
    ("paths", "header", "proofs"),
    [
        (("/callbacks/sinch", "/sinch-inbound"), "Authorization",
         ("Basic eDp5", "Basic Og==", f"Bearer {BASIC.partition(' ')[2]}", "x")),
        (("/callbacks/asterisk", "/_internal/asterisk/inbound"), "X-Internal-Secret", ("x", "")),
    ],
    ids=["sinch", "asterisk"],
)  # fmt: skip
def test_of_a_stranger_who_only_invents_what_stands_in_the_headers_no_body_is_read(
    runtime: Runtime, paths: tuple[str, ...], header: str, proofs: tuple[str, ...]
) -> None:
    client = client_of(runtime)
    for path in (*paths, "/inbound/callback"):
        for proof in proofs:
            answer = client.post(path, input_stream=Unread(), headers={header: proof})
            assert_problem(answer, 401, "unauthenticated")
    assert left_behind(runtime) == {}
    runtime.tallies.write_refused()
    refused = runtime.database.rows(sa.select(CallbackRefusal.count), {})
    assert [count for (count,) in refused] == [3 * len(proofs)], "each is counted, once"


def test_a_genuine_head_has_its_body_read_at_the_door_for_anybody_too(runtime: Runtime) -> None:
    request = replace(sinch.webhook(HOOKS[0], BASE), url=f"{BASE}/inbound/callback")

    assert post(runtime, request).status_code == 200
    assert [base64.b64decode(each["body"]) for each in kept(runtime)] == [request.body]


@pytest.mark.parametrize(
    ("token", "header"), [("", True), (phaxio.TOKEN, False), ("another-token", True)]
)
def test_without_token_or_header_phaxios_callback_is_refused_and_leaves_nothing(
    store: Installation, token: str, header: bool
) -> None:
    given = {**SETTINGS, "PHAXIO_CALLBACK_TOKEN": token}
    runtime = wiring.build(store.config(**{name: each for name, each in given.items() if each}))
    request = of_phaxio(*BODIES[0], f"{BASE}/callbacks/phaxio")
    if not header:
        request = replace(request, headers={"content-type": request.headers["content-type"]})

    assert_problem(post(runtime, request), 401, "unauthenticated")

    assert left_behind(runtime) == {}
    runtime.close()


def test_phaxios_callback_is_proven_over_the_address_that_was_given_for_that_attempt(
    site: Site,
) -> None:
    """Not over the one at which it comes: that may be another by now."""
    attempt = site.attempt(site.sent("0044"))
    with site.runtime.database.transaction() as session:
        session.execute(sa.update(Attempt).values(callback_base=OLD))
    config = replace(
        site.runtime.config,
        public_url=NEW,
        environ={**site.runtime.config.environ, **PHAXIO},
    )
    runtime = replace(site.runtime, config=config, plugins=wiring.plugins(config))
    query = addresses.of_callbacks(runtime, attempt).partition("?")[2]
    given, came = (f"{base}/callbacks/phaxio?{query}" for base in (OLD, NEW))

    callbacks.receive(runtime, "phaxio", replace(of_phaxio(*BODIES[0], given), url=came))

    assert [each["url"] for each in kept(runtime)] == [given]
