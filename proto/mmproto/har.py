"""HTTP Archives (HAR 1.2) as browsers, mitmproxy and other recorders export them: entries in, outcomes out.

Bodies in an archive are text or base64, and as a rule already decoded while their headers still say gzip.
HTTP/2 entries carry pseudo headers and no lengths. Everything optional is missing somewhere, so each entry is
read for what it has: a damaged entry becomes one `Failed` with its reason and the entries beside it are read
as usual; only a file that is no archive at all raises `ArchiveError`.

An entry's URL gives the host, as the client addressed it. `started_at` is the archive's `startedDateTime`,
`duration_s` its `time`; the time to the first token of a stream is the time to the first byte of the response
(everything up to the end of `timings.wait`). What the archive does not say is not in the call.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import orjson

from mmproto.callform import parse_time
from mmproto.exchange import Exchange, Failed, Outcome, ReadingRules, Recognised, RequestHead, ResponseHead

BAD_ENTRY: Final = "archive_bad_entry"
BAD_URL: Final = "archive_bad_url"
BAD_BASE64: Final = "archive_bad_base64"

_NS_PER_MS: Final = 1_000_000
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SHORT_OFFSET: Final = re.compile(r"([+-]\d\d)(\d\d)$")
# Phases of `timings` in order; `ssl` is inside `connect`.
_BEFORE_RESPONSE: Final = ("blocked", "dns", "connect", "send", "wait")
_MAX_MS: Final = 1e10
_MAX_NS: Final = 9 * 10**18  # year 2255: what 64 bits hold, less any duration
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

Headers = tuple[tuple[str, str], ...]


class ArchiveError(Exception):
    """A file is no HTTP Archive. `reason` says why, `hint` what to do."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(f"{reason}; {hint}")
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True, slots=True)
class _Times:
    """Unix nanoseconds and nanoseconds; None where the archive does not say."""

    started_ns: int | None
    first_byte: int | None
    duration: int | None


class _BadEntry(Exception):
    """An entry cannot be read; the message is the reason to count."""


def read_file(path: Path, rules: ReadingRules) -> Iterator[Outcome]:
    """The outcomes of all entries of a file, in its order. Raises ArchiveError, OSError."""
    return read(path.read_bytes(), rules)


def read(data: bytes, rules: ReadingRules) -> Iterator[Outcome]:
    """The outcomes of all entries of an archive, in its order. Raises ArchiveError before the first."""
    entries = _entries(data)
    return _outcomes(entries, rules)


def _outcomes(entries: list[Any], rules: ReadingRules) -> Iterator[Outcome]:
    seen: Counter[str] = Counter()
    for entry in entries:
        try:
            yield from _outcomes_of(entry, rules, seen)
        except _BadEntry as bad:
            yield Failed(str(bad))


def _entries(data: bytes) -> list[Any]:
    if not data.strip():
        raise ArchiveError("the file is empty", "export the archive again")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = _lenient(data)
    log = document.get("log", document) if isinstance(document, dict) else None
    entries = log.get("entries") if isinstance(log, dict) else None
    if not isinstance(entries, list):
        raise ArchiveError("it has no log.entries", "is it an HTTP Archive (HAR 1.2)?")
    return entries


def _lenient(data: bytes) -> Any:
    """For byte order marks, broken UTF-8 and lone surrogates, all of which real exports contain."""
    text: str | None = None
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            text = data[len(mark) :].decode(encoding, "replace")
    try:
        return json.loads(text if text is not None else data.decode("utf-8", "replace"))
    except RecursionError:
        raise ArchiveError("it is nested too deep", "is it an HTTP Archive (HAR 1.2)?") from None
    except ValueError as error:
        raise ArchiveError(f"it is not JSON ({error})", "was the export cut short?") from None


def _outcomes_of(entry: Any, rules: ReadingRules, seen: Counter[str]) -> list[Outcome]:
    """What became of an entry's exchange, and the calls inside it, if it held several."""
    request, response = _mapping(entry, "request"), _mapping(entry, "response")
    method = request.get("method")
    if not isinstance(method, str) or not method:
        raise _BadEntry(BAD_ENTRY)
    url = _url(request.get("url"))
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    times = _times(entry)
    started = times.started_ns or 0
    first_byte = started + (times.first_byte or 0)
    ended = started + (times.duration or 0)
    request_body = _request_body(request)

    head = RequestHead(method.upper(), target, _headers(request, request_body))
    status = _status(response.get("status"))
    exchange = Exchange(head, rules, "", started, host=_host(url))
    if not exchange.recognised:
        return [exchange.end(ended)]
    response_body = _response_body(response)
    exchange.fallback_id = _fallback_id(entry, method, request_body, response_body, seen)
    exchange.request_body(request_body, started)
    exchange.request_end(started)
    if status:
        exchange.response_head(ResponseHead(status, _headers(response, response_body)), first_byte)
        exchange.response_body(response_body, first_byte)
        outcome = exchange.end(ended)
    else:
        outcome = exchange.abort("connection_closed", ended)
    outcomes = [outcome, *exchange.further(ended)]
    for each in outcomes:
        if isinstance(each, Recognised):
            if times.duration is None:
                each.call.ClearField("duration_s")
            if times.first_byte is None:
                each.call.ClearField("time_to_first_token_s")
    return outcomes


