"""A recorded exchange and what is known about it, read from one JSON document.

    {"id": ..., "request": {"method", "host", "path", "headers", "body": {"text" | "base64"}},
     "response": {"status", "headers", "body_b64"}, "expected": {...}}

Bodies stand there with their content-encoding undone. Realtime sessions bring their messages beside or
instead of bodies (`shapes`), aborted streams a body that stops in the middle and a word that says so. Records
come from several writers, so names are read by rule; what cannot be read raises `UnreadableRecord` with the
reason and never counts as anything else.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from mmproto.score import shapes
from mmproto.score.expected import Expected
from mmproto.score.shapes import Message

Headers = tuple[tuple[str, str], ...]

_ABORTED: Final = re.compile(
    r"abort|truncat|cut_?off|disconnect|incomplete_stream|interrupted", re.IGNORECASE
)
_CUT_AT: Final = re.compile(
    r"(abort|truncat|cut|disconnect)\w*_(at|after|bytes|offset)|cut_at|(bytes|offset)_(sent|received)",
    re.IGNORECASE,
)
_METHOD: Final = re.compile(r"/(\w+\.)+[A-Z]\w*/[A-Z]\w*")
_LINES: Final = (".jsonl", ".ndjson")
# What a target may hold as it stands; a recorder may have decoded the rest.
_TARGET_SAFE: Final = "/?&=%:+,;@!$'()*~[]-._|"


class UnreadableRecord(ValueError):
    """The document is no record of an exchange; the text says why."""


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded exchange. Header names are lower-case; bodies are plain."""

    name: str
    method: str
    host: str
    target: str
    request_headers: Headers
    request_body: bytes
    status: int
    response_headers: Headers
    response_body: bytes
    trailers: Headers
    messages: tuple[Message, ...]  # of a realtime session or of a gRPC call, in their order
    aborted: bool
    is_grpc: bool  # the bodies are gRPC messages
    expected: Expected

    def says(self, name: str) -> bool:
        """Whether `name` stands in the exchange itself: in its target, a header, a body or a message."""
        if name in unquote(self.target):
            return True
        if any(name in value for _, value in (*self.request_headers, *self.response_headers)):
            return True
        raw = name.encode()
        return any(
            raw in data
            for data in (self.request_body, self.response_body, *(message.data for message in self.messages))
        )

    @property
    def is_websocket(self) -> bool:
        """Whether the connection changed to WebSocket."""
        return not self.is_grpc and (self.status == 101 or bool(self.messages))


def read_folder(folder: Path) -> Iterator[tuple[str, Record | UnreadableRecord]]:
    """The records below `folder` in order of their paths, each with its name."""
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".json", *_LINES)):
        name = str(path.relative_to(folder).with_suffix(""))
        try:
            text = path.read_text(encoding="utf-8")
            lines = text.splitlines() if path.suffix in _LINES else [text]
            parsed = [json.loads(line) for line in lines if line.strip()]
        except OSError as error:
            yield name, UnreadableRecord(error.strerror or "cannot be read")
            continue
        except ValueError:  # UnicodeDecodeError and JSONDecodeError are
            yield name, UnreadableRecord("no JSON")
            continue
        except RecursionError:
            yield name, UnreadableRecord("JSON that is nested too deep")
            continue
        several = len(parsed) != 1 or isinstance(parsed[0], list)
        documents = parsed[0] if len(parsed) == 1 and isinstance(parsed[0], list) else parsed
        for index, document in enumerate(documents):
            label = f"{name}#{index}" if several else name
            try:
                yield label, read_record(document, label)
            except UnreadableRecord as error:
                yield label, error


def read_record(document: Any, name: str) -> Record:
    """The record in a parsed document; `name` is its name where it has none. Raises UnreadableRecord."""
    if not isinstance(document, Mapping):
        raise UnreadableRecord("no JSON object")
    asked, answered = _part(document, "request"), _part(document, "response", optional=True)
    expected = Expected.read(_part(document, "expected"))
    if expected is None:
        raise UnreadableRecord("expected names no provider")
    host, target = _address(asked)
    headers, answer_headers = _headers(asked.get("headers")), _headers(answered.get("headers"))
    trailers, status = _headers(answered.get("trailers")), answered.get("status", 0)
    if not isinstance(status, int) or isinstance(status, bool):
        raise UnreadableRecord("response.status is no number")
    grpc = _is_grpc(target, headers, answer_headers)
    if grpc and status < 100:  # a status of gRPC, which HTTP carries in its trailers
        trailers, status = (("grpc-status", str(status)), *trailers), 200
    try:
        request_body, response_body = _request_body(asked), _response_body(answered)
        messages = _messages(document, status, request_body, response_body, grpc=grpc)
    except (binascii.Error, ValueError) as error:
        if isinstance(error, UnreadableRecord):
            raise
        raise UnreadableRecord(f"a body that cannot be decoded: {error}") from None
    aborted = _is_aborted(document, answered)
    return Record(
        name=str(document.get("id") or name),
        method=str(asked.get("method") or ("GET" if messages else "POST")).upper(),
        host=host,
        target=target,
        request_headers=headers,
        request_body=request_body,
        status=status,
        response_headers=answer_headers,
        response_body=response_body[: _cut_at(document, answered)] if aborted else response_body,
        trailers=trailers,
        messages=messages,
        aborted=aborted or not (status or messages),
        is_grpc=grpc,
        expected=expected,
    )


