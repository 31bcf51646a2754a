"""Records written for these tests."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.proto import wire

from mmproto.score.record import Record, read_record


def expected(**fields: Any) -> dict[str, Any]:
    """What the plain chat completion of `wire` comes to."""
    return {
        "provider": "openai",
        "endpoint": "openai.chat",
        "model_requested": "gpt-test",
        "model_response": "gpt-test-2026",
        "streaming": False,
        "input_tokens": 30,
        "output_tokens": 12,
        "cached_read_tokens": None,
        "cache_write_tokens": None,
        "reasoning_tokens": None,
        "usage_reported": True,
        "billable": True,
        "extra": {},
        "alt": {},
        "quirks": [],
        "ambiguous": False,
        **fields,
    }


def chat(
    body: bytes | None = None,
    *,
    name: str = "a-chat",
    path: str = "/v1/chat/completions",
    host: str = "api.openai.com",
    method: str = "POST",
    status: int = 200,
    content_type: str = "application/json",
    more: dict[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """A record of a chat completion; `fields` change what is expected of it, `more` the record itself."""
    answer = wire.dump(wire.chat_completion()) if body is None else body
    return {
        "id": name,
        "request": {
            "method": method,
            "host": host,
            "path": path,
            "headers": {"content-type": "application/json", "content-length": "1", "host": host},
            "body": {"text": wire.dump(wire.chat_request()).decode()},
        },
        "response": {
            "status": status,
            "headers": {
                "content-type": content_type,
                "content-encoding": "gzip",
                "transfer-encoding": "chunked",
            },
            "body_b64": base64.b64encode(answer).decode(),
        },
        "expected": expected(**fields),
        **(more or {}),
    }


def record(document: dict[str, Any] | None = None) -> Record:
    return read_record(document or chat(), "unnamed")


def write(folder: Path, *documents: dict[str, Any]) -> Path:
    """The records as files of a folder."""
    folder.mkdir(exist_ok=True)
    for document in documents:
        (folder / f"{document['id']}.json").write_text(json.dumps(document))
    return folder
