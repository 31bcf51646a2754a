"""The programs that ask: SDKs and tools as anybody has them, which wait until they are told to go.

They wait because the sensor is told to measure these processes and no others: `exec` keeps their pids.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import clients
from tests.e2e.reading import answers, realtime
from tests.e2e.reading.answers import Answer, Read
from tests.e2e.reading.server import Servers
from tests.sensor.capture.matrix.software import built_by_go

#: Machines in use take their time.
ENDS_WITHIN_S = 120
_HELD = ("sh", "-c", 'read -r _; exec "$@"', "sh")


@dataclass(frozen=True, slots=True)
class Client:
    """`answers` are all that the server says to it, over this version of HTTP.

    `sessions` is what the calls of its WebSocket sessions are to be read as, beside those. What `program`,
    `api` and `framing` say is for docs/coverage.md.
    """

    program: str
    api: str
    framing: str
    command: Callable[[Servers], list[str]]
    http: str
    answers: tuple[Answer, ...] = ()
    sessions: tuple[Read, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.program}, {self.api}"

    @property
    def read(self) -> tuple[Read, ...]:
        return (*(answer.read for answer in self.answers), *self.sessions)


class Held:
    """A client that waits to be let go."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [*_HELD, *command],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self) -> None:
        """Lets it go and waits for its end, which must be a good one."""
        output, _ = self._process.communicate(b"\n", timeout=ENDS_WITHIN_S)
        assert self._process.returncode == 0, output.decode(errors="replace")[-3000:]

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def environment(servers: Servers) -> dict[str, str]:
    """Whom to trust, and keys of nobody."""
    ca = str(servers.certificates.ca)
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "SSL_CERT_FILE": ca,
        "AWS_CA_BUNDLE": ca,
        "NODE_EXTRA_CA_CERTS": ca,
        "OPENAI_API_KEY": "sk-test",
        "ANTHROPIC_API_KEY": "sk-test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _python(script: str, *arguments: str) -> Callable[[Servers], list[str]]:
    return lambda servers: clients.python(script, servers.url, *arguments)


def _curl(host: str, path: str, *arguments: str) -> Callable[[Servers], list[str]]:
    """To the server as if it were the provider's own `host`."""

    def command(servers: Servers) -> list[str]:
        to_server = f"{host}:443:127.0.0.1:{servers.port}"
        trusting = ("--cacert", str(servers.certificates.ca))
        return [
            "curl",
            "-sSf",
            "-o",
            "/dev/null",
            *trusting,
            "--connect-to",
            to_server,
            *arguments,
            f"https://{host}{path}",
        ]

    return command


def _json(document: object) -> tuple[str, ...]:
    return ("-H", "Content-Type: application/json", "-d", json.dumps(document))


def _transcribing(servers: Servers) -> list[str]:
    """A recording of 300 KB, more than the windows of HTTP/2 hold at first."""
    recording = servers.folder / "recording.wav"
    recording.write_bytes(b"RIFF" + bytes(range(256)) * 1200)
    form = ("-F", "model=gpt-4o-mini-transcribe", "-F", f"file=@{recording};type=audio/wav")
    path = answers.TRANSCRIPTION.path
    return _curl("api.openai.com", path, "--http2", "-H", "Authorization: Bearer sk-test", *form)(servers)


def side_by_side(servers: Servers, rounds: int = 1) -> list[str]:
    """Two streams at a time; after each round but the last it waits for a line."""
    models = [answer.read.request_model for answer in answers.CONVERSE_SIDE_BY_SIDE]
    script = clients.FOLDER / "bedrock_http2.mjs"
    return [str(clients.NODE), str(script), servers.url, str(rounds), *models]


def xai(servers: Servers, rounds: int = 1) -> list[str]:
    """An answer and a stream; after each round but the last it waits for a line."""
    return clients.python("xai_grpc.py", f"127.0.0.1:{servers.port}", str(rounds))


def asking() -> Path:
    """clients/asking, by the Go of this machine."""
    return built_by_go("asking", clients.FOLDER / "asking")


