"""The text of one request and of its answer, measured as they pass.

Most exchanges report their usage and need none of this, so it must cost next to nothing: bytes are put aside
up to a bound and only looked at when the bound is reached or an estimate is wanted. Nothing is kept once its
text has been measured.
"""

from __future__ import annotations

from typing import Final

from mmproto.estimation.meter import Meter, TextMeter, TokenMeter
from mmproto.estimation.places import ADDED, MARKS
from mmproto.estimation.scanner import TextScanner
from mmproto.estimation.tokenizer import Tokenizer

# Bytes put aside: of a request until it is complete, of an answer until they are measured.
MAX_HELD: Final = 64 * 1024
# Bytes that are measured at once: measuring copies them some times.
BLOCK: Final = 16 * 1024
# Of a stream that will most likely tell its usage, the bytes of each MAX_HELD that stand for the others.
SAMPLE: Final = 8 * 1024


class RequestText:
    """What a request asks for: its text, its messages, its typed things, whether it has more."""

    __slots__ = ("_held", "_keys", "_ratio", "_scanner", "_weigher", "found", "size")

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._keys = keys
        self._held: list[bytes] = []
        self._weigher: Meter = TextMeter()
        self._scanner = TextScanner(keys, self._weigher, marks=MARKS, others=ADDED)
        self._ratio = 1.0
        self.found = self._scanner.found  # how often each of MARKS was there
        self.size = 0  # bytes of it

    def feed(self, data: bytes) -> None:
        """The next bytes of the body."""
        before, self.size = self.size, self.size + len(data)
        if self.size <= MAX_HELD:
            self._held.append(data)
            return
        if before <= MAX_HELD:
            # What came first is kept until the end: the tokenizer may be asked about it.
            for held in self._held:
                _measure(self._scanner, held)
            self._held.append(data[: MAX_HELD - before])
        _measure(self._scanner, data)

    def end(self, tokenizer: Tokenizer | None) -> None:
        """The body is complete. With a tokenizer it is tokenised, or its beginning where it is long."""
        if self.size <= MAX_HELD:
            _measure(self._scanner, b"".join(self._held))
        if tokenizer is not None and self._held:
            # What its tokens come to for each one weighed.
            counted, weighed = TokenMeter(tokenizer), TextMeter()
            beginning = b"".join(self._held)
            TextScanner(self._keys, counted).feed(beginning)
            TextScanner(self._keys, weighed).feed(beginning)
            if weighed.tokens():
                self._ratio = counted.tokens() / weighed.tokens()
        self._held.clear()

    def tokens(self) -> float:
        """The tokens of the text, by o200k_base."""
        return self._ratio * self._weigher.tokens()

    def __repr__(self) -> str:
        return "RequestText()"


class AnswerText:
    """The text of an answer, in whole events or in any pieces of a document.

    Without a tokenizer, numbers are expected from the provider: so of a long stream a part stands for all.
    """

    __slots__ = (
        "_held",
        "_keys",
        "_measured",
        "_meter",
        "_samples",
        "_scanner",
        "_unmeasured",
        "_waiting",
        "size",
    )

    def __init__(self, keys: tuple[bytes, ...], tokenizer: Tokenizer | None, *, streamed: bool) -> None:
        self._keys = keys
        self._meter: Meter = TokenMeter(tokenizer) if tokenizer is not None else TextMeter()
        self._scanner = TextScanner(keys, self._meter, flowing=True)
        self._samples = streamed and tokenizer is None
        self._measured = False  # some of it is
        self._held: list[bytes] = []
        self._waiting = 0
        self._unmeasured = 0.0  # tokens of what a sample stood for
        self.size = 0  # bytes of it

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        self._held.append(data)
        self.size += len(data)
        self._waiting += len(data)
        if self._waiting >= MAX_HELD:
            if self._samples:
                self._sample()
            else:
                self._drain()

    def tokenise(self, tokenizer: Tokenizer) -> None:
        """The request, seen late, foretells no usage: counts by the tokenizer, if nothing was counted yet."""
        if not self._measured:
            self._meter = TokenMeter(tokenizer)
            self._scanner = TextScanner(self._keys, self._meter, flowing=True)
            self._samples = False

    def lose(self) -> None:
        """Bytes are missing here."""
        self._drain()
        self._scanner.lose()

    def tokens(self) -> float:
        """The tokens of the text so far, by o200k_base."""
        self._drain()
        return self._meter.tokens() + self._unmeasured

    def _sample(self) -> None:
        self._measured = True
        sample = b"".join(self._held)[:SAMPLE]
        before = self._meter.tokens()
        self._scanner.feed(sample)
        self._scanner.lose()
        self._unmeasured += (self._meter.tokens() - before) * (self._waiting / len(sample) - 1)
        self._held.clear()
        self._waiting = 0

    def _drain(self) -> None:
        self._measured = self._measured or bool(self._held)
        _measure(self._scanner, b"".join(self._held))
        self._held.clear()
        self._waiting = 0

    def __repr__(self) -> str:
        return "AnswerText()"


def _measure(scanner: TextScanner, data: bytes) -> None:
    for start in range(0, len(data), BLOCK):
        scanner.feed(data[start : start + BLOCK])
