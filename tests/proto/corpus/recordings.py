"""Recorded exchanges of real providers, where the folder that holds them exists beside the project.

They are read in place and never copied: without the folder there is nothing to read, and the tests over it
collect no case.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from mmproto.score.record import Record, UnreadableRecord, read_folder

FOLDER = Path(__file__).resolve().parents[4] / "shared" / "corpus" / "open"

_LOCAL = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104


def load(folder: Path) -> list[Record]:
    """All recordings in order of their names. Raises AssertionError for one that cannot be read."""
    records: list[Record] = []
    for name, record in read_folder(folder):
        if isinstance(record, UnreadableRecord):
            raise AssertionError(f"{name}: {record}")
        records.append(record)
    return records


def as_archive(record: Record) -> bytes:
    """The recording as an HTTP archive of one entry."""
    scheme = "http" if record.host.partition(":")[0] in _LOCAL else "https"
    entry = {
        "startedDateTime": "2026-01-01T00:00:00Z",
        "time": 100,
        "request": {
            "method": record.method,
            "url": f"{scheme}://{record.host}{record.target}",
            "headers": [{"name": name, "value": value} for name, value in record.request_headers],
            "postData": {"text": base64.b64encode(record.request_body).decode(), "encoding": "base64"},
        },
        "response": {
            "status": record.status,
            "headers": [{"name": name, "value": value} for name, value in record.response_headers],
            "content": {"text": base64.b64encode(record.response_body).decode(), "encoding": "base64"},
        },
    }
    return json.dumps({"log": {"entries": [entry]}}).encode()
