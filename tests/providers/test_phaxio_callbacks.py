"""What Phaxio posts: proven over everything in it, and read in every shape it has."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faxbot.errors import OutcomeUnknown, ProviderError
from faxbot.plugins.base import CallbackRequest, State
from faxbot.providers.phaxio import signature
from tests.callbacks import updates_in
from tests.providers.phaxio import FILES, TAG, TOKEN, offline, vendor

CALLBACKS = {each["file"].removesuffix(".body"): each for each in vendor("callbacks.json")}
HERE = f"https://fax.example.com/callbacks/phaxio?attempt={TAG}&token=t"
BOUNDARY = "b0undary"


def posted(name: str, **changes: Any) -> CallbackRequest:
    """One of the vendor's callbacks; `headers` are added."""
    entry = CALLBACKS[name]
    headers = {"content-type": entry["type"], "x-phaxio-signature": entry["signature"]}
    facts: dict[str, Any] = {
        "method": "POST",
        "url": entry["url"],
        "body": (FILES / "callbacks" / entry["file"]).read_bytes(),
    }
    facts.update(changes)
    return CallbackRequest(
        facts["method"], facts["url"], headers | facts.get("headers", {}), facts["body"]
    )


def multipart(*parts: tuple[str, bytes]) -> bytes:
    """A form of parts: what stands in Content-Disposition after `form-data; `, and the content."""
    pieces = [
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for head, content in parts
    ]
    return b"".join(pieces) + f"--{BOUNDARY}--\r\n".encode()


def signed(
    body: bytes, *, kind: str = f"multipart/form-data; boundary={BOUNDARY}"
) -> CallbackRequest:
    """A callback with this body and the signature that our own code gives it."""
    bare = CallbackRequest("POST", HERE, {"content-type": kind}, body)
    proof = signature.sign(TOKEN, HERE, signature.read(bare))
    return CallbackRequest("POST", HERE, {**bare.headers, "x-phaxio-signature": proof}, body)


def about(fax: object, **fields: str) -> CallbackRequest:
    """A signed callback in the shape of v2.1."""
    parts = {"fax": json.dumps(fax), "event_type": "fax_completed", **fields}
    return signed(multipart(*((f'name="{name}"', text.encode()) for name, text in parts.items())))


# The proof ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", vendor("signatures.json"), ids=lambda each: each["source"][:40])
def test_the_worked_signatures_are_ours(vector: dict[str, Any]) -> None:
    parts = [(f'name="{name}"', text.encode()) for name, text in vector["parameters"].items()]
    parts += [
        (f'name="{name}"; filename="any.pdf"', text.encode("latin-1"))
        for name, text in vector["files"].items()
    ]
    for ordered in (parts, parts[::-1]):
        headers = {
            "content-type": f'multipart/form-data; boundary="{BOUNDARY}"',
            "x-phaxio-signature": vector["signature"],
        }
        request = CallbackRequest("POST", vector["url"], headers, multipart(*ordered))
        assert offline(vector["token"]).verify_callback(request)


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_genuine_callback_is_taken(name: str) -> None:
    assert offline().verify_callback(posted(name))


@pytest.mark.parametrize("name", CALLBACKS)
def test_without_a_token_of_ours_or_without_the_header_nothing_is(name: str) -> None:
    assert not offline("").verify_callback(posted(name))
    assert not offline("").verify_callback(posted(name, headers={"x-phaxio-signature": ""}))
    assert not offline().verify_callback(posted(name, headers={"x-phaxio-signature": ""}))
    unsigned = CallbackRequest("POST", HERE, {}, posted(name).body)
    assert not offline().verify_callback(unsigned)


def test_who_signs_with_nothing_is_refused_where_no_token_is_set() -> None:
    bare = posted("v2.1_success", headers={"x-phaxio-signature": ""})
    proof = signature.sign("", bare.url, signature.read(bare))

    forged = posted("v2.1_success", headers={"x-phaxio-signature": proof})
    assert not offline("").verify_callback(forged)


@pytest.mark.parametrize("name", CALLBACKS)
def test_another_token_another_address_or_a_changed_proof_is_refused(name: str) -> None:
    genuine = posted(name)
    proof = genuine.headers["x-phaxio-signature"]

    assert not offline("another").verify_callback(genuine)
    for url in (genuine.url + "&", genuine.url + "/", genuine.url.replace("https", "http"), ""):
        assert not offline().verify_callback(posted(name, url=url))
    for other in (proof.upper(), proof[:-1], proof + "0", " " + proof, "0" * 40, "é", "\udcff"):
        forged = posted(name, headers={"x-phaxio-signature": other})
        assert not offline().verify_callback(forged)


