"""What the pipeline says about budgets and prices, as text and as values, and its copy on this machine.

The copy is what a router that starts while the pipeline is away goes by. It is written whole and renamed
into place, so a crash leaves the old one or the new one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from mmproto.callform import parse_time
from mmproto.ratebook import RateBook
from mmrouter.policy.ledger import NOTHING, Budget, Entry, Place, Reflected, Who


class NotAState(ValueError):
    """The answer is not what a ModelMeter pipeline says about budgets."""


@dataclass(frozen=True, slots=True)
class PipelineState:
    """`budgets`: those that block. `rate_cards_version` changes whenever a price does."""

    budgets: tuple[Budget, ...]
    rate_cards_version: str


@dataclass(frozen=True, slots=True)
class Known:
    """What a source says: a state, how old it is, which calls are in it; and where calls stand.

    `state` None: nothing is known of budgets yet, and what was known before goes on to hold.
    """

    state: PipelineState | None
    reflected: Reflected = NOTHING
    placed: Sequence[tuple[str, Place]] = ()
    age_s: float = 0.0


class Source(Protocol):
    """Where the router knows budgets and prices from: the pipeline's API, or the topics of Kafka.

    `first` asks once and returns when something is known, or it is certain to last too long; then a thread
    goes on asking. Both tell by the same two functions (`Learn`, `LearnPrices`), from any thread.
    """

    @property
    def last_error(self) -> str:
        """Why what is known may be out of date, "" where it is not."""

    @property
    def unreadable(self) -> int:
        """Answers or messages that were not understood."""

    def first(self) -> None: ...

    def start(self) -> None: ...

    def wake(self) -> None:
        """The pipeline has taken records."""

    def stop(self) -> None: ...


Learn = Callable[[Known], None]
# The book, and its form for the copy.
LearnPrices = Callable[[RateBook, Any], None]


def read_state(form: Any) -> PipelineState:
    """The state in the pipeline's JSON. Raises NotAState."""
    try:
        budgets = tuple(
            Budget(
                id=item["id"],
                name=item["name"],
                tenant=item["tenant"],
                scope=dict(item["scope"]),
                period=item["period"],
                period_start_ns=parse_time(item["period_start"]),
                resets_at_ns=parse_time(item["resets_at"]),
                limit=int(item["limit_nano_usd"]),
                spent=int(item["spent_nano_usd"]),
                ceiling=ceiling(int(item["limit_nano_usd"]), int(item["block_at_percent"])),
            )
            for item in form["budgets"]
            if item["block_at_percent"] is not None
        )
        return PipelineState(budgets, str(form["rate_cards_version"]))
    except (KeyError, TypeError, ValueError) as error:
        raise NotAState(
            f"the pipeline's answer is not understood ({type(error).__name__}: {error})"
        ) from None


def ceiling(limit: int, percent: int) -> int:
    """The spend from which calls are refused."""
    return -(-limit * percent // 100)


@dataclass(slots=True)
class Copies:
    """The last state, what is held for unmeasured calls, and the rate cards, in one folder."""

    folder: Path
    _written: bytes = b""

    def save_state(self, state: PipelineState, held: Iterable[Entry]) -> None:
        """Keep the state for the next start. Nothing is written where nothing has changed."""
        content = {**asdict(state), "held": [asdict(entry) for entry in held]}
        text = orjson.dumps(content)
        if text != self._written:
            write_whole(self.folder / "budgets.json", text)
            self._written = text

    def load_state(self) -> tuple[PipelineState, list[Entry]] | None:
        """What was saved last, None where there is nothing usable."""
        form = _load(self.folder / "budgets.json")
        if form is None:
            return None
        try:
            held = [Entry(**{**item, "who": Who(**item["who"])}) for item in form["held"]]
            budgets = tuple(Budget(**item) for item in form["budgets"])
            return PipelineState(budgets, form["rate_cards_version"]), held
        except (KeyError, TypeError):
            return None

    def save_cards(self, form: Any) -> None:
        write_whole(self.folder / "rate-cards.json", orjson.dumps(form))

    def load_cards(self) -> Any:
        """The rate cards as they were served last, None where there are none."""
        return _load(self.folder / "rate-cards.json")


def write_whole(path: Path, text: bytes) -> None:
    """Replace `path` by `text` in one step that survives a crash. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def _load(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
