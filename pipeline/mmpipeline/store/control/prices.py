"""The catalogue of prices: every card and every book that was ever charged by, only ever appended.

A book is imported as a whole, in one transaction, under a version that names its content: importing the
same again writes nothing. A card is written once, whatever books hold it, so that a charge of any year can
be explained; what a book says of a provider is written once for all books that say the same.

Nothing is edited or deleted. Which book holds is said by the newest row of `rate_imports` that holds, so a
book of last month holds again by being imported again.

Functions take a connection of `Database.write()` or `.read()`. No table here has a tenant: prices are the
installation's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Text, cast, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from mmpipeline.rating.books import aliases, models_form, shelves
from mmpipeline.rating.shelf import Shelf
from mmpipeline.store.control.tables import (
    rate_book_shelves,
    rate_books,
    rate_cards,
    rate_imports,
    rate_shelves,
)
from mmproto.ratebook import ModelRates, RateBook
from mmproto.rateform import card_from_json, card_to_json
from mmproto.rating import RateCard

# Imports follow one another: of several that start at once the first writes, and the others see it.
_IMPORT_LOCK = 0x4D4D_5052

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Import:
    """One row of the history of books."""

    seq: int
    version: str
    at_unix_ns: int
    source: str
    made_from: str
    holds: bool


@dataclass(frozen=True, slots=True)
class StoredCard:
    """A card as the newest book that has it says it, and the versions of all books that have it."""

    card: RateCard
    is_override: bool
    versions: tuple[str, ...]


def in_force(connection: Connection) -> Import | None:
    """The import whose book is charged by; None before the first."""
    return _newest(connection, rate_imports.c.holds)


def newest_seq(connection: Connection) -> int:
    """The number of that import, 0 before the first: cheap enough to ask in every transaction."""
    found = connection.execute(select(func.max(rate_imports.c.seq)).where(rate_imports.c.holds)).scalar()
    return found or 0


def newest_installed(connection: Connection) -> Import | None:
    """The newest import of what a process found installed when it started."""
    return _newest(connection, rate_imports.c.made_from != "")


def imports(connection: Connection) -> list[Import]:
    """All imports, the newest first."""
    rows = connection.execute(select(rate_imports).order_by(rate_imports.c.seq.desc()))
    return [Import(**row._mapping) for row in rows]


def lock(connection: Connection) -> None:
    """Let imports follow one another until the transaction ends."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer as it is
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _IMPORT_LOCK})


def import_book(
    connection: Connection,
    book: RateBook,
    source: str,
    made_from: str,
    now_unix_ns: int,
    *,
    only_new: bool = False,
) -> bool:
    """Write a book and let it hold; False where it holds already.

    `only_new`: it shall not take the place of another book if what is installed made the same book before.
    """
    lock(connection)
    installed, held = newest_installed(connection), in_force(connection)
    changes = held is None or held.version != book.version
    if only_new and installed is not None and installed.version == book.version:
        changes = False
    noted = made_from == "" or (installed is not None and installed.made_from == made_from)
    if not changes and noted:
        return False
    known = select(rate_books.c.version).where(rate_books.c.version == book.version)
    if connection.execute(known).scalar() is None:
        _write(connection, book)
    row = {
        "version": book.version,
        "at_unix_ns": now_unix_ns,
        "source": source,
        "made_from": made_from,
        "holds": changes,
    }
    connection.execute(rate_imports.insert(), row)
    return changes


def read_book(connection: Connection, version: str) -> RateBook | None:
    """A book as it was imported, each provider read from its text when it is first asked for."""
    names = connection.execute(select(rate_books.c.aliases).where(rate_books.c.version == version)).scalar()
    if names is None:
        return None
    held: dict[bool, dict[str, str]] = {False: {}, True: {}}
    rows = connection.execute(
        select(
            rate_book_shelves.c.is_override, rate_book_shelves.c.provider, cast(rate_shelves.c.models, Text)
        )
        .join(rate_shelves, rate_shelves.c.id == rate_book_shelves.c.shelf)
        .where(rate_book_shelves.c.version == version)
        .order_by(rate_book_shelves.c.provider)
    )
    for is_override, provider, models in rows:
        held[is_override][provider] = models
    texts = {row.id: row.card for row in connection.execute(_cards())}

    def shelf(of: Mapping[str, str]) -> Shelf:
        return Shelf(of, names, lambda provider: _models(of[provider], texts))

    return RateBook(version, shelf(held[False]), shelf(held[True]))