def _messages(
    document: Mapping[str, Any], status: int, request_body: bytes, response_body: bytes, *, grpc: bool
) -> tuple[Message, ...]:
    """The messages of a session or a call; none of an exchange whose bodies say what was said."""
    if status not in (0, 101) and response_body and not grpc:
        return ()
    messages = shapes.messages_of(document)
    if status == 101 and not messages:
        messages = shapes.messages_of_bodies(request_body, response_body)
        if not messages:
            raise UnreadableRecord("realtime session whose messages are in no known shape")
    return messages


def _is_grpc(target: str, *headers: Headers) -> bool:
    """Whether the bodies are gRPC messages: by their type, else by the path of a service's method."""
    types = [value for listed in headers for name, value in listed if name == "content-type"]
    if types:
        return any(kind.startswith("application/grpc") for kind in types)
    return _METHOD.fullmatch(target) is not None


def _part(document: Mapping[str, Any], name: str, *, optional: bool = False) -> Mapping[str, Any]:
    part = document.get(name)
    if part is None and optional:
        return {}
    if not isinstance(part, Mapping):
        raise UnreadableRecord(f"no {name}")
    return part


def _address(asked: Mapping[str, Any]) -> tuple[str, str]:
    """Host and request target; either may stand in a whole URL."""
    target = asked.get("path") or asked.get("target") or asked.get("url") or asked.get("uri")
    if not isinstance(target, str) or not target:
        raise UnreadableRecord("request has no path")
    host = asked.get("host") or dict(_headers(asked.get("headers"))).get("host") or ""
    if "://" in target.partition("?")[0]:
        try:
            url = urlsplit(target)
        except ValueError:
            raise UnreadableRecord("request has a path that is no URL") from None
        host = host or url.netloc
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    if not isinstance(host, str) or not host:
        raise UnreadableRecord("request has no host")
    return host, quote(target if target.startswith("/") else f"/{target}", safe=_TARGET_SAFE)


def _headers(listed: Any) -> Headers:
    """Headers from an object or from a list of pairs; a value may be a list of values."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(listed, Mapping):
        pairs = list(listed.items())
    elif isinstance(listed, list):
        pairs = [(item[0], item[1]) for item in listed if isinstance(item, list) and len(item) == 2]
    headers: list[tuple[str, str]] = []
    for name, value in pairs:
        for one in value if isinstance(value, list) else [value]:
            headers.append((str(name).strip().lower(), " ".join(str(one).split())))
    return tuple(headers)


def _request_body(asked: Mapping[str, Any]) -> bytes:
    body = asked.get("body")
    if isinstance(body, Mapping):
        text, encoded = body.get("text"), body.get("base64")
        return text.encode() if isinstance(text, str) else shapes.decode(encoded)
    if isinstance(body, str):
        return body.encode()
    return shapes.decode(asked.get("body_b64"))


def _response_body(answered: Mapping[str, Any]) -> bytes:
    encoded = answered.get("body_b64")
    return shapes.decode(encoded) if isinstance(encoded, str) else _request_body(answered)


def _is_aborted(document: Mapping[str, Any], answered: Mapping[str, Any]) -> bool:
    """Whether the record says, in a flag, a quirk or the name of its set, that the stream was cut off."""
    expected = document["expected"]
    if answered.get("complete") is False or document.get("complete") is False:
        return True
    fidelity = document.get("fidelity")
    words: list[Any] = [*_list(expected.get("quirks")), *_list(document.get("quirks"))]
    words += [document.get("split"), document.get("set"), document.get("kind")]
    words += list(fidelity.values()) if isinstance(fidelity, Mapping) else []
    if any(isinstance(word, str) and _ABORTED.search(word) for word in words):
        return True
    flags = (
        item for part in (document, answered, expected, _map(expected.get("extra"))) for item in part.items()
    )
    return any(_ABORTED.search(name) and value not in (None, False, "") for name, value in flags)


def _cut_at(document: Mapping[str, Any], answered: Mapping[str, Any]) -> int | None:
    """How many bytes of the response body were sent, where the record tells."""
    for part in (document, answered, document["expected"], _map(document["expected"].get("extra"))):
        for name, value in part.items():
            if _CUT_AT.fullmatch(name) and type(value) is int and value >= 0:
                return value
    return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
