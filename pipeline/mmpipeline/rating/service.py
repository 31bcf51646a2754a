"""Prices calls: the rate book of this installation, and the rules around it.

- The response's model is asked first, since it names what served the call; the request's where the
  response's is absent or unknown.
- The tier that SERVED the call is priced.
- A call that the provider does not bill costs 0.
- Usage of quality UNKNOWN has no counts, not zero counts: unpriced (`no_usage`). PARTIAL and ESTIMATED
  usage is priced by the counts there are; the quality travels with the row.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from mmpipeline.rating import catalogue, unpriced
from mmpipeline.rating.books import Installed
from mmpipeline.rating.rated import NOT_BILLABLE
from mmpipeline.store.control import prices
from mmpipeline.store.control.database import Database, StoreBusy
from mmproto.ratebook import RateBook
from mmproto.rateform import book_to_json
from mmproto.rating import Charge, Pricer
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import QUALITY_UNKNOWN

_log = logging.getLogger(__name__)

# No call costs a million dollars; a sum of such would overflow long before anyone saw it.
_ABSURD_NANO_USD = 10**15
_MAX_REASON = 200

# How often a process without transactions of its own looks for a newer book.
_ASK_EVERY_S = 1.0

_MINUTE_NS = 60_000_000_000

# (nano-dollars or None, reason where None, rate card id)
Priced = tuple[int | None, str, str]


class NoPrices(LookupError):
    """No book of prices was imported into the store."""


class _Prices:
    """A book, and what was looked up in it: replaced together, so that no lookup outlives its book."""

    __slots__ = ("book", "resolved", "seq")

    def __init__(self, book: RateBook, seq: int) -> None:
        self.book = book
        self.seq = seq
        self.resolved: dict[tuple[str, str, str, str, int], tuple[Pricer | None, str]] = {}


class RatingService:
    """Thread-safe: a book is replaced as a whole, and caches only gain what any thread would compute alike.

    `open` charges by what is installed, without a store. `stored` charges by the newest book of the store
    and follows it: `refresh` is asked at the beginning of each transaction that charges.
    """

    def __init__(
        self,
        book: RateBook,
        database: Database | None = None,
        seq: int = 0,
        overrides_file: Path | None = None,
    ) -> None:
        self._prices = _Prices(book, seq)
        self._database = database
        self._overrides_file = overrides_file
        self._asked = 0.0

    @classmethod
    def open(cls, overrides_file: Path | None = None) -> RatingService:
        """The installed catalogue with the overrides over it. Raises ConfigurationError."""
        return cls(Installed(overrides_file).book(), overrides_file=overrides_file)

    @classmethod
    def stored(cls, database: Database, overrides_file: Path | None, now_unix_ns: int) -> RatingService:
        """The newest book of `database`, which is what is installed here where that was not seen before.

        Raises ConfigurationError, StoreBusy.
        """
        import_installed(database, Installed(overrides_file), now_unix_ns)
        return cls.in_force(database, overrides_file)

    @classmethod
    def in_force(cls, database: Database, overrides_file: Path | None) -> RatingService:
        """The newest book of `database`, whatever is installed here. Raises StoreBusy, NoPrices."""
        with database.read() as connection:
            book, seq = _newest(connection)
        return cls(book, database, seq, overrides_file)

    @property
    def book(self) -> RateBook:
        """The book in force."""
        return self._prices.book

    @property
    def version(self) -> str:
        """Changes whenever any price does."""
        return self.book.version

    def refresh(self, connection: Connection | None = None) -> None:
        """Take over a book that was imported meanwhile.

        With a connection the store is asked at once, and its errors are the caller's; without one at most
        once a second, and the book in hand stays where the store cannot be asked.
        """
        if self._database is None:
            return
        if connection is not None:
            self._follow(connection)
            return
        now = time.monotonic()
        if now - self._asked < _ASK_EVERY_S:
            return
        self._asked = now
        try:
            with self._database.read() as reading:
                self._follow(reading)
        except StoreBusy as error:
            _log.warning("the price book cannot be asked for, the one in hand is used: %s", error)

    def _follow(self, connection: Connection) -> None:
        if prices.newest_seq(connection) != self._prices.seq:
            book, seq = _newest(connection)
            _log.info("charging by %s from here on", book.version)
            self._prices = _Prices(book, seq)

    def charge(self, call: Call, tokens: Mapping[str, int]) -> Priced:
        """What goes into the ledger: `rate_call`, made harmless to the calls around it."""
        try:
            cost, reason, card = self.rate_call(call, tokens)
        except Exception as error:  # a defect of ours must not cost the neighbours their charge
            _log.error("call %s cannot be rated: %r", call.id, error)
            return None, "rating_failed", ""
        if cost is not None and cost > _ABSURD_NANO_USD:
            return None, "absurd_cost", ""
        # A reason may name a bucket, which is named by whoever reports the call.
        return cost, reason.replace("\0", "\ufffd")[:_MAX_REASON] if reason else "", card

    def why_unpriced(self, call: Call, reason: str) -> str:
        """One line for people: why calls like this have no price, and what would give them one."""
        return unpriced.summary(self.book, self._overrides_file, call, reason)

    def rate_call(self, call: Call, tokens: Mapping[str, int]) -> Priced:
        """The charge of a call; `tokens` are those of its usage (a dict is read faster than their map)."""
        if not call.billable:
            return 0, "", NOT_BILLABLE
        usage = call.usage
        units = usage.units
        if usage.quality == QUALITY_UNKNOWN or not (tokens or units):
            return None, "no_usage", ""
        at = call.started_at_unix_ns
        # Prices change on whole minutes only, so that a minute's calls of one model share a card.
        key = (call.provider, call.response_model, call.request_model, call.service_tier, at // _MINUTE_NS)
        prices_now = self._prices
        resolved = prices_now.resolved.get(key)
        if resolved is None:
            resolved = _resolve(prices_now, key, at)
        pricer, reason = resolved
        if pricer is None:
            return None, reason, ""
        cost, reason = pricer.cost(tokens, units)
        return cost, reason, "" if cost is None else pricer.card.id

    def explain(
        self, provider: str, model: str, tier: str, at_unix_ns: int, usage: Mapping[str, float | Decimal]
    ) -> Charge:
        """The charge of any usage, with its lines."""
        return self.book.price(provider, (model,), tier, at_unix_ns, usage)

    def export(self, providers: Iterable[str]) -> dict[str, Any]:
        """The book of these providers as JSON, under the names that were asked for."""
        return book_to_json(self.book, dict.fromkeys(providers))


def import_installed(database: Database, installed: Installed, now_unix_ns: int) -> None:
    """Import what is installed here, where that is not what was found installed last.

    What a command imported from another file since then stays in force. An older catalogue than the newest
    that was imported is left out: beside processes that are being replaced by newer ones it would take the
    newer prices back. Raises StoreBusy.
    """
    made_from = installed.made_from()
    with database.read() as connection:
        newest = prices.newest_installed(connection)
    if newest is not None:
        if newest.made_from == made_from:
            return
        if _release(newest.version) > _release(catalogue.catalogue_version()):
            _log.warning(
                "%s is older than %s that was imported, and left out; `mmpipeline prices import` takes it",
                installed.source,
                newest.version,
            )
            return
    book = installed.complete()
    with database.write() as connection:
        taken = prices.import_book(connection, book, installed.source, made_from, now_unix_ns, only_new=True)
    if taken:
        _log.info("imported %s from %s", book.version, installed.source)


def _newest(connection: Connection) -> tuple[RateBook, int]:
    held = prices.in_force(connection)
    book = None if held is None else prices.read_book(connection, held.version)
    if held is None or book is None:
        raise NoPrices("no book of prices was imported yet")
    return book, held.seq


def _release(version: str) -> tuple[int, ...]:
    """The numbers of `genai-prices 0.0.71 #...`, to compare two of them."""
    match = re.search(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _resolve(prices_now: _Prices, key: tuple[str, str, str, str, int], at: int) -> tuple[Pricer | None, str]:
    provider, response_model, request_model, tier, _ = key
    card, reason = prices_now.book.find(provider, (response_model, request_model), tier, at)
    resolved = (None if card is None else prices_now.book.pricer(card), reason)
    if len(prices_now.resolved) > 50_000:  # names come from outside: never let them fill the memory
        prices_now.resolved.clear()
    prices_now.resolved[key] = resolved
    return resolved