def _go(servers: Servers) -> list[str]:
    models = [answer.read.request_model for answer in answers.GEMINI_SIDE_BY_SIDE]
    return [str(asking()), f"127.0.0.1:{servers.port}", str(servers.certificates.ca), *models]


ASKED = "Name a prime above nine."
TABLE = (
    Client(
        "openai", "OpenAI: chat, responses", "event streams, one of them zstd",
        _python("openai_sdk.py", "sync-stream", "1"), "1.1", (answers.CHAT, answers.RESPONSES),
    ),
    Client(
        "openai, usage not asked for", "OpenAI: chat", "an event stream without usage: estimated",
        _python("openai_sdk.py", "sync-unasked", "1"), "1.1", (answers.UNASKED,),
    ),
    Client(
        "openai, asyncio over HTTP/2", "OpenAI: chat", "two event streams at a time",
        _python("openai_sdk.py", "async-http2", "1"), "2.0", answers.CHAT_SIDE_BY_SIDE,
    ),
    Client(
        "openai, leaves in the middle", "OpenAI: chat", "an event stream that is cut off: estimated",
        _python("openai_sdk.py", "async-http2-cut", "1"), "2.0", (answers.CHAT_CUT,),
    ),
    Client(
        "anthropic, leaves in the middle", "Anthropic: messages",
        "an event stream that is cut off: output estimated",
        _python("anthropic_sdk.py", "sync-cut", "1"), "1.1", (answers.MESSAGES_CUT,),
    ),
    Client(
        "anthropic", "Anthropic: messages", "an event stream, brotli",
        _python("anthropic_sdk.py", "sync-stream", "1"), "1.1", (answers.MESSAGES,),
    ),
    Client(
        "boto3", "Bedrock: Converse, InvokeModel", "AWS event streams and a document",
        _python("bedrock_sdk.py"), "1.1",
        (answers.CONVERSE_STREAM, answers.INVOKE, answers.INVOKE_STREAM),
    ),
    Client(
        "node, http2", "Bedrock: Converse", "two AWS event streams at a time",
        side_by_side, "2.0", answers.CONVERSE_SIDE_BY_SIDE,
    ),
    Client(
        "grpcio", "xAI: chat", "gRPC: a message, a stream of gzip",
        xai, "2.0", (answers.XAI, answers.XAI_STREAM),
    ),
    Client(
        "websockets", "OpenAI: realtime", "WebSocket, deflated; a call for each response",
        lambda servers: clients.python("realtime.py", str(servers.realtime_port), str(len(realtime.READ))),
        "1.1", sessions=realtime.READ,
    ),
    Client(
        "curl", "Gemini: streamGenerateContent", "a JSON array as it grows, gzip",
        _curl(
            "generativelanguage.googleapis.com", answers.GEMINI.path, "--http2", "--compressed",
            "-H", "x-goog-api-key: test", *_json({"contents": [{"parts": [{"text": ASKED}]}]}),
        ),
        "2.0", (answers.GEMINI,),
    ),
    Client(
        "Go, net/http", "Gemini: streamGenerateContent", "two event streams at a time, gzip",
        _go, "2.0", answers.GEMINI_SIDE_BY_SIDE,
    ),
    Client(
        "curl", "Ollama: chat", "JSON lines",
        _curl(
            "ollama.com", answers.OLLAMA.path, "--http1.1",
            *_json({"model": "gpt-oss:20b", "messages": [{"role": "user", "content": ASKED}]}),
        ),
        "1.1", (answers.OLLAMA,),
    ),
    Client(
        "curl", "OpenAI: transcription", "a multipart form of 300 KB, answered by a document",
        _transcribing, "2.0", (answers.TRANSCRIPTION,),
    ),
)  # fmt: skip


@contextmanager
def held(servers: Servers) -> Iterator[dict[str, Held]]:
    """All clients of TABLE by name, waiting; whoever has not gone by the end of the block never will."""
    started = {client.name: Held(client.command(servers), environment(servers)) for client in TABLE}
    try:
        yield started
    finally:
        for process in started.values():
            process.end()
