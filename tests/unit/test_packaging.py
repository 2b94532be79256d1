"""What a stranger gets: the set-up script, the locks, the wheel, the images and compose.yaml say
what they must."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.containers import (
    DOCKERFILES,
    ROOT,
    Instruction,
    Missing,
    compose,
    context,
    environment,
    only,
    sources,
    stages,
)

LOCKS = ("constraints.txt", "constraints-dev.txt", "constraints-build.txt", "constraints-uv.txt")
SECRETS = {
    "POSTGRES_PASSWORD": "a",
    "REDIS_PASSWORD": "b",
    "FLOWER_PASSWORD": "c",
    "CONFIG_MASTER_KEY": "d",
}


# The set-up script --------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files the set-up script reads, in a folder with a space in its name."""
    folder = tmp_path / "fax bot"
    folder.mkdir()
    for name in (*LOCKS, "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    return folder


def bootstrap(checkout: Path, kind: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts" / "bootstrap", kind],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(checkout),
            # Whatever a broken script does, it installs nothing on this machine.
            "PIP_NO_INDEX": "1",
            "UV_OFFLINE": "1",
            **env,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def pretend_set_up(checkout: Path, kind: str) -> None:
    """An environment as the script leaves it behind, with nothing in it but a Python."""
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    locks = sorted(checkout.glob("constraints*.txt"))
    read = [*locks, checkout / "setup.cfg", checkout / "pyproject.toml"]
    content = b"".join(path.read_bytes() for path in [*read, checkout / "scripts" / "bootstrap"])
    cksum = subprocess.run(["/usr/bin/cksum"], input=content, capture_output=True, check=True)
    made_from = cksum.stdout.decode().strip().replace(" ", "-")
    (checkout / ".venv" / "faxbot-setup").write_text(f"{kind} {made_from} {checkout}\n")


@pytest.mark.parametrize(("made", "wanted"), [("run", "run"), ("dev", "dev"), ("dev", "run")])
def test_a_finished_set_up_is_recognised_at_once(checkout: Path, made: str, wanted: str) -> None:
    pretend_set_up(checkout, made)
    began = time.monotonic()

    done = bootstrap(checkout, wanted)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 10  # 0.02 s on an idle machine


def break_the_python(checkout: Path) -> None:
    (checkout / ".venv" / "bin" / "python").unlink()


def change_the_lock(checkout: Path) -> None:
    with (checkout / "constraints.txt").open("a") as lock:
        lock.write("# newer\n")


def interrupt(checkout: Path) -> None:
    (checkout / ".venv" / "faxbot-setup").write_text("unfinished\n")


@pytest.mark.parametrize("change", [break_the_python, change_the_lock, interrupt])
def test_a_set_up_that_is_not_good_any_more_is_made_again(
    checkout: Path, change: Callable[[Path], None]
) -> None:
    """Also: the pretended .venv holds a mere link to a Python elsewhere, and nothing is installed
    there."""
    pretend_set_up(checkout, "dev")
    change(checkout)

    done = bootstrap(checkout, "run", PYTHON="/nonexistent/python")

    # It got as far as looking for a Python, and the one it was told to take is not there.
    assert done.returncode == 1
    assert "PYTHON=/nonexistent/python is not a Python >= 3.11" in done.stderr


def test_without_a_usable_python_the_set_up_says_what_to_do(checkout: Path) -> None:
    done = bootstrap(checkout, "run", PYTHON="/nonexistent/python")

    assert done.returncode == 1
    assert "PYTHON=/nonexistent/python is not a Python >= 3.11" in done.stderr
    assert not (checkout / ".venv").exists()


def test_the_set_up_refuses_a_word_it_does_not_know(checkout: Path) -> None:
    done = bootstrap(checkout, "production")

    assert done.returncode == 2
    assert "usage" in done.stderr


def test_every_make_word_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    words = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())

    # An empty environment: not the MAKEFLAGS of a `make test` around us.
    done = subprocess.run(
        ["/usr/bin/make", "help"], cwd=ROOT, env={}, capture_output=True, text=True, check=True
    )

    assert {line.split()[0] for line in done.stdout.splitlines()} == words


# The locks and the wheel --------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_versions_and_hashes_and_no_place(name: str) -> None:
    text = (ROOT / name).read_text()
    blocks = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())

    assert all(re.match(r"[a-z0-9-]+==[\w.]+", block) for block in blocks)
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"://|--index|--find-links|--extra|file:", text)


