"""Request bodies of `multipart/form-data` (RFC 7578), sans-IO: short texts, and what files there were.

Uploads of audio and images name their model and options in such fields. A part with a file name is a file:
only its name, type and size are kept, so an upload costs no memory however large it is. The same goes for a
text that is longer than `MAX_VALUE`, or comes when all texts together have reached `MAX_TEXT`.

Bound: `MAX_HEAD` bytes of a part's header, `MAX_TEXT` and `MAX_VALUE` of texts, and `MAX_PARTS` parts with
names of `MAX_NAME`. What goes beyond `MAX_HEAD` or `MAX_PARTS` is not read: a `problem`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import unquote

MAX_HEAD: Final = 16 * 1024
MAX_VALUE: Final = 64 * 1024
MAX_TEXT: Final = 256 * 1024
MAX_PARTS: Final = 250
MAX_NAME: Final = 256
_MAX_BOUNDARY: Final = 256  # RFC 2046 allows 70

NO_BOUNDARY: Final = "multipart_without_boundary"
MALFORMED: Final = "malformed_multipart"
TOO_MANY: Final = "multipart_too_many_parts"
LOST: Final = "gap_in_multipart"
CUT_SHORT: Final = "multipart_cut_short"

# As browsers write them: a quote is %22 or, of old, escaped; a backslash is itself.
_PARAMETER: Final = re.compile(r';\s*([\w*]+)\s*=\s*(".{0,1024}?"(?=\s*(?:;|\Z))|[^;]*)', re.DOTALL)
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_HEADER: Final = re.compile(
    r"^(content-disposition|content-type)[ \t]*:[ \t]*(.*)$", re.MULTILINE | re.IGNORECASE
)
_FOLD: Final = re.compile(r"\r?\n[ \t]+")
_BOOLEANS: Final = {"true": True, "false": False}
_INDEXED: Final = re.compile(r"([^\[\]]+)\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file, or a text too long to be kept; `size` in bytes."""

    name: str
    filename: str
    content_type: str
    size: int


@dataclass(slots=True)
class Form:
    """What a body held. Of repeated fields the last one counts."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[FilePart] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The form as the JSON document that it stands for.

        true and false are read as such, numbers stay texts, `a[b]` is the key b of an object a, and `a[]` is
        a. A file is an object of its name, type and size.
        """
        document: dict[str, Any] = {}
        for name, text in self.fields.items():
            _put(document, name, _BOOLEANS.get(text, text))
        for part in self.files:
            described = {"filename": part.filename, "content_type": part.content_type, "size": part.size}
            _put(document, part.name, described)
        return document


class _State(Enum):
    PREAMBLE = auto()
    DELIMITER = auto()  # behind one, where its line goes on
    HEAD = auto()
    BODY = auto()
    DONE = auto()


