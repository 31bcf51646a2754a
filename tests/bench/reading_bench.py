"""What it costs to read an exchange: `python -m tests.bench.reading_bench [--rounds N] [--only WORD]`.

Every case is an exchange as the bytes that a process wrote and read: the reader of a new connection is given
them piece by piece, and the call that comes out has to be right. The floor is `json.loads` of the same
documents, each of them once, with no connection around them: what a reader that keeps whole bodies would pay
on top. Cases and floors are measured by turns in one run; the figures are medians of CPU time.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from mmproto.exchange import ReadingRules, Recognised
from mmproto.reader import ConnectionReader
from mmproto.score import coding
from mmproto.score.http1 import Turn
from mmproto.usage import input_tokens
from tests.bench import reading_cases as made
from tests.bench import reading_wire as written
from tests.bench.reading_cases import Said

_AT: Final = 1_700_000_000_000_000_000
_RULES: Final = ReadingRules()
# How long a case is measured in each round.
_SLICE_S: Final = 0.03
# Name of a case, the figure, and what it may be at most (us) or must be at least (MB/s).
_TARGETS: Final = (
    ("2 KB chat", "us", 150.0),
    ("SSE of 500 chunks", "us", 3000.0),
    ("4 MB response", "MB/s", 100.0),
    ("4 MB request", "MB/s", 100.0),
    ("4 MB response, chunked", "MB/s", 100.0),
    ("4 MB response, HTTP/2", "MB/s", 100.0),
    ("4 MB of embeddings", "MB/s", 100.0),
)


@dataclass(frozen=True)
class Case:
    """One exchange. `size` is what its bodies hold, before any coding."""

    name: str
    turns: tuple[Turn, ...]
    documents: tuple[bytes, ...]
    size: int


def cases() -> Iterator[Case]:
    """All cases: by framing and coding, large bodies, by dialect."""
    chat, stream = made.chat(), made.chat_stream()
    yield _case("2 KB chat", chat)
    yield _case("2 KB chat, chunked", chat, framing="chunked")
    yield _case("2 KB chat, HTTP/2", chat, framing="h2")
    for codec in coding.CODINGS[1:]:
        yield _case(f"2 KB chat, {codec}", chat, codec)
    yield _case("SSE of 500 chunks", stream, framing="chunked")
    yield _case("SSE of 500 chunks, HTTP/2", stream, framing="h2")
    yield _case("SSE of 500 chunks, gzip", stream, "gzip", "chunked")
    yield _case("NDJSON of 500 lines", made.ollama_stream(), framing="chunked")
    yield _case("JSON array of 500 items", made.gemini_array(), framing="chunked")
    yield _case("AWS event stream of 500 frames", made.converse_stream(), framing="chunked")
    yield _case("WebSocket of 500 messages", made.realtime(), framing="websocket")
    yield _case("WebSocket of 500 messages, deflate", made.realtime(), "deflate", "websocket")
    large = made.chat(answered=4 * made.MB)
    yield _case("4 MB response", large)
    yield _case("4 MB response, chunked", large, framing="chunked")
    yield _case("4 MB response, HTTP/2", large, framing="h2")
    for codec in coding.CODINGS[1:]:
        yield _case(f"4 MB response, {codec}", large, codec)
    yield _case("4 MB request", made.chat(asked=4 * made.MB))
    yield _case("4 MB of embeddings", made.embeddings(4 * made.MB))
    yield _case("openai.responses", made.responses())
    yield _case("anthropic.messages", made.messages())
    yield _case("anthropic.messages, SSE of 500", made.messages_stream(), framing="chunked")
    yield _case("gemini", made.gemini())
    yield _case("gemini, SSE of 500", made.gemini_stream(), framing="chunked")
    yield _case("bedrock.converse", made.converse())
    yield _case("cohere.v2", made.cohere())
    yield _case("ollama", made.ollama())


def _case(name: str, said: Said, codec: str = coding.IDENTITY, framing: str = "length") -> Case:
    if framing == "websocket":
        turns = written.websocket_turns(said, codec)
    elif framing == "h2":
        turns = written.http2_turns(said, codec)
    else:
        turns = written.http1_turns(said, codec, framing)
    record = said.record
    bodies = len(record.request_body) + len(record.response_body)
    size = sum(len(message.data) for message in record.messages) or bodies
    return Case(name, tuple(turns), said.documents, size)


def read(case: Case) -> int | None:
    """Reads the exchange on a new connection; the input tokens of its call, None where none came out."""
    reader = ConnectionReader(_RULES, "bench")
    outcomes = []
    for direction, data in case.turns:
        outcomes += reader.feed(direction, data, _AT)
    outcomes += reader.close(_AT)
    calls = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
    return input_tokens(calls[0].usage.tokens) if len(calls) == 1 else None


def floor(case: Case) -> None:
    """Parses what the exchange says, and nothing else."""
    for document in case.documents:
        json.loads(document)


def _per_call(work: Callable[[Case], object], case: Case) -> float:
    """Seconds of CPU for one call of `work`, over a slice of time."""
    calls, started = 0, time.thread_time()
    while True:
        work(case)
        calls += 1
        elapsed = time.thread_time() - started
        if elapsed >= _SLICE_S:
            return elapsed / calls


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    options = parser.parse_args()
    chosen = [case for case in cases() if options.only in case.name]
    for case in chosen:
        found = read(case)
        if found != made.INPUT:
            sys.exit(f"{case.name}: read as {found} input tokens instead of {made.INPUT}")
    gc.freeze()
    times: dict[str, tuple[list[float], list[float]]] = {case.name: ([], []) for case in chosen}
    for _ in range(options.rounds):
        for case in chosen:
            ours, theirs = times[case.name]
            ours.append(_per_call(read, case))
            theirs.append(_per_call(floor, case))
    _report(chosen, {name: (statistics.median(a), statistics.median(b)) for name, (a, b) in times.items()})


def _report(chosen: list[Case], medians: dict[str, tuple[float, float]]) -> None:
    print(f"{'':36}{'us':>10}{'MB/s':>8}{'floor us':>10}{'ratio':>7}")
    for case in chosen:
        ours, theirs = medians[case.name]
        rate = case.size / ours / 1e6
        print(f"{case.name:36}{ours * 1e6:10.1f}{rate:8.1f}{theirs * 1e6:10.1f}{ours / theirs:7.2f}")
    by_name = {case.name: case for case in chosen}
    for name, unit, bound in _TARGETS:
        if name in by_name:
            ours, _ = medians[name]
            figure = ours * 1e6 if unit == "us" else by_name[name].size / ours / 1e6
            reached = figure < bound if unit == "us" else figure > bound
            sign = "<" if unit == "us" else ">"
            print(
                f"target {name}: {figure:.1f} {unit}, {sign} {bound:g}: {'reached' if reached else 'MISSED'}"
            )


if __name__ == "__main__":
    main()
