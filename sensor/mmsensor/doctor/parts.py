"""The parts that come with us or with the distribution: libbpf and the compiled probes."""

from __future__ import annotations

import struct
from importlib import resources
from pathlib import Path

from mmsensor.capture.errors import CaptureUnavailable
from mmsensor.capture.kernel import bcc, libbpf
from mmsensor.doctor.findings import Finding, fail, ok, warn
from mmsensor.doctor.surroundings import Surroundings
from mmsensor.render import size

#: The beginning of an ELF header: magic and class, data; then type and machine.
_ELF = struct.Struct("<4sBB10xHH")
_MACHINE_BPF = 247
#: The probes, and the watch for files.
_OBJECTS = ("tls.bpf.o", "discover.bpf.o")
_BUILD = "build it anew with `make setup` or bpf/build.sh, or install the package again"
#: Where Debian and Ubuntu put it, whatever environment we run in.


def check_libbpf(_place: Surroundings) -> Finding:
    try:
        return ok(f"libbpf {libbpf.version()}")
    except CaptureUnavailable as error:
        return fail(error.reason, error.hint)


def check_bcc(place: Surroundings) -> Finding:
    """The second loader, for kernels without type information."""
    there = bcc.is_installed()
    fact = f"python3-bpfcc is {'there' if there else 'not installed'}"
    if (place.sys / "kernel" / "btf" / "vmlinux").is_file():
        return ok(f"not needed where there is type information ({fact})")
    return ok(fact) if there else warn(f"{fact}, and there is no type information", "install python3-bpfcc")


def check_probes(_place: Surroundings) -> Finding:
    """Whether the objects are there, and are some. Whether they fit the kernel shows when they are loaded."""
    folder = Path(str(resources.files("mmsensor._bpf")))
    total = 0
    for name in _OBJECTS:
        path = folder / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return fail(f"{name} is not built: it is not in {folder}", _BUILD)
        except OSError as error:
            return fail(f"{path} cannot be read: {error.strerror}", "make it readable for the sensor's user")
        if len(data) < _ELF.size:
            return fail(f"{path} is cut short", _BUILD)
        magic, bits, order, _kind, machine = _ELF.unpack_from(data)
        if (magic, bits, order, machine) != (b"\x7fELF", 2, 1, _MACHINE_BPF):
            return fail(f"{path} is no BPF object", _BUILD)
        total += len(data)
    return ok(f"{' and '.join(_OBJECTS)}, {size(total)}, in {folder}")
