"""The small HTTP server of the sensor: status on a unix socket for root, metrics on TCP for Prometheus.

It answers GET with a document and closes. Requests are read to the end of the head, at most 8 KiB and two
seconds long, so that a slow or hostile client holds one of a few threads for a moment and nothing else.
The unix socket has mode 0600: the status names processes and files.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_LOG = logging.getLogger(__name__)

_MAX_HEAD = 8 * 1024
_CLIENT_S = 2.0
_MAX_CLIENTS = 8
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    content_type: str
    body: str


Routes = Mapping[str, Callable[[], Answer]]


class ListenError(Exception):
    """An address cannot be listened on; the message says which, why, and what to do."""


class ControlServer:
    """Serves `routes` for each socket that was added, in threads of its own, until `close`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._slots = threading.BoundedSemaphore(_MAX_CLIENTS)
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._unix: list[Path] = []

    def add_unix(self, path: Path, routes: Routes) -> None:
        """Listens on the socket file `path` (mode 0600). Raises ListenError where another sensor does."""
        if _is_answering(path):
            raise ListenError(f"another sensor answers on {path}: stop it, or choose another state folder")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
                path.unlink()
            before = os.umask(0o177)
            try:
                _with_short_name(path, listener.bind)
            finally:
                os.umask(before)
        except OSError as error:
            listener.close()
            raise ListenError(f"the control socket {path} cannot be made: {error.strerror}") from error
        self._unix.append(path)
        self._listen(listener, routes)

    def add_tcp(self, host: str, port: int, routes: Routes) -> str:
        """Listens on `host`:`port` (0: any free one); returns its URL. Raises ListenError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except OSError as error:
            listener.close()
            raise ListenError(
                f"{host}:{port} cannot be listened on: {error.strerror}; "
                "give another address with metrics.listen (port 0 takes a free one)"
            ) from error
        self._listen(listener, routes)
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        return f"http://{shown}:{listener.getsockname()[1]}"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stops answering and removes the socket files."""
        os.write(self._wake_write, b".")
        if self._thread.is_alive():
            self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        for path in self._unix:
            path.unlink(missing_ok=True)

    def _listen(self, listener: socket.socket, routes: Routes) -> None:
        listener.listen(16)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, routes)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if not isinstance(key.fileobj, socket.socket):
                    return
                try:
                    client, _address = key.fileobj.accept()
                except OSError:
                    continue
                if not self._slots.acquire(timeout=_CLIENT_S):
                    client.close()
                    continue
                threading.Thread(target=self._answer, args=(client, key.data), daemon=True).start()

    def _answer(self, client: socket.socket, routes: Routes) -> None:
        try:
            with client, suppress(OSError):
                client.settimeout(_CLIENT_S)
                client.sendall(_response(_head(client), routes))
        finally:
            self._slots.release()


def _head(client: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) < _MAX_HEAD:
        piece = client.recv(_MAX_HEAD)
        if not piece:
            break
        head += piece
    return head


def _response(head: bytes, routes: Routes) -> bytes:
    answer = _route(head, routes)
    body = answer.body.encode()
    lines = (
        f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "",
        "",
    )
    prefix = "\r\n".join(lines).encode()
    return prefix if head.startswith(b"HEAD ") else prefix + body


def _route(head: bytes, routes: Routes) -> Answer:
    words = head.split(b"\n", 1)[0].split()
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return Answer(400, TEXT, "not an HTTP request\n")
    if words[0] not in (b"GET", b"HEAD"):
        return Answer(405, TEXT, "only GET is answered here\n")
    handler = routes.get(words[1].partition(b"?")[0].decode("latin-1"))
    if handler is None:
        return Answer(404, TEXT, f"not here; there is {', '.join(sorted(routes))}\n")
    try:
        return handler()
    except Exception as error:
        _LOG.exception("the answer to a request failed")
        return Answer(500, TEXT, f"internal error: {type(error).__name__}\n")


def _is_answering(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CLIENT_S)
        try:
            _with_short_name(path, probe.connect)
        except OSError:
            return False
        return True


def _with_short_name(path: Path, use: Callable[[str], object]) -> None:
    """Calls `use` with a name of the socket that fits a unix address (108 bytes), however deep it lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def ask(path: Path, target: str, timeout_s: float = 5.0) -> tuple[int, str]:
    """GETs `target` from the sensor behind the socket `path`: (status, body). Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(timeout_s)
        _with_short_name(path, channel.connect)
        channel.sendall(f"GET {target} HTTP/1.1\r\nHost: sensor\r\n\r\n".encode())
        parts: list[bytes] = []
        while piece := channel.recv(1 << 16):
            parts.append(piece)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ConnectionError("the answer broke off")
    return int(words[1]), body.decode("utf-8", "replace")
