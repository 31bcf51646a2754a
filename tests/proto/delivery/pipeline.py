"""A pipeline as the client sees it: a real HTTP server on loopback that answers by a script.

Each POST takes the next behaviour of `script`; when that is used up, batches are accepted. Items are known
by id, as the pipeline knows them, so that resends show as duplicates.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mmproto.v1.ingest_pb2 import IngestBatch

TOKEN = "right"


@dataclass
class Pipeline:
    """`script`: "ok", "hang", "reset" (books the batch, then resets the connection), "cut", or a status."""

    script: deque[str | int] = field(default_factory=deque)
    poison: set[str] = field(default_factory=set)
    refuse_in_answer: dict[str, str] = field(default_factory=dict)
    retry_after: str = ""
    answer: Callable[[], bytes] | None = None
    known: set[str] = field(default_factory=set)
    posts: list[list[str]] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    url: str = ""

    def book(self, ids: list[str]) -> dict[str, Any]:
        good = [each for each in ids if each not in self.refuse_in_answer]
        fresh = set(good) - self.known
        self.known |= fresh
        rejected = [{"id": i, "reason": self.refuse_in_answer[i]} for i in ids if i in self.refuse_in_answer]
        return {"accepted": len(fresh), "duplicates": len(good) - len(fresh), "rejected": rejected}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pipeline: Pipeline

    def do_POST(self) -> None:
        pipeline = self.pipeline
        pipeline.connections.add(self.client_address)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        batch = IngestBatch.FromString(body)
        ids = [call.id for call in batch.calls]
        pipeline.posts.append(ids)
        behaviour = pipeline.script.popleft() if pipeline.script else "ok"
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            behaviour = 401
        elif behaviour == "ok" and pipeline.poison & set(ids):
            behaviour = 400
        if behaviour == "hang":
            time.sleep(1)
            return
        if behaviour == "reset":
            pipeline.book(ids)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        answer = b"{}"
        if behaviour in ("ok", "cut"):
            answer = pipeline.answer() if pipeline.answer else json.dumps(pipeline.book(ids)).encode()
        self.send_response(200 if isinstance(behaviour, str) else behaviour)
        if pipeline.retry_after:
            self.send_header("Retry-After", pipeline.retry_after)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if behaviour == "cut":
            self.wfile.write(answer[:3])
            self.close_connection = True
            return
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()


@contextlib.contextmanager
def running_pipeline(pipeline: Pipeline) -> Iterator[Pipeline]:
    """Serves `pipeline` until the block ends."""
    handler = type("Handler", (_Handler,), {"pipeline": pipeline})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    pipeline.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield pipeline
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
