"""Debian's kernels, unpacked into a cache and never installed.

The machine's own package sources say where Debian's archive is. The suites are asked for with package lists
of our own, so that what apt knows of the machine stays as it is.
"""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: What a machine needs to reach this one's files, and what the tests mount. What these need comes along.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


class Absent(Exception):
    """The archive has no such kernel, or there is no archive."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A kernel that can be booted. `modules` by name, in the order in which they are to be loaded."""

    release: str
    image: Path
    modules: tuple[Path, ...]


def unpacked(series: str, suite: str, cache: Path) -> Unpacked:
    """The newest kernel of a series, from the cache where it has one. Raises Absent."""
    folder = cache / series
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        # Not in /tmp: unpacked modules are hundreds of megabytes, and what is kept is renamed into place.
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _fetch(series, suite, Path(scratch))
            (Path(scratch) / "kept").rename(folder)
    (release,) = folder.glob("vmlinuz-*")
    return Unpacked(
        release.name.removeprefix("vmlinuz-"), release, tuple(sorted((folder / "modules").iterdir()))
    )


def _fetch(series: str, suite: str, scratch: Path) -> None:
    apt = _Apt(scratch, suite)
    package = apt.newest(rf"linux-image-{re.escape(series)}\.[0-9a-z.+-]+-amd64")
    print(f"test-kernels: fetching {package}", flush=True)
    tree = scratch / "tree"
    subprocess.run(["dpkg-deb", "-x", str(apt.download(package)), str(tree)], check=True)
    kept = scratch / "kept"
    (kept / "modules").mkdir(parents=True)
    (image,) = tree.glob("boot/vmlinuz-*")
    shutil.copy(image, kept)
    for number, (name, code) in enumerate(_with_dependencies(tree).items()):
        (kept / "modules" / f"{number:02}-{name}.ko").write_bytes(code)


def _with_dependencies(tree: Path) -> dict[str, bytes]:
    """MODULES and what they need, decompressed, each after what it needs. What is built in is not there."""
    files = {path.name.partition(".")[0].replace("-", "_"): path for path in tree.rglob("*.ko*")}
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or name in found:
            return
        code = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        depends = _DEPENDS.search(code)
        for other in depends[1].decode().split(",") if depends else ():
            add(other)
        found[name] = code

    for name in MODULES:
        add(name)
    return found


class _Apt:
    """apt with one suite of Debian's archive and with folders of its own."""

    def __init__(self, folder: Path, suite: str) -> None:
        self._folder = folder
        self._suite = suite
        for name in ("lists/partial", "archives/partial", "downloaded"):
            (folder / name).mkdir(parents=True)
        sources = folder / "sources.list"
        sources.write_text(f"deb {self._archive()} {suite} main\n")
        self._options = [
            f"-oDir::Etc::SourceList={sources}",
            "-oDir::Etc::SourceParts=-",
            f"-oDir::State::Lists={folder / 'lists'}",
            f"-oDir::Cache={folder}",
            # The user that apt downloads as cannot write here.
            "-oAPT::Sandbox::User=root",
        ]
        updated = self._run("apt-get", "update", "--error-on=any", check=False)
        if updated.returncode:
            reason = next(
                (line for line in updated.stderr.splitlines() if line.startswith("E:")), "no reason"
            )
            raise Absent(f"{suite} cannot be had ({reason.removeprefix('E:').strip()})")

    @staticmethod
    def _archive() -> str:
        """The address of Debian's main archive, or of its mirror, that this machine uses."""
        targets = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)"]
        listed = subprocess.run(targets, check=True, capture_output=True, text=True).stdout
        found = re.search(r"^Debian [a-z]+ (\S+)$", listed, re.MULTILINE)
        if not found:
            raise Absent("this machine's package sources do not name Debian's archive")
        return found[1]

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [program, *self._options, *arguments]
        return subprocess.run(
            command, check=check, capture_output=True, text=True, cwd=self._folder / "downloaded"
        )

    def newest(self, pattern: str) -> str:
        names = re.findall(
            rf"^{pattern}$", self._run("apt-cache", "pkgnames", "linux-image-").stdout, re.MULTILINE
        )
        # Not the small kernels for clouds, which cannot read this machine's files, nor the real-time ones.
        plain = [name for name in names if not re.search("-(cloud|rt)-", name)]
        if not plain:
            raise Absent(f"{self._suite} has no {pattern}")
        return str(max(plain, key=lambda name: [int(number) for number in re.findall(r"\d+", name)]))

    def download(self, package: str) -> Path:
        self._run("apt-get", "download", package)
        (archive,) = (self._folder / "downloaded").glob("*.deb")
        return archive
