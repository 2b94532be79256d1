"""What a process is at, as its log lines say it: of this piece of work alone, and of this thread alone."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from faxbot import logcontext


def test_what_is_begun_has_nothing_of_what_was_before() -> None:
    logcontext.begin(request_id="a", job_id="1")
    logcontext.begin(request_id="b")
    assert logcontext.facts() == {"request_id": "b"}
    logcontext.begin()
    assert logcontext.facts() == {}


def test_what_becomes_known_is_added_for_as_long_as_it_is_about_that() -> None:
    logcontext.begin(task="t")
    logcontext.note(job_id="1")
    with logcontext.about(job_id="2", attempt=1):
        assert logcontext.facts() == {"task": "t", "job_id": "2", "attempt": 1}
    assert logcontext.facts() == {"task": "t", "job_id": "1"}
    logcontext.begin()


def test_another_thread_is_at_something_else() -> None:
    logcontext.begin(request_id="a")
    seen: list[Mapping[str, object]] = []
    thread = threading.Thread(target=lambda: seen.append(logcontext.facts()))
    thread.start()
    thread.join()
    logcontext.begin()
    assert seen == [{}]
