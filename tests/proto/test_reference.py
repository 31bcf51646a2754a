"""docs/reference/providers.md says what the code does, and docs/operate.md what every reason means.

Every request that the document names is looked up as the sensor would, and every route has a request in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from mmproto import exchange, har
from mmproto.conversations import connection, http2, http2_stream
from mmproto.estimation import estimate
from mmproto.framing import bodies, eventstream, grpc, http2_frames, jsonarray, websocket, wsframes
from mmproto.providers import counts, grpc_messages, hosts, paths, reasons
from mmproto.providers.dialects.openai import realtime
from mmproto.usage import INPUT_BUCKETS, OUTPUT_BUCKETS, UNITS
from mmproto.v1.usage_pb2 import Quality

DOCUMENTS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCUMENTS / "reference" / "providers.md").read_text()
OPERATE = (DOCUMENTS / "operate.md").read_text()
#: What ends the reading of a body early, or leaves something out, is an oddity of its call.
FRAMINGS = (bodies, eventstream, grpc, jsonarray, websocket, wsframes)
#: How calls end that were read up to some point; the prose names them.
ENDS = {
    *(connection.GAP, connection.CLOSED, connection.TOO_MANY),
    *(http2.RESET_BY_CLIENT, http2.RESET_BY_SERVER, http2.REFUSED),
    exchange.STREAM_INCOMPLETE,
}
_REQUEST = re.compile(r"`([A-Z]+) (/[^`]*)`")
_NOBODYS_HOST = "llm.internal"


class Request(NamedTuple):
    """A request of the document, at a provider or (None) at a host that nobody knows."""

    provider: str | None
    method: str
    path: str
    operation: str  # "" where it costs nothing
    free: str


def _rows(heading: str, document: str = REFERENCE) -> Iterator[list[str]]:
    """The cells of all tables of a document whose header row starts with `heading`."""
    inside = False
    for line in document.splitlines():
        if line.startswith(f"| {heading} |"):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            yield [cell.strip() for cell in line.split("|")[1:-1]]


def _requests() -> Iterator[Request]:
    for operation, at, requests, _ in _rows("Operation"):
        providers: list[str | None] = [*re.findall(r"`([^`]+)`", at)]
        for provider in providers or [None]:
            for method, path in _REQUEST.findall(requests):
                yield Request(provider, method, _plain(path), operation.strip("`"), "")
    for reason, _, requests in _rows("Reason"):
        for part in requests.split("; "):
            at_whom = re.match(r"at `([^`]+)`", part)
            for method, path in _REQUEST.findall(part):
                yield Request(at_whom and at_whom[1], method, _plain(path), "", reason.strip("`"))


def _in_first_cells(heading: str) -> set[str]:
    return {word for row in _rows(heading, OPERATE) for word in re.findall(r"`(\w+)[:`]", row[0])}


def _constants(module: ModuleType) -> set[str]:
    """The reasons that a module gives names to."""
    return {
        value
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, str)
    }


def _plain(path: str) -> str:
    return re.sub(r"[{}*]", "", path)


def _host(provider: str | None) -> str:
    if provider is None:
        return _NOBODYS_HOST
    return next(host.pattern for host in hosts.HOSTS if host.provider == provider).replace("*", "x")


@pytest.mark.parametrize("request_", list(_requests()), ids=lambda r: f"{r.provider}-{r.method}-{r.path}")
def test_a_request_is_the_operation_that_the_document_says(request_: Request) -> None:
    match = paths.match(request_.method, _host(request_.provider), request_.path, {})
    assert match.dialect is not None
    assert match.free == request_.free
    if not request_.free:
        assert match.dialect.operation == request_.operation


def test_every_route_has_a_request_in_the_document() -> None:
    missing = {(route.dialect.__name__, route.path) for route in paths._ROUTES}
    for request in _requests():
        for pattern, route in paths._COMPILED:
            at_home = not route.providers or request.provider in route.providers
            path = request.path.rstrip("/")
            if at_home and request.method in route.methods and pattern.fullmatch(path):
                missing.discard((route.dialect.__name__, route.path))
                break
    assert not missing


def test_every_provider_with_its_hosts() -> None:
    expected: dict[str, list[str]] = {}
    for host in hosts.HOSTS:
        expected.setdefault(host.provider, []).append(host.pattern)
    for host in hosts.HOSTS:
        for prefix, provider in (host.by_path or {}).items():
            expected[provider].append(f"{host.pattern}{prefix}")
    for port, provider in hosts.PORTS.items():
        expected[provider].append(f":{port}")
    documented = [(name.strip("`"), re.findall(r"`([^`]+)`", cell)) for name, cell in _rows("Provider")]
    assert documented == sorted(expected.items())


def test_every_reason_for_costing_nothing() -> None:
    named = {value for name, value in vars(reasons).items() if name.isupper()}
    named |= {exchange.COUNTED_IN_PORTIONS, paths.NOT_LLM}
    assert {row[0].strip("`") for row in _rows("Reason")} == named


def test_every_bucket_unit_and_quality() -> None:
    named = {row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in _rows("Side")}
    assert named == {"Input": set(INPUT_BUCKETS), "Output": set(OUTPUT_BUCKETS), "Units": set(UNITS)}
    qualities = {name.removeprefix("QUALITY_") for name in Quality.keys()} - {"UNSPECIFIED"}  # noqa: SIM118
    assert {row[0].strip("`") for row in _rows("Quality")} == qualities


def test_every_oddity_of_a_call() -> None:
    expected = {
        counts.BAD_COUNT,
        counts.CONTRADICTORY_COUNTS,
        exchange.MALFORMED_JSON,
        "malformed_request",
        grpc_messages.MALFORMED,
        realtime.UNFINISHED,
        http2_stream.UNRESOLVED,
        estimate.WITHOUT_MEDIA,
        estimate.WITHOUT_CONTEXT,
        estimate.WITHOUT_MISSING_BYTES,
        *(reason for framing in FRAMINGS for reason in _constants(framing)),
    }
    assert _in_first_cells("Anomaly") == expected


def test_every_reason_why_an_exchange_is_no_call() -> None:
    about_connections = {
        *_constants(connection),
        http2_stream.UNRESOLVED,
        http2_frames.MALFORMED,
        http2_frames.TOO_LARGE,
    }
    about_exchanges = {
        exchange.MALFORMED_JSON,
        exchange.NO_RESPONSE_BODY,
        bodies.MALFORMED,
        bodies.BOMB,
        *_constants(har),
        paths.DIALECT_NOT_SUPPORTED,
        paths.NOT_AN_OPERATION,
    }
    named = _in_first_cells("Failed") | _in_first_cells("Dropped") | set(ENDS)
    assert about_connections | about_exchanges <= named
    assert {row[0].strip("`") for row in _rows("Reason")} <= _in_first_cells("Dropped")
    assert all(f"`{end}`" in OPERATE for end in ENDS)
