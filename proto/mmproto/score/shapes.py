"""The messages of a realtime session or a gRPC call, out of whatever shape a recorder gave them.

Recorders agree on nothing here: one list with a direction on each message, a list for each side, pairs, bare
documents inside the half that sent them. What they mean is read by rule: the name of a list, a word for a
direction, the name of a payload. A list in which one item cannot be understood is none.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

# The name of a list in which a direction stands on each message.
_LISTS: Final = re.compile(
    r"(ws|websocket|realtime|grpc)?_?(frames|messages|events|turns|transcript|stream|session)?(_b64)?"
)
_CLIENT: Final = re.compile(
    r"client|c|c2s|sen[dt]|out|outgoing|outbound|request|write|up|upload|egress|user|tx|-?>"
    r"|to_server|client(_to_|->)server"
)
_SERVER: Final = re.compile(
    r"server|s|s2c|recv|received?|in|incoming|inbound|response|read|down|download|ingress|provider|model|rx|<-?"
    r"|to_client|server(_to_|->)client"
)
# The names of lists that belong to one side.
_CLIENT_LISTS: Final = re.compile(r"(sent|client|outgoing|requests?)(_(messages|events|frames))?")
_SERVER_LISTS: Final = re.compile(r"(received|server|incoming|responses?)(_(messages|events|frames))?")
_DIRECTIONS: Final = (
    "direction",
    "dir",
    "from",
    "sender",
    "side",
    "source",
    "origin",
    "role",
    "kind",
    "type",
)
_FROM_CLIENT: Final = ("from_client", "is_client", "client", "outgoing", "sent")
_ENCODED: Final = (
    ("encoding", "base64"),
    ("opcode", 2),
    ("opcode", "binary"),
    ("type", "binary"),
    ("binary", True),
)
_TEXTS: Final = (
    "text",
    "data",
    "payload",
    "message",
    "body",
    "content",
    "json",
    "frame",
    "event",
    "raw",
    "value",
)
_BINARIES: Final = (
    "base64",
    "b64",
    *(f"{name}_b64" for name in _TEXTS),
    *(f"{name}_base64" for name in _TEXTS),
)
_PAYLOADS: Final = (*_TEXTS, *_BINARIES)
_BASE64: Final = ("base64", "b64")


class Message(NamedTuple):
    """One message. `text` is false for binary."""

    from_client: bool
    data: bytes
    text: bool


def messages_of(document: Mapping[str, Any]) -> tuple[Message, ...]:
    """The messages in a record, in their order; none where it has none."""
    places = (
        (document, None),
        (document.get("websocket"), None),
        (document.get("request"), True),
        (document.get("response"), False),
    )
    found: list[Message] = []
    for place, from_client in places:
        if isinstance(place, Mapping):
            listed = list(_lists_of(place, from_client))
            if place is document and listed:
                return tuple(listed)
            found += listed
    return tuple(found)


def messages_of_bodies(request: bytes, response: bytes) -> tuple[Message, ...]:
    """Messages that a recorder wrote into the bodies, one JSON document a line or an array of them.

    A document may say itself which way it went.
    """
    return tuple(
        message
        for from_client, body in ((True, request), (False, response))
        for document in _documents(body)
        if (message := _message(document, from_client, encoded=False)) is not None
    )


def decode(encoded: Any) -> bytes:
    """Base64 as bytes; nothing where there is none. Raises ValueError."""
    return base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else b""


def _lists_of(place: Mapping[str, Any], from_client: bool | None) -> Iterator[Message]:
    for name, value in place.items():
        if not isinstance(value, list) or not value:
            continue
        side = _either(name, _CLIENT_LISTS, _SERVER_LISTS)
        side = from_client if side is None else side
        if _LISTS.fullmatch(name) or side is not from_client:
            read = [_message(item, side, encoded=name.endswith(_BASE64)) for item in value]
            if all(message is not None for message in read):
                yield from (message for message in read if message is not None)


def _message(item: Any, side: bool | None, *, encoded: bool) -> Message | None:
    """A message from an item of a list that belongs to the client (True), the server, or to both (None)."""
    if isinstance(item, list) and len(item) == 2:
        return _made(_side(item[0]), item[1], encoded=encoded)
    if isinstance(item, str):
        return _made(side, item, encoded=encoded)
    if not isinstance(item, Mapping):
        return None
    stated = next((found for name in _DIRECTIONS if (found := _side(item.get(name))) is not None), None)
    if stated is None:
        stated = next((item[name] for name in _FROM_CLIENT if isinstance(item.get(name), bool)), None)
    for name in _PAYLOADS if stated is not None or side is not None else ():
        # A bare event of the protocol may itself have members of these names, but it also has a type.
        if item.get(name) is not None and (stated is not None or "type" not in item):
            is_encoded = (
                encoded or name.endswith(_BASE64) or any(item.get(key) == as_ for key, as_ in _ENCODED)
            )
            return _made(side if stated is None else stated, item[name], encoded=is_encoded)
    if len(item) == 1:  # {"sent": ...}
        [(name, value)] = item.items()
        if _side(name) is not None:
            return _made(_side(name), value, encoded=encoded)
    return _made(side, item, encoded=False)


def _side(word: Any) -> bool | None:
    if not isinstance(word, str):
        return None
    return _either(word.strip().lower(), _CLIENT, _SERVER)


def _either(word: str, client: re.Pattern[str], server: re.Pattern[str]) -> bool | None:
    return True if client.fullmatch(word) else False if server.fullmatch(word) else None


def _made(side: bool | None, payload: Any, *, encoded: bool) -> Message | None:
    if side is None:
        return None
    if isinstance(payload, str):
        if not encoded:
            return Message(side, payload.encode(), True)
        data = decode(payload)
        return Message(side, data, data[:1] in (b"{", b"["))
    if isinstance(payload, Mapping | list):
        return Message(side, json.dumps(payload, separators=(",", ":")).encode(), True)
    return None


def _documents(body: bytes) -> list[Any]:
    try:
        whole = json.loads(body)
    except ValueError:
        lines = (line.strip().removeprefix(b"data:").lstrip() for line in body.splitlines())
        try:
            return [json.loads(line) for line in lines if line and not line.startswith((b"event:", b":"))]
        except ValueError:
            return []
    return whole if isinstance(whole, list) else [whole]
