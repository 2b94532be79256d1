"""The checks that guard the code can fail: each rule is broken once, and the tool must say so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
HEAD = '"""A module."""\n\n'


def ruff(path: str, text: str) -> set[str]:
    """The codes of the rules that `text` breaks when it stands at `path`."""
    command = [str(BIN / "ruff"), "check", "--quiet", "--output-format", "concise", "-"]
    done = subprocess.run(
        [*command, f"--stdin-filename={path}"],
        input=HEAD + text,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    return {line.split()[1] for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("import os\n\nHOME = os.environ['HOME']\n", "TID251"),
        ("import os\n\nHOME = os.getenv('HOME')\n", "TID251"),
        ("from os import environ\n\nHOME = environ['HOME']\n", "TID251"),
        ("import requests\n\nREPLY = requests.get('https://127.0.0.1', timeout=1)\n", "TID251"),
        ("from datetime import datetime\n\nNOW = datetime.now()\n", "DTZ005"),
        ("from .errors import FaxbotError\n\nERROR = FaxbotError\n", "TID252"),
        ("try:\n    A = 1\nexcept Exception:\n    A = 2\n", "BLE001"),
        ("raise Exception('no')\n", "TRY002"),
        ("import logging\n\nlogging.getLogger('a').info(f'fax {1}')\n", "G004"),
        ("def _a() -> None:\n    import os\n\n    os.getpid()\n", "PLC0415"),
        ("print('debugging')\n", "T201"),
        ("def submit() -> None:\n    pass\n", "D103"),
        ("def _a(x: int) -> None:\n" + "    while x:\n        x -= 1\n" * 9, "C901"),
    ],
)
def test_ruff_refuses(text: str, rule: str) -> None:
    assert rule in ruff("faxbot/jobs.py", text)


def test_the_configuration_may_read_the_environment() -> None:
    assert "TID251" not in ruff("faxbot/config.py", "import os\n\nHOME = os.environ['HOME']\n")


def test_import_contracts_refuse_every_wrong_way(tmp_path: Path) -> None:
    """One copy of the package, broken once for each contract."""
    package = tmp_path / "faxbot"
    shutil.copytree(ROOT / "faxbot", package, ignore=shutil.ignore_patterns("__pycache__", "*.ttf"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    (package / "utils.py").write_text("")
    for path, line in {
        "errors.py": "import faxbot.config",
        "providers/simulator/__init__.py": "import sqlalchemy",
        "storage/local/__init__.py": "import faxbot.plugins.loader",
        "web/__init__.py": "import faxbot.providers",
        "retry.py": "import celery",
        "cli/__init__.py": "import flask",
        "carriers/door.py": "import faxbot.providers.http",
    }.items():
        with (package / path).open("a") as file:
            file.write(f"\n{line}\n")

    done = lint_imports(tmp_path)

    assert done.returncode == 1
    for sign in (
        "faxbot.utils",
        "faxbot.errors is not allowed to import faxbot.config",
        "faxbot.providers is not allowed to import sqlalchemy",
        "faxbot.storage is not allowed to import faxbot.plugins.loader",
        "faxbot.web is not allowed to import faxbot.providers",
        "faxbot.retry is not allowed to import celery",
        "faxbot.cli is not allowed to import flask",
        "faxbot.carriers is not allowed to import faxbot.providers",
    ):
        assert sign in done.stdout


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "lint-imports", "--no-cache"],
        cwd=folder,
        env={"PATH": os.defpath, "PYTHONPATH": str(folder), "COLUMNS": "300", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
