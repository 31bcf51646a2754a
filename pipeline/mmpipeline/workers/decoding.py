"""From messages of the calls topic to calls and decisions, and which messages are none.

A message is one spool record: an encoded `IngestBatch` with one item. Records put end to end are the
encoding of their merge, so a whole batch of messages is parsed at once, for a tenth of what they cost one
by one. That is right only where each record is framed by itself: a record that is cut off would eat the
beginning of the next. So the frame of each is held against its length first; what is not framed like a
record with one item, and everything when the merge does not parse, is parsed alone.

Reasons for which a message is unreadable:

    content_type           the header says that it is something else than protobuf
    schema                 the header names another message than IngestBatch
    schema_version         it was written by a contract that this worker does not know
    undecodable            the payload does not parse
    empty                  the payload parses and holds nothing
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import DecodeError

from mmpipeline.workers.headers import Headed, Header, texts_of
from mmproto.delivery.records import SCHEMA_VERSION
from mmproto.kafka.topics import CONTENT_TYPE_HEADER, SCHEMA_HEADER, SCHEMA_VERSION_HEADER
from mmproto.v1.call_pb2 import Call
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.routing_pb2 import RoutingDecision

if TYPE_CHECKING:
    from confluent_kafka._types import HeadersType

CONTENT_TYPE = "application/x-protobuf"
SCHEMA = "modelmeter.v1.IngestBatch"

#: The headers as our own senders write them: compared as a whole before anything is looked at closely.
RECORD_HEADERS: list[Header] = [
    (CONTENT_TYPE_HEADER, CONTENT_TYPE.encode()),
    (SCHEMA_HEADER, SCHEMA.encode()),
    (SCHEMA_VERSION_HEADER, str(SCHEMA_VERSION).encode()),
]

# Tags of `calls` and `routing_decisions` in an encoded IngestBatch (field << 3 | length-delimited).
_CALL_TAG = IngestBatch.DESCRIPTOR.fields_by_name["calls"].number << 3 | 2
_DECISION_TAG = IngestBatch.DESCRIPTOR.fields_by_name["routing_decisions"].number << 3 | 2


class Payload(Protocol):
    """What is needed of a Kafka message."""

    def value(self) -> bytes | None: ...

    def headers(self) -> HeadersType | None: ...


@dataclass(slots=True)
class Decoded:
    """What a batch of messages holds. Each item stands beside the index of its message."""

    calls: list[tuple[int, Call]] = field(default_factory=list)
    decisions: list[tuple[int, RoutingDecision]] = field(default_factory=list)
    unreadable: list[tuple[int, str]] = field(default_factory=list)


def decode(messages: Sequence[Payload]) -> Decoded:
    """Read all `messages`, in their order within calls and within decisions."""
    decoded = Decoded()
    calls: list[int] = []
    decisions: list[int] = []
    odd: list[int] = []
    values: list[bytes] = []
    for index, message in enumerate(messages):
        if message.headers() != RECORD_HEADERS and (reason := _reason_by_headers(message)):
            decoded.unreadable.append((index, reason))
            continue
        value = message.value() or b""
        match _item_tag(value):
            case 0:
                odd.append(index)
                continue
            case tag:
                (calls if tag == _CALL_TAG else decisions).append(index)
                values.append(value)
    try:
        merged = IngestBatch.FromString(b"".join(values))
    except DecodeError:
        odd = sorted([*odd, *calls, *decisions])
    else:
        decoded.calls.extend(zip(calls, merged.calls, strict=True))
        decoded.decisions.extend(zip(decisions, merged.routing_decisions, strict=True))
    if odd:
        for index in odd:
            _decode_alone(index, messages[index].value() or b"", decoded)
        decoded.calls.sort(key=_by_index)
        decoded.decisions.sort(key=_by_index)
        decoded.unreadable.sort(key=_by_index)
    return decoded


def _by_index(item: tuple[int, object]) -> int:
    return item[0]


def _item_tag(value: bytes) -> int:
    """The tag of the one item that `value` is framed as; 0 where it is framed otherwise."""
    if len(value) < 2 or value[0] not in (_CALL_TAG, _DECISION_TAG):
        return 0
    length = shift = 0
    for position in range(1, min(len(value), 6)):
        byte = value[position]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value[0] if length == len(value) - position - 1 else 0
        shift += 7
    return 0


def _decode_alone(index: int, value: bytes, decoded: Decoded) -> None:
    try:
        batch = IngestBatch.FromString(value)
    except DecodeError:
        decoded.unreadable.append((index, "undecodable"))
        return
    if batch.schema_version > SCHEMA_VERSION:
        decoded.unreadable.append((index, "schema_version"))
    elif not batch.calls and not batch.routing_decisions:
        decoded.unreadable.append((index, "empty"))
    else:
        decoded.calls.extend((index, call) for call in batch.calls)
        decoded.decisions.extend((index, decision) for decision in batch.routing_decisions)


def _reason_by_headers(message: Headed) -> str:
    """Why a message with such headers is not read; "" where it is."""
    said = texts_of(message)
    if said.get(CONTENT_TYPE_HEADER) != CONTENT_TYPE:
        return "content_type"
    if said.get(SCHEMA_HEADER) != SCHEMA:
        return "schema"
    version = said.get(SCHEMA_VERSION_HEADER, "")
    if not version.isdecimal() or not 1 <= int(version) <= SCHEMA_VERSION:
        return "schema_version"
    return ""
