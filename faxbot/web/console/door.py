"""Sign in to the console and out of it; and the files that its pages are made of."""

from __future__ import annotations

from flask import Response, request

from faxbot import sessions, setup, signin
from faxbot.actors import ADMIN
from faxbot.sessions import Login
from faxbot.web import auth, people_schemas
from faxbot.web.auth import actor, runtime
from faxbot.web.console import files, frame

pages = frame.Pages("door", __name__)


@pages.page("/static/<name>", access=auth.OPEN)
def read_file(name: str) -> Response:
    """A style sheet or a script."""
    return files.serve(name)


@pages.page("/sign-in", access=auth.OPEN)
def ask_who() -> Response:
    """Sign in: with a password, or through who knows one; while there is nobody, make the first administrator."""
    if setup.nobody_yet(runtime()):
        return frame.lead("/admin/ui/setup/first")
    ways = signin.ways(runtime())
    return frame.show("sign-in.html", ways=ways, back=frame.way_back())


@pages.deed("/sign-in", access=auth.OPEN)
def sign_in() -> Response:
    """Begin a session, and go where one wanted to; an administrator while nothing is set: to Setup. In the middle of a
    page (a session was over) the page stays, where it is that of the same `user`."""
    auth.must_be_ours()
    wish = frame.checked(people_schemas.Credentials(), request.form, "next", "user")
    back = frame.way_back()
    login = sessions.log_in(runtime(), auth.newcomer(), **wish)
    if back == frame.HOME and login.user.role == ADMIN and setup.nothing_is_set(runtime()):
        back = "/admin/ui/setup"
    answer = frame.lead(back) if "next" in request.form else _token_of(login)
    auth.keep_session(answer, login.token)
    return answer


def _token_of(login: Login) -> Response:
    """What the page that is open shows from now on; the page of somebody else is had anew, as that of who came."""
    answer = Response(status=204)
    if request.form.get("user", login.user.id) != login.user.id:
        answer.headers["HX-Refresh"] = "true"
    else:
        answer.headers["X-CSRF-Token"] = sessions.csrf_token(runtime(), login.token)
    return answer


@pages.deed("/sign-out", access=auth.SESSION)
def sign_out() -> Response:
    """End the session."""
    sessions.end(runtime(), actor(), auth.session_token() or "")
    answer = frame.lead(frame.SIGN_IN)
    auth.keep_session(answer, None)
    return answer
