"""Counting text as it passes: any split gives the same count, offline, and nothing of it is ever shown."""

from __future__ import annotations

import itertools
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmproto.estimation import ranks, tokenizer
from mmproto.estimation.meter import WINDOW, TextMeter, TokenMeter
from mmproto.estimation.scanner import OTHERS, TextScanner
from mmproto.estimation.tally import weigh
from mmproto.estimation.texts import AnswerText, RequestText

TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n\t'a1.中")), max_size=200)
KEYS = (b"content", b"input")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def loaded() -> tokenizer.Tokenizer:
    found = tokenizer.load()
    assert found is not None
    return found


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not loaded the tokenizer."""
    registry = pytest.importorskip("tiktoken.registry")
    monkeypatch.setattr(tokenizer, "_loaded", None)
    monkeypatch.setattr(tokenizer, "_tried", False)
    monkeypatch.setattr(registry, "ENCODINGS", {})


@pytest.mark.usefixtures("no_network", "forgotten")
def test_the_tokenizer_needs_no_network() -> None:
    assert loaded().encode_ordinary("hello world") == [24912, 2375]


@pytest.mark.usefixtures("no_network", "forgotten")
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_unusable_ranks_are_said_once(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "ranks"
    content = ranks.FILE.read_bytes()
    if damage != "missing":
        file.write_bytes(content[:-5] if damage == "cut" else b"A" + content[1:])
    monkeypatch.setattr(ranks.read, "__defaults__", (file,))
    with caplog.at_level(logging.WARNING):
        assert tokenizer.load() is None
        assert tokenizer.load() is None
    assert len(caplog.records) == 1
    assert "token estimates go by characters" in caplog.text
    assert file.exists() is (damage != "missing")  # it is nobody's to delete


@given(st.lists(TEXTS, max_size=30))
def test_any_split_counts_the_same(pieces: list[str]) -> None:
    text = "".join(pieces)
    whole, split = TokenMeter(loaded()), TokenMeter(loaded())
    whole.feed(text)
    for piece in pieces:
        split.feed(piece)
    assert whole.tokens() == split.tokens()
    assert sum(map(weigh, pieces)) == pytest.approx(weigh(text))


@pytest.mark.parametrize(
    "text",
    ["It's a plain text, with 12345 numbers.\n\n  And   spaces " * 700, "def f(x):\n\treturn x\n\n" * 900],
)
def test_cuts_change_nothing_where_there_are_spaces(text: str) -> None:
    meter = TokenMeter(loaded())
    for start in range(0, len(text), 7):
        meter.feed(text[start : start + 7])
        assert meter._held <= WINDOW + 7
    assert meter.tokens() == len(loaded().encode_ordinary(text))


def test_text_without_a_space_is_cut_and_bounded() -> None:
    text = "长文本" * 5000
    meter = TokenMeter(loaded())
    meter.feed(text)
    assert abs(meter.tokens() - len(loaded().encode_ordinary(text))) <= len(text) // WINDOW + 1
    assert meter._held <= WINDOW


VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["content", "input", "other", "role"]), inner, max_size=4),
    ),
    max_leaves=12,
)


def strings_under(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from strings_under(inner, name)
    elif isinstance(value, str) and key in ("content", "input"):
        yield value
    elif isinstance(value, list):
        # Strings of an array count up to its first element that is none.
        for inner in value:
            if not isinstance(inner, str):
                break
            yield from strings_under(inner, key)
        for inner in value:
            if isinstance(inner, dict | list):
                yield from strings_under(inner)


@given(VALUES, st.booleans(), st.lists(st.integers(0, 2000), max_size=8))
def test_a_scanner_finds_the_text_of_a_document_however_it_is_split(
    document: Any, ascii_only: bool, cuts: list[int]
) -> None:
    data = json.dumps(document, ensure_ascii=ascii_only).encode()
    meter = TextMeter()
    scanner = TextScanner(KEYS, meter, marks=(b"role",))
    places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    for start, end in itertools.pairwise(places):
        scanner.feed(data[start:end])
    assert meter.tokens() == pytest.approx(sum(map(weigh, strings_under(document))))
    assert OTHERS in scanner.found


@pytest.mark.parametrize("size", [100, 70_000, 300_000])
def test_requests_of_any_size_and_split(size: int) -> None:
    text = "some words of a prompt " * (size // 23)
    data = json.dumps({"messages": [{"role": "user", "content": text}], "tools": []}).encode()
    counts = set()
    for step in (len(data), 16_384, 997):
        request = RequestText((b"content",))
        for start in range(0, len(data), step):
            request.feed(data[start : start + step])
        request.end(loaded())
        counts.add(round(request.tokens(), 3))
        assert request.found[b"role"] == request.found[b"tools"] == 1
    assert len(counts) == 1
    assert counts.pop() == pytest.approx(len(loaded().encode_ordinary(text)), rel=0.01)


def test_a_sample_of_a_long_stream_stands_for_it() -> None:
    events = [b'data: {"content":"word number %d "}\n\n' % number for number in range(10_000)]
    sampled = AnswerText((b"content",), None, streamed=True)
    whole = AnswerText((b"content",), None, streamed=False)
    for event in events:
        sampled.feed(event)
        whole.feed(event)
    assert sampled.tokens() == pytest.approx(whole.tokens(), rel=0.05)


def test_nothing_of_a_text_is_shown() -> None:
    meter = TokenMeter(loaded())
    meter.feed("secret")
    request, answer = RequestText(KEYS), AnswerText(KEYS, None, streamed=True)
    request.feed(b'{"content":"secret"}')
    answer.feed(b'{"content":"secret"}')
    scanner = TextScanner(KEYS, meter)
    scanner.feed(b'{"content":"secret')
    assert not any("secret" in repr(each) for each in (meter, request, answer, scanner))
