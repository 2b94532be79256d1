"""What a browser says of the pages that a test opens; a page must leave nothing to say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Request, WebError

_OURS = ("data", "blob", "about")
# The page was left, or gave up by itself: so ends an event stream or a download, too.
_GIVEN_UP = "net::ERR_ABORTED"


@dataclass
class Watch:
    """All that goes wrong in the pages that it follows: errors and warnings of the console (a violation of the
    Content-Security-Policy and an answer of 400 and above are among them), exceptions that nobody caught, requests that
    failed, requests to anybody but `origin`."""

    origin: str
    troubles: list[str] = field(default_factory=list)
    posted: list[str] = field(default_factory=list)
    """The paths that forms were sent to."""
    _expected: list[str] = field(default_factory=list)

    def follow(self, context: BrowserContext) -> None:
        """Listen to all pages of this context."""
        context.on("console", self._console)
        context.on("weberror", self._exception)
        context.on("request", self._request)
        context.on("requestfailed", self._failed)

    def expect(self, pattern: str) -> None:
        """Something that is said matches this, once or often: a 422 to a wrong wish, say. To be called before."""
        self._expected.append(pattern)

    def assert_quiet(self) -> None:
        """Nothing was said that nobody expected, and all that was expected."""
        wrong = [each for each in self.troubles if not _told(each, self._expected)]
        missed = [
            each for each in self._expected if not any(_told(one, [each]) for one in self.troubles)
        ]
        assert not wrong, "the browser complains:\n" + "\n".join(wrong)
        assert not missed, f"the browser was expected to complain of {missed}"

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            place = message.location
            self.troubles.append(
                f"console {message.type}: {message.text} ({place['url']}:{place['lineNumber']})"
            )

    def _exception(self, error: WebError) -> None:
        self.troubles.append(f"exception: {error.error}")

    def _request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in _OURS and f"{address.scheme}://{address.netloc}" != self.origin:
            self.troubles.append(f"foreign: {request.method} {request.url}")
        if request.method == "POST":
            self.posted.append(address.path)

    def _failed(self, request: Request) -> None:
        if request.failure != _GIVEN_UP:
            self.troubles.append(f"failed: {request.method} {request.url}: {request.failure}")


def _told(trouble: str, patterns: Iterable[str]) -> bool:
    return any(re.search(pattern, trouble) for pattern in patterns)
