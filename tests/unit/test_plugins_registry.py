"""The registry: what is in ours, and an installation's own, which admits nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from faxbot.errors import ConfigError, PluginError
from faxbot.plugins import manifest as manifests
from faxbot.plugins import registry
from faxbot.plugins.registry import digest, load

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "faxbot").glob("*/*/manifest.json"))


def own(path: Path, *plugins: dict[str, Any]) -> registry.Registry:
    """An installation's own registry with these plugins."""
    file = path / "registry.json"
    file.write_text(json.dumps({"plugins": plugins}))
    return load(str(file))


def package(folder: Path, **files: str) -> Path:
    """A plugin's package with these files; its module."""
    folder.mkdir(exist_ok=True)
    for name, content in {"__init__.py": "", "manifest.json": "{}", **files}.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(content)
    return folder / "__init__.py"


ACME = {"id": "acme", "name": "Acme", "package": "faxbot-acme"}


def test_ours_names_each_plugin_that_faxbot_brings_as_its_manifest_does() -> None:
    ours = load("")

    assert not ours.closed
    assert set(ours.entries) == {path.parent.name for path in MANIFESTS}
    for path in MANIFESTS:
        found, entry = manifests.read(path), ours.entries[path.parent.name]
        assert (entry.id, entry.name, entry.package) == (found.id, found.name, "faxbot")
        assert (entry.categories, entry.hipaa, entry.docs) == (
            found.categories,
            found.hipaa,
            found.docs,
        )


def test_ours_keeps_nobody_out(tmp_path: Path) -> None:
    load("").admit("acme", "faxbot-acme", package(tmp_path / "acme"))


def test_it_is_listed_by_category_and_by_what_fits_hipaa() -> None:
    ours = load("")

    assert [entry.id for entry in ours.listed(category="storage")] == ["local", "s3"]
    assert [entry.id for entry in ours.listed(category="inbound")] == [
        "asterisk",
        "phaxio",
        "simulator",
        "sinch",
    ]
    assert "simulator" not in {entry.id for entry in ours.listed(hipaa_only=True)}
    assert ours.listed(category="teleportation") == []


def test_an_installations_own_admits_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    module, found = package(tmp_path / "acme"), own(tmp_path, ACME)

    found.admit("acme", "faxbot-acme", module)
    with pytest.raises(PluginError, match="not in the registry"):
        found.admit("simulator", "faxbot", module)
    with pytest.raises(PluginError, match="has it from 'faxbot-acme'"):
        found.admit("acme", "faxbot-acmee", module)


@pytest.mark.parametrize(
    "change",
    [
        {"__init__.py": "print()"},
        {"manifest.json": "{ }"},
        {"more.py": ""},
        {"deep/er.json": "1"},
        {"more.pyc": "Python imports it where there is no more.py"},
    ],
)
def test_with_a_sha256_it_admits_only_the_files_that_were_looked_at(
    tmp_path: Path, change: dict[str, str]
) -> None:
    module = package(tmp_path / "acme")
    found = own(tmp_path, {**ACME, "sha256": digest(module)})
    package(tmp_path / "acme", **{"__pycache__/x.cpython-311.pyc": "compiled"})
    found.admit("acme", "faxbot-acme", module)

    package(tmp_path / "acme", **change)
    with pytest.raises(PluginError, match="sha256"):
        found.admit("acme", "faxbot-acme", module)


def test_a_file_under_another_name_is_another_plugin(tmp_path: Path) -> None:
    one = digest(package(tmp_path / "one", **{"ab.py": "x", "c.py": "y"}))
    other = digest(package(tmp_path / "other", **{"a.py": "x", "bc.py": "y"}))

    assert one != other


def test_a_plugin_of_one_module_is_that_module_and_its_manifest(tmp_path: Path) -> None:
    package(tmp_path / "site", **{"acme.py": "1", "other.py": "2"}).unlink()
    before = digest(tmp_path / "site" / "acme.py")

    package(tmp_path / "site", **{"other.py": "3"}).unlink()
    assert digest(tmp_path / "site" / "acme.py") == before
    package(tmp_path / "site", **{"acme.py": "3"}).unlink()
    assert digest(tmp_path / "site" / "acme.py") != before


def test_a_module_of_a_package_is_looked_at_with_all_that_is_in_the_package(tmp_path: Path) -> None:
    package(tmp_path / "acme", **{"provider.py": "from acme import client", "client.py": "1"})
    module = tmp_path / "acme" / "provider.py"
    found = own(tmp_path, {**ACME, "sha256": digest(module)})
    found.admit("acme", "faxbot-acme", module)

    package(tmp_path / "acme", **{"client.py": "2"})
    with pytest.raises(PluginError, match="sha256"):
        found.admit("acme", "faxbot-acme", module)


@pytest.mark.parametrize("odd", ["a link to a folder", "a link to nothing", "a pipe"])
def test_a_package_that_holds_what_cannot_be_looked_at_is_refused(tmp_path: Path, odd: str) -> None:
    module = package(tmp_path / "acme")
    found = own(tmp_path, {**ACME, "sha256": digest(module)})
    if odd == "a pipe":
        os.mkfifo(tmp_path / "acme" / "odd")
    else:
        (tmp_path / "acme" / "odd").symlink_to(tmp_path if "folder" in odd else "nowhere")

    with pytest.raises(PluginError, match="odd in its package is neither a file nor a folder"):
        found.admit("acme", "faxbot-acme", module)


def test_files_that_cannot_be_read_keep_one_plugin_out_and_say_so(tmp_path: Path) -> None:
    module = tmp_path / "nowhere" / "acme.py"
    found = own(tmp_path, {**ACME, "sha256": "0" * 64})

    with pytest.raises(PluginError, match="its files cannot be read: No such file"):
        found.admit("acme", "faxbot-acme", module)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 100_000,
        "[]",
        "{}",
        '{"plugins": [{"id": "acme"}]}',
        '{"plugins": [{"id": "acme", "name": "Acme", "package": "x", "sha256": "ABC"}]}',
        '{"plugins": [{"id": "acme", "name": "Acme", "package": "x", "url": "x"}]}',
        '{"plugins": {}}',
    ],
)
def test_a_file_that_is_no_registry_is_refused_by_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "registry.json"
    file.write_text(content)

    with pytest.raises(ConfigError, match="FAXBOT_PLUGIN_REGISTRY"):
        load(str(file))


def test_a_registry_that_is_not_there_lets_nobody_in_unseen(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FAXBOT_PLUGIN_REGISTRY: the file cannot be read"):
        load(str(tmp_path / "none.json"))