def pins(name: str) -> dict[str, str]:
    found = re.findall(r"^([a-z0-9-]+)==([\w.]+)", (ROOT / name).read_text(), re.MULTILINE)
    return dict(found)


def test_a_set_up_for_tests_serves_to_run_as_well() -> None:
    assert pins("constraints.txt").items() <= pins("constraints-dev.txt").items()


def test_the_locks_hold_everything_setup_cfg_asks_for() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")

    def named(text: str) -> set[str]:
        found = re.findall(r"^([\w-]+)", text, re.MULTILINE)
        return {name.lower().replace("_", "-") for name in found}

    extras = setup["options.extras_require"]
    run = named(setup["options"]["install_requires"]) | named(extras["operations"])
    assert run <= pins("constraints.txt").keys()
    assert named(extras["dev"]) <= pins("constraints-dev.txt").keys()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the images install, built by their own words from what .dockerignore lets
    through."""
    folder = tmp_path_factory.mktemp("build")
    for name in context():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    words = only_line(stages("web.Dockerfile")[0], "pip wheel").split()
    words = [{"/wheels": str(folder / "wheels"), "/src": str(folder)}.get(w, w) for w in words]
    subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True, cwd=folder)
    (wheel,) = (folder / "wheels").glob("*.whl")
    return wheel


def only_line(stage: list[Instruction], beginning: str) -> str:
    lines = (part.strip() for line in stage for part in line.rest.split("&&"))
    (found,) = (line for line in lines if line.startswith(beginning))
    return found


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}

    files = {name for name in context() if name.startswith(("faxbot/", "migrations/"))}
    installed = {re.sub("^migrations/", "faxbot/migrations/", name) for name in files}
    assert packed == installed


def test_the_installed_wheel_works_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    """Unpacked in front of the same packages: schema, manifests and schemas come from the wheel."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    env = {"PATH": os.defpath, "PYTHONPATH": str(site), "FAX_DATA_DIR": str(tmp_path / "data")}

    def faxbot(*words: str) -> str:
        command = [sys.executable, "-m", "faxbot.cli", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "import faxbot, faxbot.migrations as m; print(faxbot.__file__, m.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(ROOT) not in where.stdout
    assert "at revision" in faxbot("db", "upgrade")
    assert "sound" in faxbot("plugins", "validate")


# The images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_pinned_small_and_not_root(name: str) -> None:
    build, final = stages(name)
    base = only(build, "FROM").rest.removesuffix(" AS build")

    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    assert only(final, "FROM").rest == base
    assert only(final, "USER").rest == "10001:10001"
    assert only(final, "STOPSIGNAL").rest == "SIGTERM"
    runs = [instruction.rest for instruction in final if instruction.word == "RUN"]
    assert not any(re.search(r"apt|pip|gcc|curl", run) for run in runs)
    # Nothing of the build context goes straight into the final image.
    assert sources(final) == []


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_installs_only_what_the_locks_name(name: str) -> None:
    (build, _) = stages(name)
    lines = [part.strip() for line in build for part in line.rest.split("&&")]
    installs = [line for line in lines if line.startswith("pip") and " install " in line]

    assert len(installs) == 3
    assert all("--require-hashes -r /src/" in x or "--no-index" in x for x in installs)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_copies_is_let_through(name: str) -> None:
    files = context()

    for source in sources(stages(name)[0]):
        assert any(path == source or path.startswith(source + "/") for path in files), source


def test_nothing_but_the_sources_reaches_a_build() -> None:
    tops = {name.split("/")[0] for name in context()}

    assert tops == set(sources(stages("web.Dockerfile")[0]))
    assert not any("__pycache__" in name for name in context())


def test_both_images_are_built_alike() -> None:
    """One recipe, two files: they differ in what they run and serve, not in what is in them."""
    web, worker = (stages(name) for name in DOCKERFILES)

    assert web[0] == worker[0]
    assert [line for line in web[1] if line.word in ("COPY", "RUN")] == [
        line for line in worker[1] if line.word in ("COPY", "RUN")
    ]
    assert environment(worker[1]).items() <= environment(web[1]).items()


# compose.yaml -------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_compose_names_a_secret_that_is_not_set(missing: str) -> None:
    variables = {name: value for name, value in SECRETS.items() if name != missing}

    with pytest.raises(Missing, match=f"{missing}: set it.* openssl rand"):
        compose(variables)


def test_compose_publishes_nothing_beyond_this_machine() -> None:
    services = compose(SECRETS)["services"]
    published = {name: s["ports"] for name, s in services.items() if "ports" in s}

    assert published == {"web": ["127.0.0.1:8080:8080"], "flower": ["127.0.0.1:5555:5555"]}


def test_compose_runs_faxbot_without_privileges() -> None:
    services = compose(SECRETS)["services"]
    ours = [service for service in services.values() if "build" in service]

    assert len(ours) == 7
    for service in ours:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_waits_for_what_a_service_needs() -> None:
    services = compose(SECRETS)["services"]

    for name in ("web", "worker", "beat"):
        needs = services[name]["depends_on"]
        assert needs["migrate"]["condition"] == "service_completed_successfully"
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in services[needed]["healthcheck"], needed


def test_compose_s_listener_is_the_worker_with_another_command() -> None:
    """It opens the same database and settings, and takes documents out of the folders that the worker fills."""
    services = compose(SECRETS)["services"]
    listener = dict(services["listen"])

    assert listener.pop("command") == ["faxbot", "listen"]
    assert listener.pop("profiles") == ["listen"]
    # The worker's check asks Celery, of which it is no part.
    assert listener.pop("healthcheck") == {"disable": True}
    worker = {key: value for key, value in services["worker"].items() if key != "stop_grace_period"}
    assert listener == worker


def test_asterisk_s_folders_are_given_to_all_services_that_look_into_them() -> None:
    page = (ROOT / "docs/providers/asterisk.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^ +```yaml\n(.*?)^ +```$", page, re.MULTILINE | re.DOTALL)
    override = yaml.safe_load(block)["services"]
    folders = re.findall(r"install -d .* (/\S+)$", page, re.MULTILINE)
    (uid,) = re.findall(r"the owner is `(\d+)`", page)

    # web tests the connection, the worker sends and takes what came, the listener removes what was sent.
    assert list(override) == ["web", "worker", "listen"]
    for service in override.values():
        assert service == {"volumes": [f"{folder}:{folder}" for folder in folders]}
    services = compose(SECRETS)["services"]
    for name in override:
        image = stages(services[name]["build"]["dockerfile"])[-1]
        assert only(image, "USER").rest == f"{uid}:{uid}"


def test_compose_pins_the_images_of_others() -> None:
    services = compose(SECRETS)["services"]
    images = [service["image"] for service in services.values() if "build" not in service]

    assert len(images) == 2
    assert all(re.fullmatch(r"\w+:\d+\.\d+(\.\d+)?-bookworm", image) for image in images)


def test_every_volume_and_network_that_is_used_is_declared() -> None:
    site = compose(SECRETS)
    used = {v.split(":")[0] for s in site["services"].values() for v in s.get("volumes", [])}
    linked = {network for s in site["services"].values() for network in s["networks"]}

    assert used == set(site["volumes"])
    assert linked == set(site["networks"])
