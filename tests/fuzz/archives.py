"""Target: archives of browsers and proxies (HAR)."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

from mmproto import har
from tests.fuzz.outcomes import RULES, check
from tests.fuzz.target import Target
from tests.proto import wire


def run(data: bytes) -> None:
    """An archive is read or refused with a reason, twice the same."""
    for document in (data, b'{"log":{"entries":[' + data + b"]}}"):
        with suppress(har.ArchiveError):
            assert check(har.read(document, RULES)) == check(har.read(document, RULES))


def _entry(
    body: bytes, kind: str, encoding: str = "", url: str = "https://api.openai.com/v1/chat/completions"
) -> bytes:
    text = base64.b64encode(body).decode() if encoding else body.decode()
    content = {"mimeType": kind, "text": text} | ({"encoding": encoding} if encoding else {})
    entry = {
        "startedDateTime": "2026-01-02T03:04:05.678+01:00",
        "time": 12.5,
        "request": {
            "method": "POST",
            "url": url,
            "headers": [{"name": "Authorization", "value": "Bearer x"}],
            "postData": {"mimeType": "application/json", "text": json.dumps(wire.chat_request())},
        },
        "response": {"status": 200, "headers": [{"name": "content-type", "value": kind}], "content": content},
    }
    return json.dumps(entry).encode()


def _seeds() -> list[bytes]:
    stream = wire.sse(wire.chat_chunks(usage=wire.chat_usage()), done=True)
    return [
        _entry(wire.dump(wire.chat_completion()), "application/json"),
        _entry(stream, "text/event-stream", "base64"),
        _entry(b"", "application/json", url="wss://api.openai.com/v1/realtime?model=m"),
        b'{"log":{"version":"1.2","entries":[]}}',
    ]


TARGETS = {"archive": Target(run, _seeds)}
