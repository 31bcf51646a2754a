"""A worker's page for those who watch it: /metrics, /livez, /readyz and /status over HTTP.

`/livez` answers while the loop comes round: a loop that hangs longer than the group allows is taken for
dead. `/readyz` says 503 with what is in the way while nothing goes on.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mmpipeline.workers.clients import MAX_POLL_MS
from mmpipeline.workers.metrics import exposition
from mmpipeline.workers.progress import Progress

_TEXT = "text/plain; charset=utf-8"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_STUCK_S = MAX_POLL_MS / 1000


class ListenError(Exception):
    """The address cannot be listened on; str() says why and what to do."""


class Watching:
    """Serves one `Progress` until `close`; `beat` says that the loop came round."""

    def __init__(self, address: str, progress: Progress) -> None:
        """Listen on `host:port`. Raises ListenError."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise ListenError(f"worker.metrics_listen '{address}' is not host:port")
        self._progress = progress
        self._beaten = time.monotonic()
        try:
            self._server = _Server((host.strip("[]"), int(port)), _handler(self._answer))
        except OSError as error:
            raise ListenError(
                f"{address} cannot be listened on: {error.strerror or error}; give another address with "
                "worker.metrics_listen (port 0 takes a free one)"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="watching", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def beat(self) -> None:
        """The loop comes round."""
        self._beaten = time.monotonic()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, path: str) -> tuple[int, str, str]:
        match path:
            case "/metrics":
                return 200, _PROMETHEUS, exposition(self._progress.snapshot())
            case "/status":
                return 200, "application/json", json.dumps(self._progress.snapshot())
            case "/livez":
                stuck = time.monotonic() - self._beaten > _STUCK_S
                return (503, _TEXT, "the loop is stuck\n") if stuck else (200, _TEXT, "ok\n")
            case "/readyz":
                reasons = [f"{what}: {why}\n" for what, why in self._progress.obstacles.copy().items()]
                ready = self._progress.ready
                return (200, _TEXT, "ok\n") if ready else (503, _TEXT, "".join(reasons) or "starting\n")
            case _:
                return 404, _TEXT, "there are /metrics, /livez, /readyz and /status\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


def _handler(answer: Callable[[str], tuple[int, str, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            status, content_type, text = answer(self.path.partition("?")[0])
            body = text.encode()
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are not logged."""

    return Handler
