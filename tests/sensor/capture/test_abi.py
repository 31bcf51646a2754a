"""The record format: Python's idea of it against the types in the built object."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from pathlib import Path

import pytest

from mmsensor.capture.kernel import abi
from mmsensor.capture.kernel.probes import UPROBE_PROGRAMS

ROOT = Path(__file__).parents[3]
HEADER = ROOT / "bpf" / "abi.h"

FORMATS = {
    "mm_record": abi.RECORD,
    "mm_settings": abi.SETTINGS,
    "mm_connection_key": abi.CONNECTION_KEY,
    "mm_connection": abi.CONNECTION,
    "mm_verdict_key": abi.VERDICT_KEY,
    "mm_process": abi.PROCESS,
    "mm_peer": abi.PEER,
}
CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}

PROBE = """
#include <stddef.h>
#include <stdio.h>
#include "abi.h"
#define SIZE(type, name) sizeof(((struct type *)0)->name)
#define FIELD(type, name) \\
    printf("[\\"%s\\", %zu, %zu],", #name, offsetof(struct type, name), SIZE(type, name))
int main(void)
{
%s
return 0;
}
"""


def structs() -> dict[str, list[str]]:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    return {
        name: re.findall(r"(\w+)(?:\[\d+\])?;", body)
        for name, body in re.findall(r"struct (\w+) \{(.*?)\};", text, flags=re.DOTALL)
    }


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, int, int]]]:
    """(field, offset, size) of every struct, as a C compiler lays them out."""
    lines = []
    for name, fields in structs().items():
        lines.append(f'printf("{{\\"%s\\":[", "{name}");')
        lines += [f"FIELD({name}, {field});" for field in fields]
        lines.append(f'printf("[\\"\\", %zu, 0]]}}\\n", sizeof(struct {name}));')
    folder = tmp_path_factory.mktemp("abi")
    source, program = folder / "layout.c", folder / "layout"
    source.write_text(PROBE.replace("\n%s\n", "\n" + "\n".join(lines) + "\n"))
    subprocess.run(["clang", f"-I{HEADER.parent}", str(source), "-o", str(program)], check=True)
    output = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return {
        name: [(field, offset, size) for field, offset, size in fields]
        for line in output.splitlines()
        for name, fields in json.loads(line).items()
    }


@pytest.mark.parametrize("name", FORMATS)
def test_layout(name: str, layouts: dict[str, list[tuple[str, int, int]]]) -> None:
    fields = layouts[name]
    assert fields[-1][1] == FORMATS[name].size, "size of the whole"
    rebuilt = "="
    at = 0
    for field, offset, size in fields[:-1]:
        assert offset == at, "implicit padding"
        rebuilt += CODES.get(size, f"{size}x" if field == "reserved" else f"{size}s")
        at += size
    # Trailing reserved fields are spelled as what they are in either notation.
    assert struct.calcsize(rebuilt) == FORMATS[name].size
    raw = bytes(range(1, at + 1))
    assert FORMATS[name].unpack(raw) == struct.unpack(rebuilt, raw)


def test_every_struct_is_mirrored(layouts: dict[str, list[tuple[str, int, int]]]) -> None:
    assert set(layouts) == set(FORMATS)


@pytest.mark.parametrize(
    ("enum", "prefix", "mirror"),
    [
        ("mm_kind", "MM_", abi.Kind),
        ("mm_flag", "MM_", abi.Flag),
        ("mm_state", "MM_", abi.State),
        ("mm_form", "MM_FORM_", abi.Form),
    ],
)
def test_constants(enum: str, prefix: str, mirror: type) -> None:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    (body,) = re.findall(rf"enum {enum} \{{(.*?)\}};", text, flags=re.DOTALL)
    values = {name.removeprefix(prefix): int(value) for name, value in re.findall(r"(MM_\w+) = (\d+)", body)}
    assert values == {member.name: member.value for member in mirror}  # type: ignore[attr-defined]


def test_counters() -> None:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    (body,) = re.findall(r"enum mm_counter \{(.*?)\};", text, flags=re.DOTALL)
    names = [re.sub("^MM_(COUNT|LOST)_", "", name) for name in re.findall(r"MM_\w+", body)]
    assert names == [*(counter.name for counter in abi.Counter), "MM_COUNTERS"]
    assert [int(counter) for counter in abi.Counter] == list(range(len(abi.Counter)))


def test_every_program_is_in_the_source() -> None:
    source = "".join((ROOT / "bpf" / name).read_text() for name in ("tls.bpf.c", "go.h"))
    assert set(re.findall(r'SEC\("u(?:ret)?probe/(\w+)"\)', source)) == set(UPROBE_PROGRAMS)


def test_a_cookie_is_what_the_header_says() -> None:
    header = HEADER.read_text()
    shift = {name: int(bits) for name, bits in re.findall(r"#define MM_HOOK_(\w+?)(?:_SHIFT)? (\d+)", header)}
    cookie = abi.cookie(abi.Form.GO, reads=True, stack_shift=0x18, success=7000, target=4095)
    assert cookie & 1 == 1
    assert cookie >> shift["FORM"] & 7 == abi.Form.GO
    assert cookie >> shift["STACK"] & 0xFFFF == 0x18
    assert cookie >> shift["SUCCESS"] & 0xFFFF == 7000
    assert cookie >> shift["TARGET"] == 4095
    assert f"#define MM_TARGETS {abi.TARGETS}" in header
    with pytest.raises(ValueError, match="no room"):
        abi.cookie(abi.Form.COUNT, reads=False, stack_shift=1 << 16)


def test_a_record_is_read_as_it_was_written() -> None:
    raw = (
        abi.RECORD.pack(10, 20, 30, 40, 50, 60, 70, 80, 90, 3, int(abi.Kind.DATA), 1, 2) + b"abc" + bytes(253)
    )
    record = abi.decode(raw, boot_to_unix_ns=1000)
    assert record == abi.Record(abi.Kind.DATA, 90, 20, 30, 40, 1010, 1, 50, 60, 70, 80, 2, b"abc")