class FormReader:
    """One body, however its bytes are split.

    `problem` is "" or the reason why nothing more is read: NO_BOUNDARY, MALFORMED, TOO_MANY, LOST or, after
    `finish`, CUT_SHORT. What was read until then stands.
    """

    def __init__(self, content_type: str) -> None:
        boundary = _parameters(content_type).get("boundary", "")
        self.form = Form()
        self.problem = "" if 0 < len(boundary) <= _MAX_BOUNDARY else NO_BOUNDARY
        self.is_empty = True
        self._delimiter = b"\n--" + boundary.encode("latin-1", "replace")
        self._state = _State.PREAMBLE
        self._held = b"\n"  # the first delimiter need not stand behind a line end
        self._text = 0  # characters kept so far
        self._part = FilePart("", "", "", 0)
        self._size = 0  # of the part's content so far
        self._value: bytearray | None = None  # of the part, None where it is not kept

    def feed(self, data: bytes) -> None:
        """Reads on."""
        self.is_empty = self.is_empty and not data
        data, self._held = self._held + data, b""
        position = 0
        while position < len(data) and not self.problem and self._state is not _State.DONE:
            if self._state is _State.DELIMITER:
                reached = self._read_delimiter(data, position)
            elif self._state is _State.HEAD:
                reached = self._read_head(data, position)
            else:
                reached = self._read_content(data, position)
            if reached < 0:  # more bytes are needed from there on
                self._held = data[~reached:]
                return
            position = reached

    def lose(self) -> None:
        """Bytes are missing: what follows them may be a part of a file."""
        if self._state is not _State.DONE:
            self.problem = self.problem or LOST

    def finish(self) -> Form:
        """The form, as far as it was read."""
        if self._state is not _State.DONE:
            self.problem = self.problem or CUT_SHORT
        return self.form

    # Each step returns the position it consumed up to, or the complement of it where it needs more bytes.

    def _read_delimiter(self, data: bytes, position: int) -> int:
        """The rest of a delimiter's line: two hyphens after the last part, and nothing after the others."""
        if data.startswith(b"--", position):
            self._state = _State.DONE
            return len(data)
        line_end = data.find(b"\n", position, position + MAX_HEAD)
        if line_end < 0:
            return self._too_long(data, position)
        if data[position:line_end].strip():
            self.problem = MALFORMED
        self._state = _State.HEAD
        return line_end

    def _read_head(self, data: bytes, position: int) -> int:
        match = _HEAD_END.search(data, position, position + MAX_HEAD)
        if match is None:
            return self._too_long(data, position)
        self._begin_part(data[position : match.start()].decode("utf-8", "replace"))
        self._state = _State.BODY
        return match.end()

    def _read_content(self, data: bytes, position: int) -> int:
        """Preamble or content, up to a delimiter."""
        found = data.find(self._delimiter, position)
        end = found if found >= 0 else max(position, len(data) - len(self._delimiter))
        # The carriage return before a delimiter is a part of it.
        end -= end > position and data[end - 1] == 0x0D
        if self._state is _State.BODY:
            self._add(data[position:end])
        if found < 0:
            return ~end
        if self._state is _State.BODY:
            self._end_part()
        self._state = _State.DELIMITER
        return found + len(self._delimiter)

    def _begin_part(self, head: str) -> None:
        headers = {name.lower(): value for name, value in _HEADER.findall(_FOLD.sub(" ", head))}
        parameters = _parameters(headers.get("content-disposition", ""))
        filename = parameters.get("filename*") or parameters.get("filename")
        content_type = headers.get("content-type", "").strip()[:MAX_NAME]
        name = parameters.get("name", "")[:MAX_NAME]
        self._part = FilePart(name, (filename or "")[:MAX_NAME], content_type, 0)
        self._size = 0
        self._value = bytearray() if filename is None else None
        if len(self.form.fields) + len(self.form.files) >= MAX_PARTS:
            self.problem = TOO_MANY

    def _add(self, content: bytes) -> None:
        self._size += len(content)
        if self._value is not None:
            self._value += content
            if len(self._value) > MAX_VALUE or self._text + len(self._value) > MAX_TEXT:
                self._value = None

    def _end_part(self) -> None:
        if self._value is None:
            self.form.files.append(replace(self._part, size=self._size))
        else:
            self._text += len(self._value)
            self.form.fields[self._part.name] = self._value.decode("utf-8", "replace")

    def _too_long(self, data: bytes, position: int) -> int:
        if len(data) - position >= MAX_HEAD:
            self.problem = MALFORMED
        return ~position


def _parameters(header: str) -> dict[str, str]:
    """The parameters of a header's value; of the extended ones (RFC 5987) the text."""
    found: dict[str, str] = {}
    for name, written in _PARAMETER.findall(header):
        value = written.strip()
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1].replace('\\"', '"')
        elif name.endswith("*"):
            value = unquote(value.split("'", 2)[-1])
        found.setdefault(name.lower(), value)
    return found


def _put(document: dict[str, Any], name: str, value: Any) -> None:
    indexed = _INDEXED.fullmatch(name)
    if indexed is None:
        document[name] = value
        return
    name, key = indexed.groups()
    if not key:
        document[name] = value
        return
    inner = document.setdefault(name, {})
    if isinstance(inner, dict):
        inner[key] = value
