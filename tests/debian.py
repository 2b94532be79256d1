"""Programs that tests run and a machine may not have: Debian packages whose hashes are locked, unpacked into a cache.

Nothing is installed and root is not needed: apt fetches from the archive that this machine's own sources name, dpkg-deb
unpacks. What a program consists of, and how it runs where it was unpacked, is said by its own module:
tests/providers/asterisk/packages.py, tests/browser/packages.py.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import unquote

from tests.ground import ENVIRONMENT

APT_HELPER = Path("/usr/lib/apt/apt-helper")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FETCH_SECONDS = 300
_FORGO = (
    "./usr/share/doc",
    "./usr/share/man",
    "./usr/share/locale",
    "./usr/share/lintian",
    "./dev",
)


class NoPackages(Exception):
    """No package source can be reached, or none has what the lock names; the message says which."""


class Gone(Exception):
    """The archive answers, and has a locked version no longer."""


class Unreachable(Exception):
    """The archive does not answer."""


@dataclass(frozen=True)
class Package:
    """A locked package: where it lies below the archive's address, and its SHA-256 (hex)."""

    name: str
    version: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Locked:
    """What a suite had for an architecture when the lock was made."""

    suite: str
    architecture: str
    packages: tuple[Package, ...]

    def version(self, name: str) -> str:
        """The program's own version in this package's, 22.10.1 in 1:22.10.1~dfsg+~cs6."""
        (version,) = (package.version for package in self.packages if package.name == name)
        return re.split(r"[+~-]", version.rpartition(":")[2])[0]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Tree:
    """An unpacked program."""

    root: Path
    suite: str
    version: str

    def __str__(self) -> str:
        return f"{self.version} ({self.suite}, {self.root})"


T = TypeVar("T", bound=Tree)


@dataclass(frozen=True)
class Program(Generic[T]):
    """What is fetched. Its name is that of its first package, too, and of its folder in the cache."""

    name: str
    tree: type[T]
    suites: Sequence[str]
    """The preferred one first."""
    needs: Callable[[Apt], Iterable[str]]
    """The names of its packages, asked of an apt that knows one suite."""
    module: str
    """The one that says all this; lock.json lies beside it."""

    @property
    def lock(self) -> Path:
        return Path(__file__).parents[1].joinpath(*self.module.split(".")).with_name("lock.json")

    @property
    def remake(self) -> str:
        return f"python -m {self.module} --lock"

    @property
    def not_tested(self) -> str:
        return f"NO {self.name.upper()}, so this was not tested"

    def read_lock(self) -> list[Locked]:
        """All that lock.json names."""
        return [
            Locked(
                each["suite"],
                each["architecture"],
                tuple(Package(**one) for one in each["packages"]),
            )
            for each in json.loads(self.lock.read_text())
        ]

    def make_lock(self, archive: str, suite: str) -> Locked:
        """What the archive has now; CalledProcessError where it cannot be reached or has no such program."""
        with _apt(archive, suite) as apt:
            packages = sorted(
                apt.locked(archive, self.needs(apt)), key=lambda package: package.name
            )
            return Locked(suite, _architecture(), tuple(packages))


def cache_folder() -> Path:
    """FAXBOT_TEST_CACHE, or faxbot-tests in the user's cache; it survives test runs and may be deleted at any time."""
    if given := ENVIRONMENT.get("FAXBOT_TEST_CACHE"):
        return Path(given).resolve()
    base = ENVIRONMENT.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "faxbot-tests"


