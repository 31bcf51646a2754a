"""The loop: from stream events to calls in a file, with an account that balances whatever comes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmproto.exchange import ReadingRules
from mmproto.reader import Direction
from mmproto.settings import load
from mmproto.v1.call_pb2 import Call
from mmsensor.attribution.rules import Attribution
from mmsensor.config import AttributionSettings
from mmsensor.daemon import Daemon, LoopOptions
from mmsensor.emit.jsonl import JsonLinesSink
from mmsensor.ledger import Account, Ledger
from mmsensor.streams.events import Bytes, Gap, Opened, Sni, StreamEvent
from tests.proto.http2_pair import Pair
from tests.sensor.daemon.wire import NOW, Recording, Stream, key, request, response

ID = "AbCdEfGhIjKlMnOpQrSt%03d"


class Bench:
    """A daemon on recorded events, with its output."""

    def __init__(self, folder: Path, rounds: list[list[StreamEvent]], **options: Any) -> None:
        self.path = folder / "calls.jsonl"
        self.source = Recording(rounds)
        rules = options.pop("rules", [])
        attribution = Attribution(load(AttributionSettings, [], {}, {"rules": rules}).rules)
        reading = options.pop("reading", None) or ReadingRules(
            keep_headers=attribution.headers, hash_key=lambda text: f"hash-of-{len(text)}"
        )
        sink = JsonLinesSink(options.pop("target", str(self.path)))
        self.daemon = Daemon(
            LoopOptions("node-1", "boot-1", **options),
            self.source,
            sink,
            reading,
            attribution,
            unix_ns=lambda: NOW,
        )

    def run(self) -> Account:
        self.daemon.run(lambda: not self.source.rounds, lambda: None)
        self.daemon.sink.close()
        return self.account()

    def account(self) -> Account:
        account = self.daemon.ledger.account()
        assert account.balanced, account
        return account

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def test_a_call_is_recognised_attributed_and_emitted(tmp_path: Path) -> None:
    stream = Stream().write(request(headers="Authorization: Bearer sk-1\r\nX-Team: green\r\n"))
    stream.read(response(ID % 1)).close()
    rules = [{"match": {"provider": "openai", "header": {"x-team": "*"}}, "set": {"team": "{header.x-team}"}}]
    bench = Bench(tmp_path, [stream.events], rules=rules)
    account = bench.run()
    assert (account.captured, account.emitted, account.open, account.queued) == (1, 1, 0, 0)
    (call,) = bench.calls
    assert call["provider"] == "openai"
    assert (call["usage"]["input_tokens"], call["usage"]["output_tokens"]) == (9, 21)
    assert (call["observer"], call["node"], call["team"]) == ("sensor", "node-1", "green")
    assert call["process"]["pid"] == key().pid
    assert "exe" not in call["process"], "the process is gone: nothing is invented"
    assert call["origin"]["api_key_hash"].startswith("hash-of-")
    assert "sk-1" not in bench.path.read_text()
    assert bench.source.verdicts == {key(): True}


@pytest.mark.parametrize(
    ("stream", "dropped", "failed", "verdict"),
    [
        (Stream().write(b"\x16\x03\x01 not http at all\r\n"), {"not_http": 1}, {}, False),
        (Stream().write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nno frame"), {}, {}, None),
        (Stream().write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nno frame."), {}, {"malformed_http2": 1}, False),
        (Stream().read(request()), {"server_side": 1}, {}, False),
        (Stream().write(request("/nothing")).read(response(ID % 1)), {"not_an_operation": 1}, {}, None),
        (
            Stream().write(request()).read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{x}"),
            {},
            {"malformed_json": 1},
            True,
        ),
        (Stream(late=True).read(b"x" * 50), {"joined_late": 1}, {}, None),
    ],
)
def test_what_is_no_call_has_a_reason(
    tmp_path: Path, stream: Stream, dropped: dict[str, int], failed: dict[str, int], verdict: bool | None
) -> None:
    bench = Bench(tmp_path, [stream.close().events])
    account = bench.run()
    assert (account.emitted, account.dropped, account.failed) == (0, dropped, failed)
    assert bench.source.verdicts.get(stream.key) is verdict


def test_bad_neighbours_spoil_nothing(tmp_path: Path) -> None:
    """Garbage, foreign and truncated connections between good ones, all interleaved."""
    streams = [Stream(1).write(request()).read(response(ID % 1)).close()]
    streams.append(Stream(2).write(b"\x00\xff" * 500).close())
    streams.append(Stream(3).write(request()).read(response(ID % 3)[:90]).close())
    streams.append(Stream(4).write(request()).read(response(ID % 4)).close())
    streams.append(Stream(5).read(request()).write(response(ID % 5)).close())
    longest = max(len(stream.events) for stream in streams)
    mixed = [s.events[i] for i in range(longest) for s in streams if i < len(s.events)]
    bench = Bench(tmp_path, [mixed])
    account = bench.run()
    complete = [call for call in bench.calls if "error_type" not in call]
    assert [call["response_id"] for call in complete] == [f"chatcmpl-{ID % 1}", f"chatcmpl-{ID % 4}"]
    cut = [call for call in bench.calls if "error_type" in call]
    assert all(call["usage"]["quality"] != "EXACT" for call in cut), "what is not known is not called so"
    assert account.captured == 5


def test_calls_over_http2_of_a_connection_that_was_open_before(tmp_path: Path) -> None:
    pair = Pair()
    for number in (1, 2, 3):
        path = "/v1/chat/completions" if number == 2 else "/gateway/v1/chat/completions"
        asked = pair.ask({"model": "gpt-test", "messages": []}, path=path)
        answer = {"id": f"chatcmpl-{ID % number}", "object": "chat.completion", "model": "gpt-test"}
        usage = {"prompt_tokens": 9, "completion_tokens": number, "total_tokens": 9 + number}
        pair.answer(asked, {**answer, "choices": [], "usage": usage})
        if number == 1:
            seen = len(pair.steps)
    stream = Stream(late=True)
    stream.events.append(Sni(stream.key, "api.openai.com"))
    for direction, data in pair.steps[seen:]:
        (stream.write if direction is Direction.WRITE else stream.read)(data)
    bench = Bench(tmp_path, [stream.close().events])
    account = bench.run()
    assert (account.emitted, account.dropped, account.failed) == (1, {}, {"hpack_unresolved": 1})
    (call,) = bench.calls
    assert (call["host"], call["usage"]["output_tokens"]) == ("api.openai.com", 2)


def test_a_gap_is_counted_and_the_next_call_is_read(tmp_path: Path) -> None:
    stream = Stream().write(request())
    stream.events.append(Gap(stream.key, Direction.READ, 0, 700, NOW))
    stream.write(request()).read(response(ID % 2)).close()
    bench = Bench(tmp_path, [stream.events])
    account = bench.run()
    assert account.captured == 2
    assert [call.get("response_id") for call in bench.calls if call["usage"]["quality"] == "EXACT"] == [
        f"chatcmpl-{ID % 2}"
    ]
    statistics = bench.daemon.connections.statistics()
    assert (statistics.gaps, statistics.gap_bytes) == (1, 700)


def test_weak_ids_come_from_node_boot_connection_and_offset(tmp_path: Path) -> None:
    def ids(stream: Stream, folder: str) -> list[str]:
        (tmp_path / folder).mkdir()
        bench = Bench(tmp_path / folder, [stream.close().events])
        bench.run()
        return [call["id"] for call in bench.calls]

    def two_calls(number: int) -> Stream:
        stream = Stream(number)
        for _ in range(2):
            stream.write(request()).read(response("123"))
        return stream

    first = ids(two_calls(1), "a")
    assert len(set(first)) == 2
    assert ids(two_calls(1), "b") == first, "the same bytes of the same connection are the same calls"
    assert not set(ids(two_calls(2), "c")) & set(first)


def test_calls_that_the_sink_refuses_are_dropped_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = [e for n in range(5) for e in Stream(n).write(request()).read(response(ID % n)).close().events]
    bench = Bench(tmp_path, [events], target="/dev/full", batch_records=2)
    with caplog.at_level(logging.ERROR):
        account = bench.run()
    assert (account.captured, account.emitted, account.dropped) == (5, 0, {"sink_failed": 5})
    assert caplog.text.count("calls are dropped and counted as sink_failed") == 1


def test_a_batch_waits_for_its_size_or_its_time(tmp_path: Path) -> None:
    now = 0.0
    rounds = [Stream(n).write(request()).read(response(ID % n)).close().events for n in range(4)]
    bench = Bench(tmp_path, rounds, batch_records=3, batch_s=10.0)
    clock: Callable[[], float] = lambda: now  # noqa: E731
    bench.daemon._clock = clock
    queued = []
    for _ in range(4):
        bench.daemon.turn(0)
        queued.append((bench.account().queued, bench.account().emitted))
    assert queued == [(1, 0), (2, 0), (0, 3), (1, 3)]
    now = 10.0
    bench.daemon.turn(0)
    assert (bench.account().queued, bench.account().emitted) == (0, 4)


def test_what_is_open_is_shown_apart_and_settled_at_the_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [Stream().write(request()).events])
    bench.daemon.turn(0)
    assert (bench.account().captured, bench.account().open) == (0, 1)
    bench.daemon.finish()
    assert (bench.account().captured, bench.account().open) == (1, 0)


def test_more_connections_than_are_followed(tmp_path: Path) -> None:
    streams = [Stream(number).write(request()) for number in range(6)]
    opened = [event for stream in streams for event in stream.events]
    answers = [stream.read(response(ID % n)).events[-1] for n, stream in enumerate(streams)]
    bench = Bench(tmp_path, [opened, answers], max_connections=4)
    account = bench.run()
    statistics = bench.daemon.connections.statistics()
    assert statistics.evicted >= 2
    assert statistics.followed == 0
    assert account.captured >= 6
    complete = {call["response_id"] for call in bench.calls if call["usage"]["quality"] == "EXACT"}
    assert len(complete) <= 4


def test_an_exception_in_one_connection_stays_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def hash_key(text: str) -> str:
        if "bad" in text:
            raise RuntimeError(f"cannot hash {text}")
        return "hash"

    good = Stream(1).write(request(headers="Authorization: Bearer good\r\n")).read(response(ID % 1))
    bad = [
        Stream(n).write(request(headers="Authorization: Bearer bad-secret\r\n")).read(response(ID % n))
        for n in (2, 3)
    ]
    events = [event for stream in (*bad, good) for event in stream.close().events]
    bench = Bench(tmp_path, [events], reading=ReadingRules(hash_key=hash_key))
    with caplog.at_level(logging.ERROR):
        account = bench.run()
    assert (account.emitted, account.failed) == (1, {"internal_error": 2})
    assert bench.source.verdicts[key(2)] is False
    assert sum(bench.daemon.connections.statistics().errors.values()) == 2
    assert caplog.text.count("internal error") == 1
    assert "secret" not in caplog.text


_PIECES = st.sampled_from(
    [
        request(),
        request("/other"),
        response(ID % 1),
        response("1")[:40],
        b"\x00" * 30,
        b"GET / HTTP/1.1\r\n",
        b"\r\n",
        b"HTTP/1.1 101 x\r\n\r\n",
        b"{",
        b"PRI * HTTP/2.0\r\n\r\n",
    ]
)
_EVENTS = st.one_of(
    st.builds(Opened, st.builds(key, st.integers(1, 3)), st.just(NOW), st.booleans()),
    st.builds(
        Bytes,
        st.builds(key, st.integers(1, 3)),
        st.sampled_from(Direction),
        st.just(0),
        _PIECES,
        st.just(NOW),
    ),
    st.builds(
        Gap,
        st.builds(key, st.integers(1, 3)),
        st.sampled_from(Direction),
        st.just(0),
        st.just(9),
        st.just(NOW),
    ),
    st.builds(Sni, st.builds(key, st.integers(1, 3)), st.just("api.openai.com")),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(_EVENTS, max_size=6), max_size=5))
def test_the_account_balances_after_any_round_of_any_events(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[StreamEvent]]
) -> None:
    bench = Bench(tmp_path_factory.mktemp("loop"), rounds, max_connections=2)
    for _ in range(len(rounds)):
        bench.daemon.turn(0)
        account = bench.account()
        assert account.open >= 0
        assert "internal_error" not in account.failed
    account = bench.run()
    assert (account.open, account.queued) == (0, 0)
    assert account.emitted == len(bench.calls)


def test_reasons_do_not_grow_without_end() -> None:
    ledger = Ledger()
    for number in range(1000):
        ledger.dropped(f"reason-{number}")
    account = ledger.account()
    assert account.balanced
    assert (len(account.dropped), account.captured) == (65, 1000)


def test_a_call_that_cannot_be_attributed_is_counted(tmp_path: Path) -> None:
    class Broken(Attribution):
        def apply(self, call: Call, headers: object) -> None:
            raise RuntimeError

    bench = Bench(tmp_path, [Stream().write(request()).read(response(ID % 1)).close().events])
    bench.daemon._attribution = Broken([])
    assert bench.run().failed == {"internal_error": 1}
