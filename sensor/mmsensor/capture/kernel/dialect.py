"""The probes in BCC's words: what libbpf does with an object, done to their preprocessed text.

bpf/compat.h leaves marks in it where the two differ: maps are declared as libbpf wants them, the kernel's
structs as if their fields stood where we wrote them, and what a program hangs on is said by its section. All
else both understand.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

# The preprocessor puts each declaration on a line, indented by one blank for each block.
_MAP = re.compile(r'^struct \{\n((?: __(?:uint|type)\(.*\);\n)+)\} (\w+) SEC\("\.maps"\);$', re.MULTILINE)
_SETTING = re.compile(r"^ __(?:uint|type)\((\w+), (.*)\);$", re.MULTILINE)
_STRUCT = re.compile(r"^struct (\w+) \{\n((?: .*\n)+)\} MM_CORE;$", re.MULTILINE)
_FIELD = re.compile(r"^ (?! )(?:.*\{\n(?:  .*\n)+ \} |[^{\n]*?)(\w+);$", re.MULTILINE)
_PROGRAM = re.compile(r'^SEC\("(\w+)/\w+"\)\s+int (\w+)\(', re.MULTILINE)

_RING = "RINGBUF"
#: BCC's own types of the same name are other ones, with the fields at their places in the headers.
_OURS = "___mm"


class Field(NamedTuple):
    """A field of a struct of the kernel."""

    struct: str
    name: str


def fields(text: str) -> list[Field]:
    """What must be placed before the text can be compiled."""
    return [Field(struct[1], field[1]) for struct in _STRUCT.finditer(text) for field in _fields_of(struct)]


def programs(text: str) -> dict[str, str]:
    """Each program and the kind of place it hangs on, the first part of libbpf's section names."""
    return {program[2]: program[1] for program in _PROGRAM.finditer(text)}


def maps(text: str) -> list[str]:
    """Names of the maps, in the order in which BCC numbers them: -1, -2 and so on."""
    return [found[2] for found in _MAP.finditer(text)]


def translated(
    text: str,
    offsets: Mapping[Field, int],
    entries: Mapping[str, int],
    preallocated: Collection[str],
) -> str:
    """The text for BCC's compiler. `offsets` places every field, `entries` resizes maps (bytes of a ring),
    `preallocated` names those that do not grow with what is in them."""
    structs = [found[1] for found in _STRUCT.finditer(text)]
    for number, name in enumerate(maps(text), 1):
        text = text.replace(f"MM_NUMBER_OF({name})", str(-number))
    text = _MAP.sub(lambda found: _bcc_map(found, entries, preallocated), text)
    text = _STRUCT.sub(lambda found: _placed(found, offsets), text)
    return re.sub(rf"\bstruct ({'|'.join(structs)})\b", rf"struct \1{_OURS}", text)


def _fields_of(struct: re.Match[str]) -> Iterator[re.Match[str]]:
    return _FIELD.finditer(struct[2])


def _bcc_map(found: re.Match[str], entries: Mapping[str, int], preallocated: Collection[str]) -> str:
    settings = dict(_SETTING.findall(found[1]))
    name, kind = found[2], settings["type"].removeprefix("BPF_MAP_TYPE_")
    size = entries.get(name, settings["max_entries"])
    if kind == _RING:
        return f"BPF_RINGBUF_OUTPUT({name}, ({size}) / PAGE_SIZE);"
    flags = 0 if name in preallocated else settings.get("map_flags", 0)
    return f'BPF_F_TABLE("{kind.lower()}", {settings["key"]}, {settings["value"]}, {name}, {size}, {flags});'


def _placed(struct: re.Match[str], offsets: Mapping[Field, int]) -> str:
    """The same struct as a union of its fields, each behind as many bytes as the kernel has before it."""
    places = [
        f"struct {{ char at_{field[1]}[{offsets[Field(struct[1], field[1])]}];{field[0]} }}"
        " __attribute__((packed));"
        for field in _fields_of(struct)
    ]
    return f"struct {struct[1]} {{ union {{ {' '.join(places)} }}; }};"
