"""`faxbot webhooks`: from the first subscription to a replay, on the command line."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from faxbot import wiring
from faxbot.runtime import Runtime
from tests.installation import Installation
from tests.integration.command import Ended, one_line, run
from tests.integration.hooks import HERE, deliver, rows
from tests.integration.web import client_of, new_key, send
from tests.receiver import Receiver, verified


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def told(store: Installation, text: str, *words: str) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(text))
        return run(store, *words, **HERE)


@pytest.fixture
def runtime(store: Installation) -> Iterator[Runtime]:
    store.env.update(HERE)
    runtime = wiring.build(store.config())
    yield runtime
    runtime.close()


def test_from_the_subscription_to_a_replay(
    store: Installation, runtime: Runtime, receiver: Receiver
) -> None:
    make = ("webhooks", "create", "--name", "records", "--type", "FAX_QUEUED", "--json")
    new = told(store, f"{receiver.url}\n", *make).json
    assert (new["state"], new["types"]) == ("pending", ["FAX_QUEUED"])
    ended = run(store, "webhooks", "test", new["id"])
    assert (ended.code, "it is active now" in ended.out) == (0, True)
    verified(receiver.heard[0], new["secret"])

    client = client_of(runtime, new_key(runtime))
    send(client)
    send(client)
    deliver(runtime)
    (one, two) = [row.id for row in rows(runtime)]
    listed = run(store, "webhooks", "deliveries", new["id"])
    assert [line.split()[0] for line in listed.out.splitlines()] == [two, one]
    assert run(store, "webhooks", "replay", one).out == "1 to be sent again\n"
    deliver(runtime)
    words = ("--status", "delivered", "--since", "2026-01-01")
    assert run(store, "webhooks", "replay", new["id"], *words, "--json").json == {"count": 2}
    deliver(runtime)
    assert [heard.id for heard in receiver.heard[1:]].count(one) == 3
    assert len(receiver.heard) == 1 + 2 + 1 + 2
    (shown,) = run(store, "webhooks", "deliveries", new["id"], "--limit", "1", "--json").json
    assert (shown["id"], shown["replays"]) == (two, 1)

    rotated = run(store, "webhooks", "rotate", new["id"])
    assert rotated.out.startswith("whsec_")
    assert "signs until" in rotated.err
    assert run(store, "webhooks", "test", new["id"], "--json").json["ok"] is True
    assert verified(receiver.heard[-1], rotated.out.strip()) == verified(
        receiver.heard[-1], new["secret"]
    )
    assert run(store, "webhooks", "delete", new["id"]).out == "deleted\n"
    assert run(store, "webhooks", "list", "--json").json == []


def test_a_secret_is_printed_alone_and_once_and_no_list_shows_an_address(
    store: Installation, runtime: Runtime, receiver: Receiver
) -> None:
    assert "no webhooks yet" in run(store, "webhooks", "list").out
    ended = told(store, receiver.url, "webhooks", "create", "--name", "records")
    assert ended.out.startswith("whsec_")
    assert len(ended.out.splitlines()) == 1
    assert "faxbot webhooks test" in ended.err
    listed = run(store, "webhooks", "list")
    assert "s3cret" not in ended.err + listed.out
    assert ended.out.strip() not in listed.out
    assert f"http://127.0.0.1:{receiver.port}/…" in listed.out
    assert rows(runtime) == []


def test_a_receiver_in_trouble_is_told_in_the_list(
    store: Installation, runtime: Runtime, receiver: Receiver
) -> None:
    new = told(store, receiver.url, "webhooks", "create", "--name", "records", "--json").json
    run(store, "webhooks", "test", new["id"])
    receiver.does = lambda _: 410
    send(client_of(runtime, new_key(runtime)))
    deliver(runtime)
    assert "(disabled: it answered 410" in run(store, "webhooks", "list").out
    receiver.does = lambda _: 500
    ended = run(store, "webhooks", "test", new["id"])
    assert (ended.code, "HTTP 500" in ended.out, "disabled" in ended.out) == (1, True, True)


@pytest.mark.parametrize(
    ("text", "words", "code", "said"),
    [
        ("", ("create", "--name", "n"), 2, "no address"),
        ("http://10.0.0.1:8080/", ("create", "--name", "n"), 1, "FAXBOT_WEBHOOK_NETWORKS"),
        (
            "https://h.example.org:22/",
            ("create", "--name", "n"),
            1,
            "port 22 is not among those of FAXBOT_WEBHOOK_PORTS: 1024-65535",
        ),
        ("ftp://x", ("create", "--name", "n"), 1, "https://host/path"),
        ("https://h.example.org:8080/", ("create", "--name", "a\nb"), 1, "printable"),
        ("", ("test", "0" * 32), 1, "no webhook"),
        ("", ("rotate", "x"), 1, "no webhook"),
        ("", ("delete", "\0"), 1, "no webhook"),
        ("", ("replay", "msg_1"), 1, "no delivery"),
        ("", ("replay", "0" * 32), 1, "no webhook"),
        ("", ("replay", "msg_1", "--status", "dead"), 2, "takes no filter"),
        ("", ("deliveries", "0" * 32, "--since", "yesterday"), 2, "--since"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_it(
    store: Installation, text: str, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = told(store, text, "webhooks", *words)
    assert ended.code == code
    assert said in (one_line(ended.err) if code == 1 else ended.err)
    assert ended.out == ""
    assert run(store, "webhooks", "list", "--json").json == []
