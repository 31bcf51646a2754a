"""Books of prices in the control store: read back as they were imported, never edited, one for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from mmpipeline.rating.books import Installed, aliases, shelves
from mmpipeline.rating.catalogue import PROVIDERS
from mmpipeline.rating.service import NoPrices, RatingService
from mmpipeline.store.control import prices, tables
from mmpipeline.store.control.database import Database
from mmproto.ratebook import RateBook
from mmproto.rating import ContextTier, Rate, RateCard
from tests.pipeline.calls import NOW
from tests.pipeline.prices.books import book, card, take
from tests.pipeline.stores import Stores

CATALOGUE = Installed().complete()
TABLES = (
    tables.rate_cards,
    tables.rate_shelves,
    tables.rate_books,
    tables.rate_book_shelves,
    tables.rate_imports,
)

DISCOUNT = """
rates:
  - {provider: openai, models: ["*"], effective_from: "2026-07-01", source: contract, discount_percent: 12.5}
  - provider: vllm.internal
    models: ["llama-*"]
    effective_from: "2026-01-01"
    source: our own machines
    usd_per_million: {input: 0.05, output: 0.1}
"""


def contents(of: RateBook) -> dict[str, Any]:
    """All that a book says, to compare by."""
    held = {
        (is_override, provider): [(m.model, dict(m.match), m.cards) for m in models]
        for is_override, provider, models in shelves(of)
    }
    return {"version": of.version, "aliases": dict(aliases(of)), "shelves": held}


def stored(database: Database, version: str) -> RateBook:
    with database.read() as connection:
        found = prices.read_book(connection, version)
    assert found is not None
    return found


def rows(database: Database) -> dict[str, set[str]]:
    """Every row of every table of prices."""
    with database.read() as connection:
        return {
            table.name: {repr(tuple(row)) for row in connection.execute(select(table))} for table in TABLES
        }


def overrides(folder: Path, text: str = DISCOUNT) -> Path:
    file = folder / "rates.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_whole_catalogue_with_overrides_is_read_back_as_it_was(stores: Stores, tmp_path: Path) -> None:
    whole = Installed(overrides(tmp_path)).complete()
    assert take(stores.worker, whole)
    found = stored(stores.app, whole.version)
    assert contents(found) == contents(whole)
    assert len(found.catalogue) > 40
    assert aliases(found) == PROVIDERS
    for name, meant in PROVIDERS.items():
        assert (name in found.catalogue) == (meant in found.catalogue)
        assert found.models(name, "gpt-4o") == found.models(meant, "gpt-4o")
    usage = {"input": 250_000, "input_cache_read": 999, "output": 77}
    for provider, model in [
        ("openai", "gpt-4o-2024-08-06"),
        ("gcp.gemini", "gemini-2.5-pro"),
        ("xai", "grok-4"),
    ]:
        for tier in ("standard", "batch", "flex"):
            assert found.price(provider, (model,), tier, NOW, usage) == whole.price(
                provider, (model,), tier, NOW, usage
            )


moneys = st.decimals(0, 10_000, places=9)
rates = st.builds(
    Rate,
    usd=moneys,
    per=st.sampled_from([1, 1000, 1_000_000]),
    tiers=st.lists(st.builds(ContextTier, st.integers(1, 10**9), moneys), max_size=3).map(tuple),
    minimum=st.integers(0, 10),
)
buckets = st.dictionaries(st.sampled_from(["input", "output", "images", "requests"]), rates, max_size=4)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
moments = st.integers(0, 4 * 10**18)


@st.composite
def cards(draw: st.DrawFn) -> RateCard:
    made = card(
        draw(texts), "1", tier=draw(st.sampled_from(["standard", "batch", "ü"])), provider=draw(texts)
    )
    return replace(
        made,
        id=f"{made.id}/{draw(st.integers(0, 10**12))}",
        effective_from_unix_ns=draw(moments),
        effective_to_unix_ns=draw(st.none() | moments),
        rates=draw(buckets),
        sources=tuple(draw(st.lists(texts, max_size=2))),
        daily_window=draw(st.none() | st.tuples(st.integers(0, 86_399), st.integers(0, 86_399))),
    )


NUMBERS = iter(range(10**9))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    listed=st.lists(cards(), max_size=4, unique_by=lambda c: c.id),
    negotiated=st.lists(cards(), max_size=2, unique_by=lambda c: c.id),
)
def test_any_book_is_read_back_as_it_was(
    stores: Stores, listed: list[RateCard], negotiated: list[RateCard]
) -> None:
    number = next(NUMBERS)
    # One id is one content: those of another example are another's.
    fresh = [[replace(c, id=f"{c.id}/{number}") for c in held] for held in (listed, negotiated)]
    ids = {c.id for c in fresh[0]}
    made = book(f"book {number}", *fresh[0], overrides=tuple(c for c in fresh[1] if c.id not in ids))
    take(stores.worker, made)
    assert contents(stored(stores.app, made.version)) == contents(made)


def test_nothing_is_edited_and_the_same_again_changes_nothing(stores: Stores) -> None:
    january = book("1", card("gpt-4o", "2"), card("o3", "10", until="2025-06-10"))
    february = book("2", card("gpt-4o", "2"), card("o3", "10"), card("o3", "8", since="2026-02-01"))
    assert take(stores.worker, january)
    first = rows(stores.app)
    assert not take(stores.worker, january)
    assert rows(stores.app) == first
    assert take(stores.worker, february)
    second = rows(stores.app)
    assert all(first[name] <= second[name] for name in first)
    assert len(second["rate_cards"]) == 3
    # The end of a card's time belongs to the book.
    assert stored(stores.app, "1").catalogue["openai"][1].cards[0].effective_to_unix_ns is not None
    assert stored(stores.app, "2").catalogue["openai"][1].cards[0].effective_to_unix_ns is None
    assert take(stores.worker, january)
    third = rows(stores.app)
    assert {name for name in third if third[name] != second[name]} == {"rate_imports"}
    with stores.app.read() as connection:
        held = prices.in_force(connection)
    assert held is not None
    assert held.version == "1"


def test_any_card_that_was_ever_imported_is_found(stores: Stores) -> None:
    old, kept = card("o3", "10"), card("gpt-4o", "2")
    take(stores.worker, book("1", old, kept))
    take(stores.worker, book("2", kept, overrides=(card("o3", "7"),)))
    with stores.app.read() as connection:
        found, still = prices.find_card(connection, old.id), prices.find_card(connection, kept.id)
        negotiated = prices.find_card(connection, card("o3", "7").id)
        assert prices.find_card(connection, "openai/o3/standard@always#000000000000") is None
    assert found is not None and still is not None and negotiated is not None
    assert (found.card, found.versions) == (old, ("1",))
    assert (still.card, still.versions) == (kept, ("2", "1"))
    assert (negotiated.is_override, still.is_override) == (True, False)


def test_workers_that_import_at_once_make_one_book(stores: Stores) -> None:
    opened = [Database.open(stores.url) for _ in range(4)]
    try:
        with ThreadPoolExecutor(4) as threads:
            services = list(threads.map(lambda database: RatingService.stored(database, None, NOW), opened))
    finally:
        for database in opened:
            database.close()
    assert {service.version for service in services} == {CATALOGUE.version}
    with stores.app.read() as connection:
        assert [one.version for one in prices.imports(connection)] == [CATALOGUE.version]


def test_a_running_process_takes_over_what_is_imported(stores: Stores) -> None:
    take(stores.worker, book("1", card("gpt-4o", "2")))
    rating = RatingService.in_force(stores.worker, None)

    def cost() -> int | None:
        return rating.explain("openai", "gpt-4o", "", NOW, {"input": 1000}).nano_usd

    assert cost() == 2_000_000
    take(stores.app, book("2", card("gpt-4o", "3")))
    assert cost() == 2_000_000
    with stores.worker.write() as connection:
        rating.refresh(connection)
    assert (cost(), rating.version) == (3_000_000, "2")
    take(stores.app, book("1", card("gpt-4o", "2")))
    serving = RatingService.in_force(stores.app, None)
    take(stores.app, book("2", card("gpt-4o", "3")))
    serving.refresh()
    assert serving.version == "2"


def test_what_is_installed_is_imported_where_it_was_not_seen_before(stores: Stores, tmp_path: Path) -> None:
    def start(file: Path | None) -> str:
        return RatingService.stored(stores.worker, file, NOW).version

    def held() -> list[str]:
        with stores.app.read() as connection:
            return [one.version for one in prices.imports(connection)]

    plain = start(None)
    assert plain == CATALOGUE.version
    assert start(None) == plain
    assert len(held()) == 1
    # Another file is other prices; another comment in it is not.
    file = overrides(tmp_path)
    discounted = start(file)
    assert discounted != plain
    assert start(overrides(tmp_path, f"# a remark\n{DISCOUNT}")) == discounted
    assert len(held()) == 2
    # What a command imported stays, however often processes start; going back to a file of before counts.
    take(stores.app, book("by hand", card("gpt-4o", "2")))
    assert start(file) == "by hand"
    assert start(None) == plain
    assert held() == [plain, "by hand", discounted, plain]


def test_an_older_catalogue_does_not_take_newer_prices_back(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    newer = RateBook("genai-prices 999.0.0 #1", book("", card("gpt-4o", "2")).catalogue)
    with stores.worker.write() as connection:
        prices.import_book(connection, newer, "a newer worker", "its inputs", NOW)
    assert RatingService.stored(stores.worker, None, NOW).version == newer.version
    assert "older than genai-prices 999.0.0" in caplog.text


def test_an_upgrade_that_makes_the_same_book_is_noted_once(stores: Stores) -> None:
    with stores.worker.write() as connection:
        prices.import_book(connection, CATALOGUE, "before an upgrade", "other code", NOW)
    take(stores.app, book("by hand", card("gpt-4o", "2")))
    for _ in range(2):
        assert RatingService.stored(stores.worker, None, NOW).version == "by hand"
    with stores.app.read() as connection:
        assert [one.holds for one in prices.imports(connection)] == [False, True, True]


def test_a_store_without_prices_says_so(stores: Stores) -> None:
    with pytest.raises(NoPrices):
        RatingService.in_force(stores.app, None)


def test_prices_survive_with_all_their_digits(stores: Stores) -> None:
    exact = Decimal("0.00000000012345678901234567890123")
    made = card("tiny", "1")
    made = replace(made, rates={"input": Rate(exact, 1_000_000)})
    take(stores.worker, book("1", made))
    found: Mapping[str, Sequence[Any]] = stored(stores.app, "1").catalogue
    assert found["openai"][0].cards[0].rates["input"].usd == exact