def _mapping(parent: Any, name: str) -> Mapping[str, Any]:
    """A member that has to be an object; a missing one is empty."""
    if not isinstance(parent, Mapping):
        raise _BadEntry(BAD_ENTRY)
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _BadEntry(BAD_ENTRY)
    return value


def _url(value: Any) -> SplitResult:
    if not isinstance(value, str):
        raise _BadEntry(BAD_URL)
    try:
        url = urlsplit(_scrubbed(value))
        has_host = bool(url.hostname)
        _ = url.port  # raises where it is no number
    except ValueError:
        raise _BadEntry(BAD_URL) from None
    if not has_host:
        raise _BadEntry(BAD_URL)
    return url


def _host(url: SplitResult) -> str:
    """The host, with its port where that is not the scheme's own."""
    name = url.hostname or ""
    name = f"[{name}]" if ":" in name else name
    port = url.port
    return name if port is None or port == _DEFAULT_PORTS.get(url.scheme) else f"{name}:{port}"


def _headers(message: Mapping[str, Any], body: bytes) -> Headers:
    """Headers in lower case, without pseudo headers and without a content-encoding already undone."""
    listed = message.get("headers")
    if isinstance(listed, Mapping):  # some exporters write an object
        pairs = list(listed.items())
    else:
        items = listed if isinstance(listed, list) else []
        pairs = [(item.get("name"), item.get("value")) for item in items if isinstance(item, Mapping)]
    headers = [
        (_scrubbed(name).strip().lower(), _scrubbed(value).strip())
        for name, value in pairs
        if isinstance(name, str) and isinstance(value, str) and name and not name.startswith(":")
    ]
    if _is_plain(body):
        headers = [(name, value) for name, value in headers if name != "content-encoding"]
    return tuple(headers)


def _scrubbed(text: str) -> str:
    """`text` without lone surrogates, which JSON can name and UTF-8 cannot hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _is_plain(body: bytes) -> bool:
    return body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"", b"{", b"[", b":", b"d", b"e", b"i", b"r")


def _status(value: Any) -> int:
    """The response's status, 0 where there was no response."""
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and 100 <= value <= 999 else 0


def _request_body(request: Mapping[str, Any]) -> bytes:
    posted = request.get("postData")
    if not isinstance(posted, Mapping):
        return b""
    text = posted.get("text")
    if isinstance(text, str):
        return _bytes(text, posted.get("encoding"))
    # A JSON body that a recorder took for a form: the document is the name of its first field.
    params = posted.get("params")
    for item in params if isinstance(params, list) else []:
        name = item.get("name") if isinstance(item, Mapping) else None
        if isinstance(name, str) and name.lstrip().startswith("{"):
            value = item.get("value")
            return _bytes(f"{name}={value}" if isinstance(value, str) and value else name, None)
    return b""


def _response_body(response: Mapping[str, Any]) -> bytes:
    content = response.get("content")
    if not isinstance(content, Mapping):
        return b""
    text = content.get("text")
    return _bytes(text, content.get("encoding")) if isinstance(text, str) else b""


def _bytes(text: str, encoding: Any) -> bytes:
    if isinstance(encoding, str) and encoding.lower() == "base64":
        try:
            compact = "".join(text.split()).rstrip("=")
            return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise _BadEntry(BAD_BASE64) from None
    return text.encode("utf-8", "replace")


def _times(entry: Mapping[str, Any]) -> _Times:
    timings = entry.get("timings")
    phases = timings if isinstance(timings, Mapping) else {}
    first_byte: int | None = None
    if _milliseconds(phases.get("wait")) is not None:
        first_byte = sum(_milliseconds(phases.get(name)) or 0 for name in _BEFORE_RESPONSE)
    duration = _milliseconds(entry.get("time"))
    receive = _milliseconds(phases.get("receive"))
    if duration is None and first_byte is not None and receive is not None:
        duration = first_byte + receive
    started = entry.get("startedDateTime")
    started_ns: int | None = None
    if isinstance(started, str):
        try:
            parsed = parse_time(_SHORT_OFFSET.sub(r"\1:\2", started.strip()))
            started_ns = parsed if 0 < parsed < _MAX_NS else None
        except (ValueError, OverflowError):
            started_ns = None
    return _Times(started_ns, first_byte, duration)


def _milliseconds(value: Any) -> int | None:
    """A duration in milliseconds as nanoseconds; -1 means "does not apply" in an archive."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_MS:
        return None
    return round(value * _NS_PER_MS)


def _fallback_id(
    entry: Mapping[str, Any], method: str, request: bytes, response: bytes, seen: Counter[str]
) -> str:
    """Names the entry by what it holds, so that replaying an archive again gives the same ids."""
    digest = hashlib.sha256()
    for part in (method, entry["request"].get("url"), entry.get("startedDateTime"), entry.get("time")):
        digest.update(f"{part}\n".encode("utf-8", "replace"))
    digest.update(hashlib.sha256(request).digest())
    digest.update(hashlib.sha256(response).digest())
    name = digest.hexdigest()
    seen[name] += 1
    return f"archive:{name}:{seen[name]}"
