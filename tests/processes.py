"""Python programs that begin at the same moment, each a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.ground import BUSY


def begun_together(
    program: str, each: Sequence[Sequence[str]], environ: Mapping[str, str], word: str = "go"
) -> list[int]:
    """The numbers that processes of this program print, one for each list of arguments. When it has made itself ready
    a program prints `ready`, and begins when it has read the line `word`."""
    with ExitStack() as stack:
        processes = []
        for arguments in each:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program, *arguments],
                    env={**environ, "PYTHONPATH": str(Path.cwd())},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
        return [int(process.communicate(timeout=60 * BUSY)[0]) for process in processes]