class Store(Generic[T]):
    """The cache's folder of one program, shared by all test processes of this machine."""

    def __init__(
        self,
        program: Program[T],
        folder: Path,
        locked: Sequence[Locked],
        archives: Sequence[str] | None = None,
    ) -> None:
        self.program = program
        self.folder = folder / program.name
        self._locked = locked
        self._given = archives

    def present(self) -> T | None:
        """What fetch() would give without a network."""
        return next(filter(None, map(self._unpacked, self._candidates())), None)

    def fetch(self) -> T:
        """The preferred one that can be had, from the cache or from the archive.

        Raises NoPackages where there is none, and ValueError for a package whose hash is not the locked one.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        why = self._moved_on()
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # other test processes wait, and find it unpacked
            for locked in self._candidates():
                try:
                    return self._unpacked(locked) or self._fetched(locked)
                except (Gone, Unreachable) as error:
                    why.append(f"{locked.suite}: {error}")
        raise NoPackages("; ".join(why) or f"nothing is locked for {_architecture()}")

    def describe(self) -> str:
        """For pytest's header: which one it is, and why not the preferred one."""
        which = str(self.present() or "is fetched by the first test that needs it")
        return "; ".join([which, *self._moved_on()])

    def _moved_on(self) -> list[str]:
        gone = [locked.suite for locked in self._locked if self._gone(locked).exists()]
        return [f"{suite} has moved on: {self.program.remake}" for suite in gone]

    def _candidates(self) -> list[Locked]:
        here = [locked for locked in self._locked if locked.architecture == _architecture()]
        return [locked for locked in here if not self._gone(locked).exists()]

    def _root(self, locked: Locked) -> Path:
        return self.folder / f"{locked.suite}-{locked.digest}"

    def _gone(self, locked: Locked) -> Path:
        """Marks that the archive said so, so that it is asked once for a lock."""
        return self.folder / f"{locked.suite}-{locked.digest}.gone"

    def _unpacked(self, locked: Locked) -> T | None:
        return self._tree(locked) if self._root(locked).exists() else None

    def _tree(self, locked: Locked) -> T:
        version = locked.version(self.program.name)
        return self.program.tree(self._root(locked), locked.suite, version)

    def _fetched(self, locked: Locked) -> T:
        with tempfile.TemporaryDirectory(dir=self.folder) as made:
            packages, root = Path(made, "packages"), Path(made, "root")
            packages.mkdir()
            root.mkdir()
            try:
                self._download(locked, packages)
            except Gone as error:
                self._gone(locked).write_text(str(error))
                raise
            with ThreadPoolExecutor() as pool:
                files = [_file(packages, package) for package in locked.packages]
                list(pool.map(lambda file: _unpack(file, root), files))
            root.rename(self._root(locked))
        return self._tree(locked)

    def _download(self, locked: Locked, folder: Path) -> None:
        archives = archives_of_this_machine() if self._given is None else self._given
        if not archives:
            raise Unreachable("apt's sources on this machine name no Debian archive")
        for archive in archives:
            said = _download(archive, locked.packages, folder)
            if not said:
                break
        else:
            raise (Gone if "404" in said or "not found" in said.lower() else Unreachable)(said)
        for package in locked.packages:
            found = hashlib.sha256(_file(folder, package).read_bytes()).hexdigest()
            if found != package.sha256:
                raise ValueError(
                    f"{package.path} has SHA-256 {found}, and {package.sha256} is locked"
                )


