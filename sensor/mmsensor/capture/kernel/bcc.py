"""BCC, the second loader, for kernels without BTF: it compiles the probes on the machine they run on.

It costs seconds and a hundred megabytes and more, so all of it happens in another process, which hands over
the descriptors of what it has loaded and is gone. That process is the distribution's own Python, because BCC
comes with the distribution (`python3-bpfcc`; what PyPI calls bcc is something else) and fits no other.

Where the fields of the kernel's structs are is learnt from the kernel's BTF, where it has one, else from the
headers of exactly this kernel. Any other headers would give wrong places, and wrong places wrong numbers.
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmsensor.capture.errors import CaptureUnavailable
from mmsensor.capture.kernel import btf, dialect
from mmsensor.capture.kernel.dialect import Field

_PYTHON = Path("/usr/bin/python3")
_PACKAGE = Path("/usr/lib/python3/dist-packages/bcc")
_CHILD = Path(__file__).with_name("bcc_child.py")
_ROOT = Path("/")

#: enum bpf_prog_type by the kind of place that a program hangs on.
_TYPES = {"uprobe": 2, "uretprobe": 2, "raw_tracepoint": 17}
#: What defines the structs that the probes look into.
_INCLUDES = ("linux/sched/signal.h", "net/sock.h")
#: Sections are libbpf's; BCC's hash functions are not so particular about const.
_FLAGS = ("-DSEC(section)=", "-Wno-incompatible-pointer-types-discards-qualifiers")

#: The child may be compiling on a slow machine that does much else.
_PATIENCE_S = 300.0
_PACKET_BYTES = 1 << 20
_MOST_DESCRIPTORS = 64


def is_installed() -> bool:
    return _PYTHON.exists() and _PACKAGE.is_dir()


@dataclass(frozen=True, slots=True)
class Headers:
    """Kernel headers. Some distributions keep what was generated (`build`) apart from the rest (`source`)."""

    release: str
    source: Path
    build: Path

    def flags(self) -> list[str]:
        if self.source == self.build:
            return []
        arch = {"x86_64": "x86", "aarch64": "arm64"}[platform.machine()]
        generated = f"arch/{arch}/include/generated"
        folders = ("include", generated, f"{generated}/uapi", "include/generated/uapi")
        return [f"-I{self.build / folder}" for folder in folders]


def headers(release: str, root: Path = _ROOT) -> Headers:
    """The headers of this kernel, or, where there are none, the newest of any other.

    BCC's own variable BCC_KERNEL_SOURCE names a folder that is taken instead. Raises CaptureUnavailable.
    """
    named = os.environ.get("BCC_KERNEL_SOURCE")
    for source, build in [(Path(named), Path(named))] if named else _candidates(release, root):
        try:
            generated = (build / "include/generated/utsrelease.h").read_text()
        except OSError:
            continue
        if found := re.search(r'UTS_RELEASE "([^"]+)"', generated):
            return Headers(found[1], source if source.is_dir() else build, build)
    raise CaptureUnavailable(
        "BCC finds no kernel headers", f"install linux-headers-{release}, or set BCC_KERNEL_SOURCE"
    )


def _candidates(release: str, root: Path) -> Iterator[tuple[Path, Path]]:
    """(source, build) of everything that may be headers, best first. The systemd unit has no /lib/modules
    (ProtectKernelModules=), so that packages are looked for by their own folders too."""
    modules, packages = root / "lib/modules", root / "usr/src"
    of_this = [(modules / release, packages / f"linux-headers-{release}")]
    others = sorted({*modules.glob("*"), *packages.glob("linux-headers-*")}, key=_newest, reverse=True)
    for module, package in [*of_this, *((folder, folder) for folder in others)]:
        yield module / "source", module / "build"
        yield package.with_name(re.sub("(-cloud)?-[^-]+$", "-common", package.name)), package


def _newest(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", folder.name)]


class _Child:
    """The process that has BCC in it, by requests and answers of one packet each."""

    def __init__(self, connection: socket.socket, output: IO[bytes]) -> None:
        self._connection = connection
        self._output = output

    def ask(self, **request: Any) -> tuple[dict[str, Any], list[int]]:
        """The answer and its descriptors, which are ours then. Raises OSError as the kernel gave it to BCC,
        CaptureUnavailable for what else went wrong there."""
        try:
            self._connection.sendall(json.dumps(request).encode())
            packet, descriptors, _flags, _address = socket.recv_fds(
                self._connection, _PACKET_BYTES, _MOST_DESCRIPTORS
            )
        except TimeoutError:
            raise self._failure(f"has not answered in {_PATIENCE_S:.0f} s") from None
        except OSError as error:
            raise self._failure(f"has gone ({error.strerror})") from error
        if not packet:
            raise self._failure("has gone")
        answer: dict[str, Any] = json.loads(packet)
        if number := answer.get("errno"):
            raise OSError(number, f"{os.strerror(number)} ({answer['failure']})")
        if "failure" in answer:
            raise self._failure(answer["failure"])
        return answer, descriptors

    def _failure(self, what: str) -> CaptureUnavailable:
        """What the child said last of all it complained of, or what we know of it."""
        self._output.seek(0)
        said = self._output.read().decode(errors="replace").splitlines()
        line = next((line for line in said if "error:" in line), what).strip()
        return CaptureUnavailable(
            f"BCC does not compile the probes ({line})",
            "check that python3-bpfcc and the kernel's headers are whole, or leave the loader to the sensor",
        )


@contextmanager
def _child(source: Path) -> Iterator[_Child]:
    """A child that compiles with the headers in `source`; it ends with the block."""
    if not is_installed():
        raise CaptureUnavailable("BCC is not installed", "install python3-bpfcc, and the kernel's headers")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, tempfile.TemporaryFile() as output:
        with theirs:
            process = subprocess.Popen(
                [str(_PYTHON), "-I", str(_CHILD)],
                stdin=theirs.fileno(),
                stdout=output,
                stderr=output,
                env={**os.environ, "BCC_KERNEL_SOURCE": str(source)},
            )
        ours.settimeout(_PATIENCE_S)
        try:
            yield _Child(ours, output)
        finally:
            process.kill()
            process.wait()


def _places(child: _Child, found: Headers, wanted: Sequence[Field], release: str) -> dict[Field, int]:
    """Where the fields are in the running kernel. Raises CaptureUnavailable where nobody knows."""
    if btf.KERNEL_BTF.exists():
        known = btf.offsets(btf.KERNEL_BTF.read_bytes(), wanted)
        places = {field: known[field] for field in wanted if field in known}
    elif found.release != release:
        raise CaptureUnavailable(
            f"the kernel has no BTF, and the headers found are those of {found.release}",
            f"install linux-headers-{release}",
        )
    else:
        questions = [f"#include <{name}>" for name in _INCLUDES]
        questions += [
            f"int at_{number}(void *ctx) {{ return offsetof(struct {field.struct}, {field.name}); }}"
            for number, field in enumerate(wanted)
        ]
        answer, _ = child.ask(constants="\n".join(questions), flags=[*_FLAGS, *found.flags()])
        places = {field: answer["constants"][f"at_{number}"] for number, field in enumerate(wanted)}
    if missing := [field for field in wanted if field not in places]:
        field = missing[0]
        raise CaptureUnavailable(
            f"this kernel has no {field.struct}.{field.name}",
            "use Linux 5.15 or newer, as Debian and Ubuntu build theirs",
        )
    return places


class BccObject:
    """The probes' text, compiled and loaded into the kernel until `close`. What `libbpf.BpfObject` is."""

    def __init__(
        self,
        path: Path,
        *,
        map_entries: Mapping[str, int],
        preallocated: Collection[str] = (),
        attach_type: Mapping[str, int] | None = None,
        left_out: Collection[str] = (),
    ) -> None:
        """The same as there; `path` is the preprocessed text. Raises OSError as the kernel gave it,
        CaptureUnavailable without BCC or headers."""
        text = path.read_text()
        release = os.uname().release
        found = headers(release)
        kinds = {name: _TYPES[kind] for name, kind in dialect.programs(text).items() if name not in left_out}
        maps = dialect.maps(text)
        with _child(found.source) as child:
            places = _places(child, found, dialect.fields(text), release)
            _, descriptors = child.ask(
                text=dialect.translated(text, places, map_entries, preallocated),
                flags=[*_FLAGS, *found.flags()],
                programs=[(name, kind, (attach_type or {}).get(name, -1)) for name, kind in kinds.items()],
                maps=maps,
            )
        names = [*kinds, *maps]
        self._descriptors = dict(zip(names, descriptors, strict=True))

    def map_fd(self, name: str) -> int:
        return self._descriptors[name]

    def program_fd(self, name: str) -> int:
        return self._descriptors[name]

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
