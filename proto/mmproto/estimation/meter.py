"""Counts the tokens of text as it passes, keeping none of it beyond a bounded tail.

`TextMeter` goes by the characters. `TokenMeter` asks the tokenizer, which merges characters across the pieces
that a stream comes in: so text is held until there is enough of it, and cut where the tokenizer would cut
whatever followed. That is before a space that follows something visible: none of the pattern's alternatives
goes on over such a place (`ranks`). Text without one for `WINDOW` characters is cut there, at the cost of at
most a token. Where the cuts fall depends on the text alone, not on its pieces.
"""

from __future__ import annotations

from typing import Final, Protocol

from mmproto.estimation.tally import weigh
from mmproto.estimation.tokenizer import Tokenizer

WINDOW: Final = 4096  # characters held at most
# Beyond this many characters a text is weighed, by what its tokens weighed so far: a prompt of a million
# tokens must not hold up the others for a second.
MAX_TOKENISED: Final = 2 * 1024 * 1024


class Meter(Protocol):
    """What reads text."""

    def feed(self, text: str) -> None:
        """The text goes on."""

    def cut(self) -> None:
        """One text ends and another begins: a message, a field."""

    def tokens(self) -> float:
        """The tokens of all text so far."""


class TextMeter:
    """Weighs characters by their class."""

    __slots__ = ("_weight",)

    def __init__(self) -> None:
        self._weight = 0.0

    def feed(self, text: str) -> None:
        """See `Meter`."""
        self._weight += weigh(text)

    def cut(self) -> None:
        """Nothing: weights do not depend on where a text ends."""

    def tokens(self) -> float:
        """See `Meter`."""
        return self._weight

    def __repr__(self) -> str:
        return "TextMeter()"


class TokenMeter:
    """Counts by the tokenizer."""

    __slots__ = ("_count", "_held", "_pieces", "_read", "_rest", "_tokenizer", "_weight")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pieces: list[str] = []
        self._held = 0
        self._count = 0
        self._read = 0
        self._weight = 0.0  # of what was tokenised
        self._rest = 0.0  # weight of what came after MAX_TOKENISED

    def feed(self, text: str) -> None:
        """See `Meter`."""
        if self._read >= MAX_TOKENISED:
            self._rest += weigh(text)
            return
        self._pieces.append(text)
        self._held += len(text)
        if self._held > WINDOW:
            self._drain()

    def cut(self) -> None:
        """See `Meter`."""
        if self._pieces:
            self._take("".join(self._pieces))
            self._pieces.clear()
            self._held = 0

    def tokens(self) -> float:
        """See `Meter`. What is held counts as if the text ended here."""
        self.cut()
        ratio = self._count / self._weight if self._weight else 1.0
        return self._count + ratio * self._rest

    def _drain(self) -> None:
        text = "".join(self._pieces)
        start = 0
        while len(text) - start > WINDOW:
            end = text.rfind(" ", start + 1, start + WINDOW)
            while end > 0 and text[end - 1].isspace():
                end = text.rfind(" ", start + 1, end)
            end = end if end > 0 else start + WINDOW
            self._take(text[start:end])
            start = end
        self._pieces = [text[start:]]
        self._held = len(text) - start

    def _take(self, text: str) -> None:
        self._count += len(self._tokenizer.encode_ordinary(text))
        self._read += len(text)
        self._weight += weigh(text)

    def __repr__(self) -> str:
        return "TokenMeter()"