def archives_of_this_machine() -> list[str]:
    """The addresses of Debian archives in apt's sources (FAXBOT_TEST_DEBIAN names another), no slash at their end."""
    if given := ENVIRONMENT.get("FAXBOT_TEST_DEBIAN"):
        return [given.rstrip("/")]
    if not APT_HELPER.exists():
        return []
    said = subprocess.run(
        ["/usr/bin/apt-get", "update", "--print-uris"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    named = re.findall(r"^'(\S+/debian)/+dists/", said.stdout, re.MULTILINE)
    return list(dict.fromkeys(named))


def _download(archive: str, packages: Sequence[Package], folder: Path) -> str:
    """Fetch all of them; returns the first of apt's complaints, empty when there is none."""
    command: list[str | Path] = [
        *(APT_HELPER, "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=2"),
        *("-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20", "download-file"),
    ]
    for package in packages:
        command += [
            f"{archive}/{package.path}",
            _file(folder, package),
            "",
        ]  # "": we look at the hash
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
    )
    if done.returncode == 0:
        return ""
    return next((line for line in done.stderr.splitlines() if line.startswith("E:")), "apt failed")


def _file(folder: Path, package: Package) -> Path:
    return folder / f"{package.name}.deb"


def _unpack(package: Path, root: Path) -> None:
    """Its files, without scripts, owners, manuals."""
    without = [f"--exclude={path}" for path in _FORGO]
    opened = subprocess.Popen(
        ["/usr/bin/dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE
    )
    with opened:
        subprocess.run(
            ["/bin/tar", "-x", "-C", root, "--no-same-owner", *without],
            stdin=opened.stdout,
            check=True,
        )
    if opened.returncode:
        raise ValueError(f"{package.name} cannot be unpacked")


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


# Making the lock


@contextmanager
def _apt(archive: str, suite: str) -> Iterator[Apt]:
    """An apt with a state of its own, which knows one suite and that nothing is installed."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in ("etc", "state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "etc/sources.list").write_text(
            f"deb [signed-by={KEYRING}] {archive} {suite} main\n"
        )
        settings = {
            "Dir::Etc": folder / "etc",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::State": folder / "state",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
        }
        lines = [f'{name} "{value}";' for name, value in settings.items()]
        (folder / "apt.conf").write_text(
            "\n".join(["#clear DPkg::Post-Invoke;", "#clear APT::Update::Post-Invoke;", *lines])
        )
        apt = Apt(folder)
        apt("/usr/bin/apt-get", "update", "-qq")
        yield apt


class Apt:
    """As one command after the other; it knows one suite, and that nothing is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *command: str) -> str:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            cwd=self._folder / "cache",
            env={**ENVIRONMENT, "APT_CONFIG": str(self._folder / "apt.conf")},
        )
        return done.stdout

    def libraries(self, package: str) -> list[str]:
        """The first alternative of each of its dependencies that is a library."""
        said = self("/usr/bin/apt-cache", "show", "--no-all-versions", package)
        named = re.findall(r"^(?:Pre-)?Depends: (.*)$", said, re.MULTILINE)
        first = [re.split(r"[ (|:]", one.strip())[0] for one in ",".join(named).split(",")]
        return [name for name in first if re.match(r"lib|zlib", name)]

    def closure(self, packages: Sequence[str]) -> list[str]:
        """Of these and all that they need, the libraries."""
        said = self("/usr/bin/apt-get", "install", "-y", "-qq", "--print-uris", *packages)
        needed = re.findall(r"^'[^']*' ([^_ ]*)_", said, re.MULTILINE)
        return [
            name
            for name in needed
            if re.match(r"lib|zlib1g$", name) and not _NO_LIBRARY.match(name)
        ]

    def locked(self, archive: str, packages: Iterable[str]) -> Iterator[Package]:
        said = self("/usr/bin/apt-get", "download", "--print-uris", *packages)
        for address, file, digest in re.findall(
            r"^'([^']*)' (\S+) \d+ SHA256:([0-9a-f]{64})$", said, re.MULTILINE
        ):
            name, version, _ = unquote(file).split("_")
            yield Package(name, version, address.removeprefix(f"{archive}/"), digest)


_NO_LIBRARY = re.compile(r"lib(pam-|perl|c-gconv|.*-(bin|common|data|perl|l10n|modules|runtime)$)")


def main(store: Store[T], arguments: Sequence[str]) -> None:
    """The command of a program's own module: it fetches; with --lock it asks the archive for the present versions."""
    parser = argparse.ArgumentParser(description=f"Fetch the {store.program.name} of the tests.")
    parser.add_argument("--lock", action="store_true", help="write lock.json anew")
    program = store.program
    if parser.parse_args(arguments).lock:
        archive = archives_of_this_machine()[0]
        made = [asdict(program.make_lock(archive, suite)) for suite in program.suites]
        program.lock.write_text(json.dumps(made, indent=1) + "\n")
        store = Store(program, cache_folder(), program.read_lock())
    sys.stdout.write(f"{store.fetch()}\n")
