"""Connections and streams that go over to WebSocket: a session's calls come out as they are completed."""

from __future__ import annotations

from typing import Any

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto import wire
from tests.proto.http2_pair import PREFACE, READ, WRITE, Step, frame
from tests.proto.test_reader_http2 import names, plain, run
from websockets.frames import Frame, Opcode

from mmproto.exchange import Recognised
from mmproto.reader import ConnectionReader, Verdict

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def asked(host: str, path: str) -> bytes:
    return wire.request(host, path, method="GET", headers={"Connection": "Upgrade", "Upgrade": "websocket"})


def message(document: Any, *, by_client: bool = False) -> bytes:
    return Frame(Opcode.TEXT, wire.dump(document)).serialize(mask=by_client)


def done(number: int) -> dict[str, Any]:
    """The last event of a response: input 100 + n, output n."""
    usage = {"input_tokens": 100 + number, "output_tokens": number, "total_tokens": 100 + 2 * number}
    response = {
        "id": f"resp_TeStOnLyAbCdEfGhI{number:04}",
        "object": "realtime.response",
        "status": "completed",
        "output": [],
        "usage": usage,
    }
    return {"type": "response.done", "response": response}


SESSION: list[Step] = [
    (READ, message({"type": "session.created", "session": {"model": "gpt-realtime-test"}})),
    (WRITE, message({"type": "response.create"}, by_client=True)),
    (READ, message({"type": "session.updated", "session": {}}) + message(done(1))),
    (WRITE, message({"type": "response.create"}, by_client=True)),
    (READ, message(done(2))),
]
OVER_HTTP1: list[Step] = [
    (WRITE, asked("api.openai.com", "/v1/realtime?model=gpt-realtime-test")),
    (READ, SWITCHING + SESSION[0][1]),
    *SESSION[1:],
]


def over_http2(path: str = "/v1/realtime?model=gpt-realtime-test", status: str = "200") -> list[Step]:
    """The same on a stream of HTTP/2, opened by an extended CONNECT (RFC 8441)."""
    client, server = hpack.Encoder(), hpack.Encoder()
    fields = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":path": path}
    opening = client.encode(list({**fields, ":authority": "api.openai.com"}.items()))
    steps = [
        (WRITE, PREFACE + frame(4, 0, b"") + frame(1, 4, opening, stream=1)),
        (READ, frame(4, 0, b"\x00\x08\x00\x00\x00\x01") + frame(4, 1, b"")),
        (READ, frame(1, 4, server.encode([(":status", status)]), stream=1)),
    ]
    steps += [(side, frame(0, 0, data, stream=1)) for side, data in SESSION]
    return [*steps, (WRITE, frame(0, 1, b"", stream=1)), (READ, frame(0, 1, b"", stream=1))]


@pytest.mark.parametrize("steps", [OVER_HTTP1, over_http2()], ids=["HTTP/1.1", "HTTP/2"])
@given(sizes=st.lists(st.integers(1, 300), max_size=8), rest=st.integers(1, 2000))
def test_a_session(steps: list[Step], sizes: list[int], rest: int) -> None:
    outcomes = run(steps, [*sizes, rest])
    assert plain(outcomes) == plain(run(steps, [1 << 30]))
    assert names(outcomes) == ["call", "call", "counted_in_portions"]
    counts = [dict(o.call.usage.tokens) for o in outcomes if isinstance(o, Recognised)]
    assert counts == [{"input": 101, "output": 1}, {"input": 102, "output": 2}]


@pytest.mark.parametrize("steps", [OVER_HTTP1, over_http2()[:-2]], ids=["HTTP/1.1", "HTTP/2"])
def test_calls_come_while_the_session_goes_on(steps: list[Step]) -> None:
    reader = ConnectionReader(wire.RULES, "c")
    told = [len(reader.feed(direction, data, 1)) for direction, data in steps]
    assert told[-3:] == [1, 0, 1]
    assert (reader.verdict, reader.open_exchanges) == (Verdict.LLM, 1)
    assert names(reader.close(2)) == ["counted_in_portions"]
    assert reader.open_exchanges == 0


@pytest.mark.parametrize("over_2", [False, True])
def test_a_gap_in_a_session_loses_no_other_call(over_2: bool) -> None:
    steps = over_http2()[:-2] if over_2 else OVER_HTTP1
    first = next(i for i, (_, data) in enumerate(steps) if b"response.done" in data)
    reader = ConnectionReader(wire.RULES, "c")
    outcomes = [o for direction, data in steps[:first] for o in reader.feed(direction, data, 1)]
    outcomes += reader.gap(READ, len(steps[first][1]), 1)
    # The next messages are found by their looks, of which it takes several.
    more = [(READ, data) for side, data in steps[first + 1 :] if side is READ] * 3
    outcomes += [o for direction, data in more for o in reader.feed(direction, data, 1)]
    counts = [dict(o.call.usage.tokens) for o in outcomes if isinstance(o, Recognised)]
    assert all(count == {"input": 102, "output": 2} for count in counts)


def test_an_upgrade_that_is_none_of_ours() -> None:
    steps = [(WRITE, asked("example.com", "/chat")), (READ, SWITCHING), (READ, b"\x81\x05hello")]
    reader = ConnectionReader(wire.RULES, "c")
    outcomes = [o for direction, data in steps for o in reader.feed(direction, data, 1)]
    assert names(outcomes) == ["not_llm"]
    assert reader.verdict is Verdict.NOT_LLM


def test_an_upgrade_in_place_of_an_answer() -> None:
    """What was asked for in HTTP and answered by another protocol cannot be known."""
    steps = [
        (WRITE, wire.request("api.openai.com", "/v1/chat/completions", wire.chat_request())),
        (READ, SWITCHING + b"\x81\x05hello"),
    ]
    assert names(run(steps, [1 << 30])) == ["protocol_upgraded"]


def test_a_session_that_is_refused() -> None:
    body = frame(0, 1, wire.dump({"error": {"type": "invalid_request_error"}}), stream=1)
    outcomes = run([*over_http2(status="403")[:3], (READ, body)], [1 << 30])
    assert names(outcomes) == ["call invalid_request_error"]
    assert isinstance(outcomes[0], Recognised)
    assert not outcomes[0].call.billable
