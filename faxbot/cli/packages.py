"""Packages of plugins in the folders of their authors: made from the template, checked, tested."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from faxbot.errors import PluginError
from faxbot.plugins import loader

FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "__MODULE__/__init__.py": "provider.py.txt",
    "__MODULE__/manifest.json": "manifest.json.txt",
    "__MODULE__/sample_payloads/delivered.json": "delivered.json.txt",
    "__MODULE__/sample_payloads/busy.json": "busy.json.txt",
    "tests/carrier.py": "carrier.py.txt",
    "tests/test_contract.py": "test_contract.py.txt",
}
"""Where a file of faxbot/plugins/template goes in a new package."""
_NO_TESTS = 5
"""pytest's exit code where it found none."""


def contents(plugin_id: str) -> dict[str, str]:
    """The text of every file of a new package, by its path in there."""
    words = plugin_id.replace("-", "_").split("_")
    class_name = "".join(word.capitalize() for word in words)
    names = {
        "__ID__": plugin_id,
        "__MODULE__": "_".join(["faxbot_provider", *words]),
        "__PACKAGE__": _package(plugin_id),
        "__CLASS__": class_name,
        "__HEADER__": class_name.lower(),
        "__ENV__": "_".join(words).upper(),
        "__NAME__": " ".join(word.capitalize() for word in words),
    }
    template = resources.files("faxbot.plugins.template")

    def filled(text: str) -> str:
        return re.sub(r"__[A-Z]+__", lambda match: names[match[0]], text)

    return {
        filled(path): filled(template.joinpath(source).read_text(encoding="utf-8"))
        for path, source in FILES.items()
    }


def create(plugin_id: str, parent: Path) -> Path:
    """Write a new package into a folder of its own below `parent`, whole or not at all; gives that folder.

    Raises PluginError where the id is not one or is taken, and OSError.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", plugin_id) or len(plugin_id) > 40:
        raise PluginError(
            "the name must be lower-case letters and digits, with - or _ between, and begin with a letter"
        )
    if plugin_id in {entry.name for entry in entry_points(group=loader.GROUP)}:
        raise PluginError(f"a plugin {plugin_id!r} is installed already: choose another name")
    target = parent / _package(plugin_id)
    if target.exists():
        raise PluginError(f"{target} is there already")
    draft = Path(tempfile.mkdtemp(prefix=".faxbot-new-", dir=parent))
    try:
        for name, text in contents(plugin_id).items():
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        os.rename(draft, target)  # noqa: PTH104 - Path.rename() would do the same
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target


def faults(folder: Path, seconds: float) -> list[tuple[str, str]]:
    """What is wrong with the plugins of a package's folder: name and one sentence each. They are imported, for
    at most so many seconds each."""
    try:
        named = _entry_points(folder)
    except PluginError as error:
        return [(str(folder), error.detail)]
    found = []
    with _importable(folder):
        for entry_point in named:
            try:
                loader.begin(loader.find(entry_point, "full_access"), seconds)
            except PluginError as error:
                found.append((entry_point.name, error.detail))
    return found


def run_tests(folder: Path) -> None:
    """Run the tests of a package's folder, which print what they do; raises PluginError where they fail or there are
    none."""
    if find_spec("pytest") is None:
        raise PluginError('pytest is not installed: pip install "faxbot[testing]"')
    code = subprocess.run([sys.executable, "-m", "pytest"], cwd=folder, check=False).returncode
    if code == _NO_TESTS:
        raise PluginError(f"there are no tests in {folder}")
    if code != 0:
        raise PluginError(f"the tests in {folder} do not pass")


def source_of(plugin_id: str) -> Path | None:
    """The folder from which pip installed the package of this plugin, where it is here still (PEP 610); None for
    faxbot's own plugins."""
    for entry in entry_points(group=loader.GROUP, name=plugin_id):
        if entry.dist is None or entry.dist.name == "faxbot":
            continue
        origin = json.loads(entry.dist.read_text("direct_url.json") or "{}")
        folder = Path(unquote(urlsplit(str(origin.get("url", ""))).path))
        if "dir_info" in origin and is_package(folder):
            return folder
    return None


def is_package(folder: Path) -> bool:
    """Whether a folder is the top of a package."""
    return (folder / "pyproject.toml").is_file()


def _package(plugin_id: str) -> str:
    return f"faxbot-provider-{plugin_id.replace('_', '-')}"


def _entry_points(folder: Path) -> list[EntryPoint]:
    try:
        content: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    except FileNotFoundError:
        raise PluginError("there is no pyproject.toml in it") from None
    except (OSError, ValueError) as error:
        raise PluginError(f"its pyproject.toml cannot be read ({type(error).__name__})") from None
    project = content.get("project")
    groups = project.get("entry-points") if isinstance(project, dict) else None
    group = groups.get(loader.GROUP) if isinstance(groups, dict) else None
    if not isinstance(group, dict) or not group:
        raise PluginError(f'its pyproject.toml has no [project.entry-points."{loader.GROUP}"]')
    return [EntryPoint(name, str(value), loader.GROUP) for name, value in sorted(group.items())]


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Its modules come before installed ones of the same name, and are forgotten again."""
    before, known = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(folder / "src"), str(folder)]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
        for name in set(sys.modules) - known:
            file = Path(getattr(sys.modules[name], "__file__", None) or "/").resolve()
            if file.is_relative_to(folder.resolve()):
                del sys.modules[name]
