"""Plugins with one fault each, and which tests of a contract for authors find which."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.ground import BUSY

SOUND = "Sound"
"""The plugin with no fault."""
Faults = Mapping[str, tuple[str, str]]
"""By a fault's name its code, the body of a class, and the test of the contract that is there for it."""
_FAILED = re.compile(r"^(?:FAILED|ERROR) \S+::Test(\w+)::(\w+)", re.MULTILINE)


def bodies(faults: Faults) -> dict[str, str]:
    """The code of each faulty class, and of the sound one."""
    return {SOUND: "\n    pass", **{name: code for name, (code, _) in faults.items()}}


def write(module: Path, head: str, base: str, tests: Path, contract: str, faults: Faults) -> None:
    """Write the faulty plugins, subclasses of `base` that `head` has, into `module`, called `faults`, and a class of
    tests for each into `tests`: subclasses of the class `Base` that `contract` has."""
    code = bodies(faults)
    module.write_text(
        head + "".join(f"\nclass {name}({base}):{body}\n" for name, body in code.items())
    )
    tests.write_text(
        contract
        + "".join(f"\nclass Test{name}(Base):\n    plugin = faults.{name}\n" for name in code)
    )


def found(
    folder: Path, tests: Path, faults: Faults, *options: str, sound: Iterable[str] = ("",)
) -> set[tuple[str, str]]:
    """(fault, test) of what failed, where each fault is tried by its own test, and the sound plugin by those of
    `sound`, or by all. Run in `folder`."""
    wanted = [f"{tests}::Test{SOUND}" + f"::{test}" * bool(test) for test in sound]
    wanted += [f"{tests}::Test{name}::{test}" for name, (_, test) in faults.items()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", "--tb=no", *options, *wanted],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300 * BUSY,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    return set(_FAILED.findall(done.stdout))


def unproven(contract: Path, *faults: tuple[str, str]) -> set[str]:
    """The tests of a contract that no fault turns red."""
    return set(re.findall(r"def (test_\w+)", contract.read_text())) - {test for _, test in faults}
