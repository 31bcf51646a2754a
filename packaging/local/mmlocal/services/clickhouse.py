"""A stand-in for a ClickHouse server: chDB, the same engine, behind ClickHouse's HTTP interface.

It lets several processes use one warehouse where no server is installed, and lets the code that talks to
a server run for real. It is NOT a ClickHouse server: one process, one user, no sessions, roles, row
policies, replication, quotas or TLS, no `query_id`, no progress while a query runs, and answers are made
whole before they are sent. `docs/reference/warehouse.md` lists what is therefore not shown here.

    python -m mmlocal.services.clickhouse FOLDER [--port N] [--config FILE]

prints `listening on http://127.0.0.1:PORT` when it takes requests and ends at SIGTERM. The user is
`modelmeter`, the password that of the variable CLICKHOUSE_PASSWORD. `--config` is a configuration of the
engine itself, such as one that names clusters.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import hmac
import importlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import LifoQueue
from typing import IO, Any, Final, cast
from urllib.parse import parse_qsl, quote, urlsplit

from mmlocal.process import ServiceFailed
from mmlocal.services.ports import LoopbackPort

USER: Final = "modelmeter"
PASSWORD_VARIABLE: Final = "CLICKHOUSE_PASSWORD"  # noqa: S105 - a name, no secret

_LOCAL: Final = Path(__file__).parents[2]
_START_S: Final = 60.0
_STOP_S: Final = 20.0
_HANDLES: Final = 6
_MAX_BODY: Final = 256 << 20

# What the interface takes for itself; every other parameter of a request is a setting of its query.
_TRANSPORT: Final = frozenset(
    (
        *("query", "database", "user", "password", "role", "quota_key", "query_id", "default_format"),
        *("session_id", "session_timeout", "session_check", "close_session", "stacktrace"),
        *("compress", "decompress", "enable_http_compression", "buffer_size", "wait_end_of_query"),
        *("client_protocol_version", "send_progress_in_http_headers", "http_headers_progress_interval_ms"),
        "cancel_http_readonly_queries_on_client_close",
    )
)
_AUTHENTICATION_FAILED: Final = 516
_STATUS_BY_CODE: Final = {
    **dict.fromkeys((36, 43, 47, 53, 62, 115, 457), 400),
    **dict.fromkeys((60, 81), 404),
    _AUTHENTICATION_FAILED: 403,
}
_CODE: Final = re.compile(r"Code: (\d+)\.")
_INSERT: Final = re.compile(rb"\s*(?P<into>INSERT\s+INTO\s+[^;]*?)\s+FORMAT\s+(?P<format>\w+)[ \t]*\r?\n")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ClickHouseStandIn:
    """The stand-in as a process of its own over `folder`. It keeps its port and password over restarts."""

    def __init__(self, folder: Path, *, port: int = 0, config: Path | None = None) -> None:
        self.folder = folder
        self._reserved: LoopbackPort | None = LoopbackPort(port)
        self.port = self._reserved.number
        self._config = config
        self._password = secrets.token_urlsafe(12)
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """For `warehouse.url`."""
        return f"http://{USER}:{quote(self._password)}@127.0.0.1:{self.port}/default"

    @property
    def pid(self) -> int | None:
        """Its process; None while it does not run."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Returns when it takes requests. Raises ServiceFailed."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if self._reserved is None:
            self._reserved = LoopbackPort(self.port)
        log = self.folder.with_name(f"{self.folder.name}.log")
        arguments = [str(self.folder), "--port", str(self.port), "--until-stdin-ends"]
        if self._config is not None:
            arguments += ["--config", str(self._config)]
        with log.open("a", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mmlocal.services.clickhouse", *arguments],
                env={**os.environ, PASSWORD_VARIABLE: self._password, "PYTHONPATH": str(_LOCAL)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        output = cast("IO[str]", self._process.stdout)  # started with a pipe
        silent = threading.Timer(_START_S, self._process.kill)
        silent.start()
        line = output.readline()
        silent.cancel()
        if not line.startswith("listening on "):
            self.kill()
            words = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise ServiceFailed(f"the ClickHouse stand-in did not start (log: {log})\n{words}")

    def stop(self) -> None:
        """End it by SIGTERM and give its port back; what it was asked before is finished. Idempotent."""
        self._end(signal.SIGTERM)
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def kill(self) -> None:
        """End it by SIGKILL and keep its port for the next start. Idempotent."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


class _Refused(Exception):
    """A request that never reached the engine: code and text as ClickHouse would give them."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {text}")


class _Engine:
    """chDB with a few handles; settings and database of a request last as long as the request."""

    def __init__(self, folder: Path, config: Path | None) -> None:
        # Only the server's own process loads the engine.
        self._connect: Callable[[str], Any] = importlib.import_module("chdb").connect
        self._where = f"{folder}?config-file={config}" if config is not None else str(folder)
        # Held to the end: the engine goes with its last handle.
        self._anchor = self._connect(self._where)
        self._handles: LifoQueue[Any] = LifoQueue()
        for _ in range(_HANDLES):
            self._handles.put(self._connect(self._where))

    def run(
        self, sql: bytes, database: str, settings: Mapping[str, str], parameters: Mapping[str, str]
    ) -> bytes:
        """The answer in the format that `sql` names. Raises what the engine raises."""
        for name in settings:
            if not _NAME.fullmatch(name):
                raise _Refused(115, f"Unknown setting '{name}'. (UNKNOWN_SETTING)")
        with self._handle(list(settings)) as handle:
            handle.query("USE `" + database.replace("`", "") + "`")
            if settings:
                pairs = (f"{name} = {_quoted(value)}" for name, value in settings.items())
                handle.query("SET " + ", ".join(pairs))
            with _data_in_a_file(sql) as statement:
                answer = handle.query(statement, "TabSeparated", params=dict(parameters))
            content: bytes = answer.bytes() or b""
            return content

    @contextlib.contextmanager
    def _handle(self, settings: list[str]) -> Iterator[Any]:
        handle = self._handles.get()
        try:
            yield handle
        finally:
            try:
                if settings:
                    handle.query("SET " + ", ".join(f"{name} = DEFAULT" for name in settings))
            except Exception:  # a setting that the engine does not know: begin with a fresh handle
                handle.close()
                handle = self._connect(self._where)
            self._handles.put(handle)

    def close(self) -> None:
        """Waits for running queries."""
        for _ in range(_HANDLES):
            self._handles.get().close()
        self._anchor.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and content are two writes
    server: _Server
    timeout = 600

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/ping":
            self._answer(200, b"Ok.\n", {})
        else:
            self._query()

    def do_POST(self) -> None:
        self._query()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: addresses and statements are not for a log."""

    def _query(self) -> None:
        body = self._body()
        try:
            self._authenticate()
            content = self._run(body)
        except Exception as error:  # the engine's own errors have no common base
            text = str(error)
            found = _CODE.search(text)
            code = int(found[1]) if found else 1001
            text = text[found.start() if found else 0 :]
            headers = {"X-ClickHouse-Exception-Code": str(code)}
            self._answer(_STATUS_BY_CODE.get(code, 500), f"{text}\n".encode(), headers)
            return
        self._answer(200, content, {"X-ClickHouse-Summary": json.dumps({"result_bytes": str(len(content))})})

    def _run(self, body: bytes) -> bytes:
        asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/form-data"):
            asked |= _form(kind, body)
            body = b""
        query = asked.get("query", "").encode()
        sql = query + b"\n" + body if query and body else query or body
        parameters = {
            name.removeprefix("param_"): value for name, value in asked.items() if name.startswith("param_")
        }
        settings = {
            name: value
            for name, value in asked.items()
            if name not in _TRANSPORT and not name.startswith("param_")
        }
        database = asked.get("database") or self.headers.get("X-ClickHouse-Database") or "default"
        return self.server.engine.run(sql, database, settings, parameters)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = b"".join(self._chunks())
        else:
            content = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), _MAX_BODY))
        return _decoded(content, self.headers.get("Content-Encoding", ""))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _authenticate(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        expected = base64.b64encode(f"{USER}:{self.server.password}".encode()).decode()
        if not hmac.compare_digest(given.encode(), expected.encode()):
            raise _Refused(
                _AUTHENTICATION_FAILED,
                "Authentication failed: password is incorrect, or there is no user with such name. "
                "(AUTHENTICATION_FAILED)",
            )

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        encoding = "" if status != 200 else _accepted(self.headers.get("Accept-Encoding", ""))
        content = _encoded(content, encoding)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.send_header("X-ClickHouse-Timezone", "UTC")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, engine: _Engine, password: str) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.engine = engine
        self.password = password

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is no event."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextlib.contextmanager
def _data_in_a_file(sql: bytes) -> Iterator[bytes]:
    """The statement, with an insert's data in a file: chDB reads binary data from nowhere else."""
    insert = _INSERT.match(sql)
    if insert is None or insert.end() == len(sql):
        yield sql
        return
    with tempfile.NamedTemporaryFile(suffix=".insert") as file:
        file.write(memoryview(sql)[insert.end() :])
        file.flush()
        yield insert["into"] + f" FROM INFILE {_quoted(file.name)} FORMAT ".encode() + insert["format"]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _form(kind: str, body: bytes) -> dict[str, str]:
    message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    fields = {}
    for part in message.get_payload():
        content = part.get_payload(decode=True)  # type: ignore[union-attr]
        name = part.get_param("name", header="Content-Disposition")  # type: ignore[union-attr]
        fields[str(name)] = content.decode() if isinstance(content, bytes) else ""
    return fields


def _accepted(header: str) -> str:
    offered = {each.partition(";")[0].strip() for each in header.split(",")}
    return next((name for name in ("zstd", "gzip") if name in offered), "")


def _encoded(content: bytes, encoding: str) -> bytes:
    if encoding == "zstd":
        from backports import zstd  # noqa: PLC0415 - what the client brings with it

        return bytes(zstd.compress(content, 1))
    return gzip.compress(content, 1) if encoding == "gzip" else content


def _decoded(content: bytes, encoding: str) -> bytes:
    if encoding == "zstd":
        from backports import zstd  # noqa: PLC0415 - as above

        return bytes(zstd.decompress(content))
    if encoding == "lz4":
        return bytes(importlib.import_module("lz4.frame").decompress(content))
    if encoding == "gzip":
        return gzip.decompress(content)
    return zlib.decompress(content) if encoding == "deflate" else content


def _when_stdin_ends(end: Callable[[], None]) -> None:
    sys.stdin.read()
    end()


def main() -> None:
    """Serve until SIGTERM, or until standard input ends where that was asked for."""
    parser = argparse.ArgumentParser(description="A stand-in for a ClickHouse server, for one machine.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--until-stdin-ends", action="store_true")
    options = parser.parse_args()
    engine = _Engine(options.folder.resolve(), options.config)
    server = _Server(options.port, engine, os.environ.pop(PASSWORD_VARIABLE, ""))

    def end(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if options.until_stdin_ends:
        # Whoever started it is gone, however it went: nobody else would end this process.
        threading.Thread(target=_when_stdin_ends, args=(end,), daemon=True).start()
    print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    engine.close()


if __name__ == "__main__":
    main()