@pytest.mark.parametrize("name", ["v1_failure", "v2_received", "v2.1_retry_scheduled"])
def test_every_byte_of_every_field_and_file_is_proven(name: str) -> None:
    """Heads of parts are not: their file names and types are nobody's word."""
    body = posted(name).body
    contents = re.finditer(rb"\r\n\r\n(.*?)\r\n--", body, re.S)
    places = [at for each in contents for at in range(*each.span(1))]
    assert len(places) > 100
    for at in places:
        changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        assert not offline().verify_callback(posted(name, body=changed)), at


def test_fields_beside_those_that_the_vendors_page_names_are_proven_too() -> None:
    body = posted("v2.1_success").body
    boundary = body[: body.index(b"\r\n")]
    extra = boundary + b'\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n'
    at = body.rindex(boundary)

    assert not offline().verify_callback(posted("v2.1_success", body=body[:at] + extra + body[at:]))


def test_names_are_ordered_by_their_bytes() -> None:
    form = signature.Form({b"b": b"1", b"B": b"2", b"a": b"3", b"\xc3\xa9": b"4"}, {})
    shuffled = signature.Form(dict(reversed(list(form.fields.items()))), {})

    assert signature.sign(TOKEN, "u", form) == signature.sign(TOKEN, "u", shuffled)
    one = signature.Form({b"": b"B2a3b1\xc3\xa94"}, {})
    assert signature.sign(TOKEN, "u", form) == signature.sign(TOKEN, "u", one)
    files = signature.Form({b"z": b"5"}, {b"b": "0b", b"B": "0a"})
    one = signature.Form({b"z5B0a": b"b0b"}, {})
    assert signature.sign(TOKEN, "u", files) == signature.sign(TOKEN, "u", one)


def test_line_ends_in_a_field_are_proven_as_they_came() -> None:
    crlf, lf = (multipart(('name="message"', text)) for text in (b"a\r\nb", b"a\nb"))

    assert offline().verify_callback(signed(crlf))
    assert signed(crlf).headers["x-phaxio-signature"] != signed(lf).headers["x-phaxio-signature"]


TWICE = {
    "fields": multipart(('name="a"', b"1"), ('name="a"', b"1")),
    "files": multipart(('name="a"; filename="x"', b"1"), ('name="a"; filename="y"', b"1")),
    "a field and a file": multipart(('name="a"', b"1"), ('name="a"; filename="y"', b"1")),
}


@pytest.mark.parametrize("body", TWICE.values(), ids=TWICE)
def test_a_name_that_comes_twice_is_refused(body: bytes) -> None:
    request = CallbackRequest(
        "POST", HERE, {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}, body
    )
    with pytest.raises(ValueError, match="twice"):
        signature.read(request)
    assert not offline().verify_callback(posted("v2.1_success", body=body))


def test_a_name_that_comes_twice_in_an_urlencoded_form_is_refused() -> None:
    kind = "application/x-www-form-urlencoded"
    with pytest.raises(ValueError, match="twice"):
        signature.read(CallbackRequest("POST", HERE, {"content-type": kind}, b"a=1&%61=2"))


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_body_that_is_cut_short_is_refused(name: str) -> None:
    body = posted(name).body
    for length in (0, 1, 50, len(body) // 2, len(body.rstrip()) - 1):
        cut = posted(name, body=body[:length])
        assert not offline().verify_callback(cut)
        if not name.endswith("urlencoded"):
            with pytest.raises(ValueError, match=r"end of|Boundary"):
                signature.read(cut)


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="\n"',
        "multipart/form-data; boundary=another",
        "multipart/mixed; boundary=" + BOUNDARY,
        "\udcff",
    ],
)
def test_a_body_of_another_type_is_refused(kind: str) -> None:
    request = posted("v2.1_success", headers={"content-type": kind})

    assert not offline().verify_callback(request)
    with pytest.raises(OutcomeUnknown):
        offline().read_callback(request)


def test_too_many_parts_and_too_large_fields_are_refused_and_a_large_file_is_not() -> None:
    large = bytes(signature.LARGEST_FIELD + 1)
    many = [(f'name="a{number}"', b"") for number in range(signature.MOST_PARTS + 1)]
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}

    for body in (multipart(*many), multipart(('name="a"', large))):
        with pytest.raises(ValueError, match=r"Maximum|too large"):
            signature.read(CallbackRequest("POST", HERE, kind, body))
    form = {"content-type": "application/x-www-form-urlencoded"}
    for body in (b"a=" + large, urlencode(dict.fromkeys(map(str, range(65)), "")).encode()):
        with pytest.raises(ValueError, match="too"):
            signature.read(CallbackRequest("POST", HERE, form, body))
    assert offline().verify_callback(signed(multipart(('name="file"; filename="f"', large))))


