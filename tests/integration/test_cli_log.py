"""The log of a role: one JSON object a line, or short text; nothing that a library said."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LOGGING = """
import logging
from faxbot.cli import logs
from faxbot.errors import ConfigError
logs.configure("web", "info", {style!r})
log = logging.getLogger("faxbot.test")
log.debug("not shown")
log.info("told", extra={{"fax_id": "17"}})
for error in (ValueError("+15550100000 is no number"), ConfigError("FAX_HEADER is too long")):
    try:
        raise error
    except Exception:
        log.exception("failed")
"""


def log_lines(style: str) -> list[str]:
    program = LOGGING.format(style=style)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stderr.splitlines()


def test_a_log_line_is_json_and_repeats_nothing_that_a_library_said() -> None:
    told, foreign, ours = map(json.loads, log_lines("json"))

    assert told["message"] == "told"
    assert (told["role"], told["level"], told["fax_id"]) == ("web", "info", "17")
    assert foreign["exception"] == "ValueError"
    assert foreign["trace"]
    assert "5550100000" not in json.dumps(foreign)
    assert ours["exception"] == "FAX_HEADER is too long"


def test_text_lines_say_the_same_for_people() -> None:
    told, failed, *_ = log_lines("text")

    assert told == "INFO told fax_id=17"
    assert failed == "ERROR failed exception=ValueError"


FAILING = """
import logging, threading
from faxbot.cli import logs
logs.configure("web", "info", {style!r})
try:
    raise ValueError("+15550100000 is no number")
except ValueError as error:
    logging.getLogger("celery.worker.request").error("Task handler raised error: %r", error, exc_info=True)
def fail():
    raise LookupError("+15550100000 is no number")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


@pytest.mark.parametrize("style", ["json", "text"])
def test_what_a_library_says_of_an_exception_and_what_nobody_caught_is_not_repeated(
    style: str,
) -> None:
    program = FAILING.format(style=style)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )

    assert done.returncode == 1
    assert "5550100000" not in done.stderr
    assert "celery.worker.request: failed" in done.stderr
    assert done.stderr.count("not caught") == 2
    assert done.stderr.count("LookupError") == 2
