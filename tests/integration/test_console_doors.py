"""Every page and deed of the console against everybody who may come. A new one is among them by itself."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from faxbot import users, wiring
from faxbot.actors import ADMIN, CLI, OPERATOR, ROLES, VIEWER
from faxbot.runtime import Runtime
from faxbot.web.auth import SESSION, WITHOUT_KEY
from faxbot.web.console import files, mends
from faxbot.web.problems import PROBLEMS, Problem
from tests.installation import Stores
from tests.integration.console import BY_SCRIPT, CONSOLE, FILES, filled, page, problem, words
from tests.integration.web import SECRET, browser_of, client_of, new_user

GUARDED = sorted(route for route, access in CONSOLE.items() if access not in WITHOUT_KEY)
DEEDS = [route for route in GUARDED if route.startswith("POST ")]
PAGES = [route for route in GUARDED if route.startswith("GET ")]
SCOPES = {
    VIEWER: {"fax:read", "inbound:list", "events:read", SESSION},
    OPERATOR: {
        "fax:send", "fax:read", "inbound:list", "inbound:read", "events:read", "operate", SESSION,
    },
    ADMIN: set(CONSOLE.values()),
}  # fmt: skip
"""What each role may, said a second time on purpose."""
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def runtime(stores: Stores) -> Iterator[Runtime]:
    runtime = wiring.build(
        stores.embedded().config(SIMULATOR_SECRET=SECRET, FAXBOT_LOGIN_FAILURES="0")
    )
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def people(runtime: Runtime) -> dict[str, FlaskClient]:
    disabled = new_user(runtime, ADMIN)
    over = browser_of(runtime, disabled)
    with runtime.database.transaction() as session:
        users.disable(session, CLI, disabled.id, now=runtime.now())
    return {
        "nobody": client_of(runtime),
        "over": over,
        "no csrf": browser_of(runtime, new_user(runtime), csrf=False),
        **{role: browser_of(runtime, new_user(runtime, role)) for role in ROLES},
    }


def address(route: str) -> tuple[str, str]:
    method, path = route.split()
    return method, re.sub("<.*?>", "0" * 32, path)


@pytest.mark.parametrize("route", PAGES)
@pytest.mark.parametrize("who", ["nobody", "over"])
def test_who_has_not_signed_in_is_led_to_where_one_does_and_back(
    people: dict[str, FlaskClient], who: str, route: str
) -> None:
    _, path = address(route)
    answer = people[who].get(f"{path}?tab=done")
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"/admin/ui/sign-in?next={path}%3Ftab%3Ddone"


@pytest.mark.parametrize("route", GUARDED)
def test_a_form_of_somebody_whose_session_is_over_stays_as_it_is(
    people: dict[str, FlaskClient], route: str
) -> None:
    method, path = address(route)
    answer = people["over"].open(path, method=method, headers=BY_SCRIPT)
    assert "session is over" in problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize("route", GUARDED)
@pytest.mark.parametrize("role", sorted(ROLES))
def test_each_role_gets_what_it_may_and_nothing_else(
    people: dict[str, FlaskClient], role: str, route: str
) -> None:
    if route == "POST /admin/ui/sign-out":
        return  # it is everybody's own, and would end what the others are asked with
    method, path = address(route)
    answer = people[role].open(path, method=method, headers=BY_SCRIPT)
    if CONSOLE[route] in SCOPES[role]:
        assert answer.status_code in (200, 204, 404, 409, 415, 422), answer.text[:500]
    else:
        assert CONSOLE[route] in problem(answer, 403, "forbidden")


@pytest.mark.parametrize("route", DEEDS)
def test_what_another_site_makes_a_browser_send_does_nothing(
    people: dict[str, FlaskClient], route: str
) -> None:
    _, path = address(route)
    for who, headers, code in (
        ("no csrf", {}, "csrf-token"),
        (ADMIN, {"Sec-Fetch-Site": "cross-site"}, "forbidden"),
        (ADMIN, {"Origin": "https://elsewhere.example"}, "forbidden"),
    ):
        problem(people[who].post(path, headers={**BY_SCRIPT, **headers}), 403, code)


@pytest.mark.parametrize("role", sorted(ROLES))
def test_the_menu_leads_where_one_may_go_and_nowhere_else(
    people: dict[str, FlaskClient], role: str
) -> None:
    menu = page(people[role], "/admin/ui/").partition('<nav id="menu"')[2].partition("</nav>")[0]
    led = set(re.findall(r'href="([^"]*)"', menu))
    assert led
    for path in led:
        page(people[role], path)
    open_to_him = {
        path for path in (route.partition(" ")[2] for route in PAGES)
        if "<" not in path and CONSOLE[f"GET {path}"] in SCOPES[role]
    }  # fmt: skip
    assert led <= open_to_him


@pytest.mark.parametrize("role", sorted(ROLES))
def test_no_form_or_link_of_a_page_leads_where_one_may_not_go(
    people: dict[str, FlaskClient], role: str
) -> None:
    rules = {
        re.compile(re.sub("<.*?>", "[^/?]+", route.partition(" ")[2]) + r"([?#].*)?"): access
        for route, access in CONSOLE.items()
    }
    for route in PAGES:
        _, path = address(route)
        if "<" in route or route in FILES or CONSOLE[route] not in SCOPES[role]:
            continue
        for led in re.findall(
            r'(?:href|action|hx-get|hx-post)="(/admin/ui/[^"]*)"', page(people[role], path)
        ):
            needs = [access for rule, access in rules.items() if rule.fullmatch(led)]
            assert needs, f"{path} leads to {led}, which is nowhere"
            assert any(n in SCOPES[role] or n in WITHOUT_KEY for n in needs), (path, led)


def test_an_unknown_page_is_a_page_that_says_so(people: dict[str, FlaskClient]) -> None:
    assert "404" in words(page(people[ADMIN], "/admin/ui/nowhere", 404))


def test_a_page_that_is_not_there_speaks_of_no_fax_and_no_program(
    people: dict[str, FlaskClient],
) -> None:
    for path in ("/admin/ui/settings/NOWHERE/edit", "/admin/ui/keys/nowhere"):
        said = words(page(people[ADMIN], path, 404))
        assert "what stood there may be gone" in said
        assert "A fax of another account" not in said
        assert "faxbot keys list" not in said
    said = words(page(people[ADMIN], "/admin/ui/sign-out", 405))
    assert "Go on by a link or a button" in said
    assert "header" not in said


@pytest.mark.parametrize("problem_of", PROBLEMS.values(), ids=lambda one: one.code)
def test_what_mends_a_failure_is_said_in_words_of_pages(problem_of: Problem) -> None:
    program = (
        r"`[a-z_]+`|Idempotency|Retry-After|X-|Content-Type|\b(?:GET|POST|scope|header)\b|untested"
    )
    said = mends.of(problem_of)
    assert said
    assert not re.findall(program, said)


def test_with_name_and_password_one_gets_where_one_wanted_to(runtime: Runtime) -> None:
    new_user(runtime, VIEWER, name="Vera", password=PASSWORD)
    client = client_of(runtime)
    wanted = {"name": "Vera", "password": PASSWORD, "next": "/admin/ui/faxes?tab=done"}
    answer = client.post("/admin/ui/sign-in", data=wanted)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/ui/faxes?tab=done")
    assert "Vera" in page(client, "/admin/ui/faxes")


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://elsewhere.example/admin/ui/", "//elsewhere.example/admin/ui/", "/\\elsewhere.example",
        "javascript:alert(1)", "/docs", "", "/admin/ui/\r\nSet-Cookie: a=b", "\\\\elsewhere.example",
        "/admin/uix", "/admin/ui/\\..\\..", "//[", "http://[::1", "http://\u2100.com/",
    ],
)  # fmt: skip
def test_signing_in_leads_nowhere_but_into_the_console(runtime: Runtime, elsewhere: str) -> None:
    name = new_user(runtime, VIEWER, password=PASSWORD).name
    answer = client_of(runtime).post(
        "/admin/ui/sign-in", data={"name": name, "password": PASSWORD, "next": elsewhere}
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/ui/")


def test_a_wrong_password_is_refused_in_the_form(runtime: Runtime) -> None:
    answer = client_of(runtime).post(
        "/admin/ui/sign-in", data={"name": "nobody", "password": "x", "next": ""}, headers=BY_SCRIPT
    )
    assert "not right" in problem(answer, 401, "unauthenticated")
    assert "X-API-Key" not in answer.get_data(as_text=True)


def test_who_signs_in_again_in_the_middle_of_a_page_goes_on_with_a_new_proof(
    runtime: Runtime,
) -> None:
    name = new_user(runtime, ADMIN, password=PASSWORD).name
    client = client_of(runtime)
    answer = client.post(
        "/admin/ui/sign-in", data={"name": name, "password": PASSWORD}, headers=BY_SCRIPT
    )
    assert answer.status_code == 204
    proof = {"X-CSRF-Token": answer.headers["X-CSRF-Token"], **BY_SCRIPT}
    ended = client.post("/admin/ui/sign-out", headers=proof)
    assert (ended.status_code, ended.headers["HX-Redirect"]) == (204, "/admin/ui/sign-in")
    assert client.get("/admin/ui/").status_code == 303


def test_the_page_of_somebody_else_is_had_anew_once_another_has_signed_in_on_it(
    runtime: Runtime,
) -> None:
    first, second = (new_user(runtime, role, password=PASSWORD) for role in (ADMIN, VIEWER))
    text = page(browser_of(runtime, first), "/admin/ui/faxes")
    again = filled(text.partition('<dialog id="again"')[2])
    assert again["name"] == first.name
    for user, stays in ((first, True), (second, False)):
        wish = {**again.to_dict(), "name": user.name, "password": PASSWORD}
        answer = client_of(runtime).post("/admin/ui/sign-in", data=wish, headers=BY_SCRIPT)
        assert answer.status_code == 204
        assert ("X-CSRF-Token" in answer.headers) is stays
        assert (answer.headers.get("HX-Refresh") == "true") is not stays


@pytest.mark.parametrize("name", sorted(files.FILES))
def test_a_file_is_compressed_kept_for_good_and_the_same_as_its_hash_says(
    people: dict[str, FlaskClient], name: str
) -> None:
    where = files.address(name)
    plain = people["nobody"].get(where)
    packed = people["nobody"].get(where, headers={"Accept-Encoding": "gzip"})
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    other = people["nobody"].get(where.partition("?")[0] + "?0123456789abcdef")
    assert other.headers["Cache-Control"] == "no-cache"


def test_there_is_no_other_file(people: dict[str, FlaskClient]) -> None:
    for name in ("../app.py", "docs.css", "vendor", "%2e%2e%2fapp.py"):
        assert people["nobody"].get(f"/admin/ui/static/{name}").status_code == 404


@pytest.mark.parametrize("wanted", ["//[", "http://[::1", "http://\u2100.com/"])
def test_a_way_back_that_is_no_address_is_none(people: dict[str, FlaskClient], wanted: str) -> None:
    assert (
        people["nobody"].get("/admin/ui/sign-in", query_string={"next": wanted}).status_code == 200
    )


@pytest.mark.parametrize("role", sorted(ROLES))
def test_no_form_stands_with_what_is_typed_in_an_address_where_its_script_is_late(
    people: dict[str, FlaskClient], role: str
) -> None:
    for route in PAGES:
        _, path = address(route)
        if "<" in route or route in FILES or CONSOLE[route] not in SCOPES[role]:
            continue
        for form in re.findall(r"<form[^>]*hx-post[^>]*>", page(people[role], path)):
            assert re.search(r'method="post" action="/admin/ui/', form), (path, form)


def test_a_browser_names_its_origin_to_this_server_alone(people: dict[str, FlaskClient]) -> None:
    answer = people[ADMIN].get("/admin/ui/")
    assert answer.headers["Referrer-Policy"] == "same-origin"