def find_card(connection: Connection, card_id: str) -> StoredCard | None:
    """Any card that was ever imported."""
    row = connection.execute(_cards().where(rate_cards.c.id == card_id)).one_or_none()
    if row is None:
        return None
    newest = (
        select(rate_imports.c.version, func.max(rate_imports.c.seq).label("seq"))
        .group_by(rate_imports.c.version)
        .subquery()
    )
    holding = connection.execute(
        select(rate_book_shelves.c.version, rate_book_shelves.c.is_override, rate_shelves.c.models)
        .join(rate_shelves, rate_shelves.c.id == rate_book_shelves.c.shelf)
        .join(newest, newest.c.version == rate_book_shelves.c.version)
        .where(rate_shelves.c.provider == row.provider)
        .order_by(newest.c.seq.desc())
    )
    card = card_from_json(json.loads(row.card))
    found: StoredCard | None = None
    versions: list[str] = []
    for version, is_override, models in holding:
        entry = next((c for m in models for c in m["cards"] if c["id"] == card_id), None)
        if entry is not None:
            versions.append(version)
            found = found or StoredCard(_ended(card, entry), is_override, ())
    return replace(found or StoredCard(card, False, ()), versions=tuple(dict.fromkeys(versions)))


def _newest(connection: Connection, condition: Any) -> Import | None:
    row = connection.execute(
        select(rate_imports).where(condition).order_by(rate_imports.c.seq.desc()).limit(1)
    ).one_or_none()
    return None if row is None else Import(**row._mapping)


def _cards() -> Any:
    return select(rate_cards.c.id, rate_cards.c.provider, cast(rate_cards.c.card, Text).label("card"))


def _write(connection: Connection, book: RateBook) -> None:
    cards: dict[str, dict[str, Any]] = {}
    texts: dict[str, dict[str, Any]] = {}
    held: list[dict[str, Any]] = []
    for is_override, provider, models in shelves(book):
        form = models_form(models)
        content = json.dumps([provider, form], sort_keys=True)
        shelf = hashlib.sha256(content.encode()).hexdigest()[:32]
        texts[shelf] = {"id": shelf, "provider": provider, "models": form}
        held.append(
            {"version": book.version, "provider": provider, "is_override": is_override, "shelf": shelf}
        )
        for model in models:
            for card in model.cards:
                cards[card.id] = _card_row(card)
    _append(connection, rate_cards, cards.values())
    _append(connection, rate_shelves, texts.values())
    connection.execute(rate_books.insert(), {"version": book.version, "aliases": dict(aliases(book))})
    if held:
        connection.execute(rate_book_shelves.insert(), held)


def _append(connection: Connection, table: Any, rows: Iterable[dict[str, Any]]) -> None:
    """Insert those of `rows` that are not there."""
    insert: Callable[..., Any] = (
        postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    )
    every = list(rows)
    ids = [row["id"] for row in every]
    there: set[str] = set()
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        there.update(connection.execute(select(table.c.id).where(table.c.id.in_(chunk))).scalars())
    if new := [row for row in every if row["id"] not in there]:
        connection.execute(insert(table).on_conflict_do_nothing(), new)


def _card_row(card: RateCard) -> dict[str, Any]:
    form = card_to_json(card)
    form.pop("effective_to", None)
    form["sources"] = []
    return {
        "id": card.id,
        "provider": card.provider,
        "model": card.model,
        "service_tier": card.service_tier,
        "effective_from_unix_ns": card.effective_from_unix_ns,
        "card": form,
    }


def _models(content: str, texts: Mapping[str, str]) -> Sequence[ModelRates]:
    return [
        ModelRates(
            model["model"],
            model["match"],
            [_ended(card_from_json(json.loads(texts[entry["id"]])), entry) for entry in model["cards"]],
        )
        for model in json.loads(content)
    ]


def _ended(card: RateCard, entry: Mapping[str, Any]) -> RateCard:
    return replace(card, effective_to_unix_ns=entry["effective_to"], sources=tuple(entry["sources"]))