def test_an_urlencoded_form_is_proven_over_its_decoded_bytes() -> None:
    form = signature.read(
        CallbackRequest(
            "POST",
            HERE,
            {"content-type": "application/x-www-form-urlencoded; charset=utf-8"},
            b"a+b=c%20d%C3%A9%ff&e&f==",
        )
    )
    assert form.fields == {b"a b": b"c d\xc3\xa9\xff", b"e": b"", b"f": b"="}


# The news -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_is_told_in_our_words(name: str) -> None:
    entry = CALLBACKS[name]

    updates = updates_in(offline(), posted(name))

    if entry["state"] is None:
        assert updates == []
        return
    (update,) = updates
    assert (update.state, update.cause) == (entry["state"], entry["cause"])
    assert (update.tag, update.external_id) == (TAG, "323034813")
    assert update.pages_sent == (3 if update.state is State.DELIVERED else None)
    assert update.occurred_at is not None
    assert update.key == f"323034813:{entry['state']}"


@pytest.mark.parametrize(
    "fax", ["partialsuccess", "inprogress", "queued_tagged", "failure_normalize"]
)
@pytest.mark.parametrize("success", ["true", "false"])
def test_completed_is_not_delivered_whatever_else_it_says(fax: str, success: str) -> None:
    (update,) = updates_in(offline(), about(vendor(f"faxes/{fax}.json"), success=success))

    assert update.state is not State.DELIVERED


def test_a_status_called_completed_ends_nothing() -> None:
    fax = {**vendor("faxes/success.json"), "status": "completed"}

    (update,) = updates_in(offline(), about(fax, success="true"))

    assert update.state is State.ACCEPTED


def test_the_status_beats_the_error_and_the_field_success() -> None:
    fax = vendor("faxes/success_after_busy.json")

    (update,) = updates_in(offline(), about(fax, success="false", message="Busy"))

    assert (update.state, update.cause) == (State.DELIVERED, None)


def test_a_fax_without_our_tag_belongs_to_the_attempt_in_its_address() -> None:
    """Any tag in it is another program's."""
    fax = {**vendor("faxes/success.json"), "tags": {}}

    (update,) = updates_in(offline(), about(fax))

    assert (update.tag, update.external_id) == (TAG, "323034813")


def test_a_fax_with_our_tag_is_ours_wherever_it_is_called_back() -> None:
    request = about(vendor("faxes/success.json"))
    account = "https://fax.example.com/callbacks/phaxio"

    for url in (account, f"{account}?attempt=fbelse"):
        elsewhere = CallbackRequest("POST", url, request.headers, request.body)
        (update,) = updates_in(offline(), elsewhere)
        assert update.tag == TAG


def test_a_fax_of_another_program_is_no_news() -> None:
    fax = {**vendor("faxes/success.json"), "tags": {"order": "7"}}
    request = about(fax)

    for url in ("https://fax.example.com/callbacks/phaxio", "https://[", ""):
        elsewhere = CallbackRequest("POST", url, request.headers, request.body)
        assert offline().read_callback(elsewhere) == []


@pytest.mark.parametrize("direction", [{"direction": "received"}, {}])
def test_a_received_fax_is_no_news_wherever_that_is_said(direction: dict[str, str]) -> None:
    fax = vendor("faxes/success.json") | ({} if direction else {"direction": "received"})

    assert offline().read_callback(about(fax, **direction)) == []


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{", "{}", '{"id": 1, "tags', '{"id": "1"}', "[" * 9999, "\x00"]
)
def test_a_field_that_holds_no_fax_cannot_be_read(text: str) -> None:
    with pytest.raises(OutcomeUnknown):
        offline().read_callback(signed(multipart(('name="fax"', text.encode()))))


def test_fields_of_the_kind_that_phaxio_never_sends_are_not_read() -> None:
    body = multipart(('name="fax[id]"', b"1"), ('name="fax[status]"', b"success"))

    with pytest.raises(OutcomeUnknown):
        offline().read_callback(signed(body))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_nothing_that_is_posted_makes_it_stumble(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CALLBACKS)))
    body = bytearray(posted(name).body)
    for _ in range(data.draw(st.integers(1, 4))):
        at, change = data.draw(st.integers(0, len(body) - 1)), data.draw(st.binary(max_size=6))
        body[at : at + data.draw(st.integers(0, 12))] = change
    request = posted(
        name,
        body=bytes(body),
        headers=data.draw(
            st.sampled_from([{}, {"content-type": "application/x-www-form-urlencoded"}])
        ),
    )

    assert offline().verify_callback(request) in (True, False)
    with suppress(ProviderError):
        offline().read_callback(request)
