"""What crosses between bpf/discover.h and its mirror in Python, held against the header by a C compiler."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest

from mmsensor.capture.discovery import files, holding

HEADER = Path(__file__).parents[4] / "bpf" / "discover.h"

#: Fields in their order; a struct inside takes as many of the format's as it has of its own.
STRUCTS: dict[str, tuple[struct.Struct, list[str]]] = {
    "mm_file_key": (files.FILE_KEY, ["inode", "changed_ns", "device", "generation"]),
    "mm_hold_settings": (
        holding.HOLD_SETTINGS,
        ["min_bytes", "per_second", "sensor_pid", "uid", "everybody"],
    ),
    "mm_hold": (
        holding.HOLD,
        ["file.inode", "file.changed_ns", "file.device", "file.generation", "since_ns", "started_ns"],
    ),
    "mm_new_file": (
        files.NEW_FILE,
        [
            *("file.inode", "file.changed_ns", "file.device", "file.generation"),
            *("start", "end", "size", "pid", "path_size"),
        ],
    ),
}


def code() -> str:
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("name", STRUCTS)
def test_layout(name: str, tmp_path: Path) -> None:
    form, fields = STRUCTS[name]
    types = [
        letter for count, letter in re.findall(r"(\d*)([QI])", form.format) for _ in range(int(count or 1))
    ]
    at = 0
    checks = []
    for field, kind in zip(fields, types, strict=True):
        size = struct.calcsize(f"={kind}")
        checks.append(f"_Static_assert(__builtin_offsetof(struct {name}, {field}) == {at}, {field!r});")
        checks.append(f"_Static_assert(sizeof(((struct {name} *)0)->{field}) == {size}, {field!r});")
        at += size
    rest = "MM_PATH_MAX" if name == "mm_new_file" else "0"
    checks.append(f'_Static_assert(sizeof(struct {name}) == {at} + {rest}, "padding");')
    source = tmp_path / "layout.c"
    source.write_text(f'#include "{HEADER}"\n' + "\n".join(checks).replace("'", '"'))
    subprocess.run(["clang", "-fsyntax-only", str(source)], check=True)


def test_every_struct_is_mirrored() -> None:
    assert set(re.findall(r"struct (\w+) \{", code())) == set(STRUCTS)


def test_counters() -> None:
    (body,) = re.findall(r"enum mm_discover_counter \{(.*?)\};", code(), flags=re.DOTALL)
    names = re.findall(r"MM_(\w+)", body)
    assert names == [*(counter.name for counter in files.Counter), "DISCOVER_COUNTERS"]
    assert [int(counter) for counter in files.Counter] == list(range(len(files.Counter)))


def test_states() -> None:
    states = dict(re.findall(r"MM_(PENDING|EXAMINED) = (\d)", code()))
    assert states == {"PENDING": str(int(files.Examined.PENDING)), "EXAMINED": str(int(files.Examined.DONE))}
