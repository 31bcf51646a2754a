"""The kernel's type information rewritten for an older libbpf."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from mmsensor.capture.kernel import btf
from mmsensor.capture.kernel.libbpf import BpfObject

pytestmark = pytest.mark.capture

#: What libbpf 0.5 knows ends with BTF_KIND_FLOAT.
NEWEST_OLD_KIND = 16


def kinds(raw: bytes) -> Iterator[tuple[int, int]]:
    """(kind, offset) of each type; an independent walk, by the kernel's documentation of the format."""
    _magic, _version, _flags, header, at, size = struct.unpack_from("<HBBIII", raw)
    at += header
    end = at + size
    while at < end:
        info = struct.unpack_from("<I", raw, at + 4)[0]
        kind, members = info >> 24 & 31, info & 0xFFFF
        yield kind, at
        per_member = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}.get(kind, 0) * members
        at += 12 + {1: 4, 3: 12, 14: 4, 17: 4}.get(kind, 0) + per_member
    assert at == end


def test_only_old_kinds_are_left_and_nothing_moves() -> None:
    before = btf.KERNEL_BTF.read_bytes()
    after = btf.in_old_words(before)
    assert len(after) == len(before)
    old, new = list(kinds(before)), list(kinds(after))
    assert [at for _, at in old] == [at for _, at in new]
    assert max(kind for kind, _ in new) <= NEWEST_OLD_KIND
    assert all(was == now for (was, _), (now, _) in zip(old, new, strict=True) if was <= NEWEST_OLD_KIND)


def test_what_is_no_btf_is_refused() -> None:
    with pytest.raises(ValueError, match="not BTF"):
        btf.in_old_words(bytes(100))


def test_the_probes_load_against_it() -> None:
    path = Path(str(resources.files("mmsensor._bpf"))) / "tls.bpf.o"
    loaded = BpfObject(path, map_entries={}, old_words=True)
    try:
        assert loaded.program_fd("call_enter") >= 0
    finally:
        loaded.close()
