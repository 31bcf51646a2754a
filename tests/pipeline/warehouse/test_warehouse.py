from __future__ import annotations

import itertools
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpipeline.rating.rated import RatedCall
from mmpipeline.store.warehouse.blocks import block_of, row_of_rated
from mmpipeline.store.warehouse.errors import WarehouseFailed, WarehouseLocked, WarehouseTooNew
from mmpipeline.store.warehouse.migrations import ROLL_UP_TABLES, TENANT_TABLES
from mmpipeline.store.warehouse.relations import REPORTED
from mmpipeline.store.warehouse.shapes import (
    DAY_NS,
    CostRow,
    Dimension,
    Filters,
    Span,
    SpendRow,
    Unanswerable,
)
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmproto import usage
from mmproto.v1.call_pb2 import Observer
from mmproto.v1.usage_pb2 import Quality
from tests.pipeline.warehouse.ledger import HOUR_NS, MONDAY_NS, histories, rated, spend_by, standing

WEEK = Span(MONDAY_NS, MONDAY_NS + 7 * 24 * HOUR_NS)
_tenants = itertools.count()


def everything(warehouse: Warehouse, tenant: str = "default") -> tuple[object, ...]:
    """All that the warehouse says about a tenant: raw calls and each roll-up."""
    return (
        warehouse.calls(tenant, WEEK, limit=1000),
        warehouse.spend(tenant, WEEK, ("hour", "team", "application", "provider", "model")),
        warehouse.spend(tenant, WEEK, ("day", "team", "model")),
        warehouse.spend(tenant, WEEK, ("day", "user")),
        warehouse.spend(tenant, WEEK, ("day", "node", "process")),
        warehouse.qualities(tenant, WEEK),
        warehouse.observers(tenant),
    )


@pytest.mark.every_layout
def test_a_batch_sent_again_changes_nothing_anywhere(warehouse: Warehouse) -> None:
    batch = [rated(f"c{n}", at_ns=MONDAY_NS + n * HOUR_NS, team=f"t{n % 3}") for n in range(50)]
    warehouse.insert(batch, "batch-1")
    before = everything(warehouse)
    warehouse.insert(batch, "batch-1")
    assert everything(warehouse) == before
    assert warehouse.total("default", WEEK).calls == 50


def test_equal_rows_under_another_token_are_other_rows(warehouse: Warehouse) -> None:
    """The token, not the content, says what a batch is: it is the outbox that never repeats itself."""
    warehouse.insert([rated("a")], "batch-1")
    warehouse.insert([rated("b")], "batch-2")
    assert warehouse.total("default", WEEK).calls == 2


def test_a_batch_is_recognised_after_a_restart(tmp_path: Path) -> None:
    batch = [rated(f"c{n}") for n in range(5)]
    with Warehouse.open(tmp_path / "w") as first:
        first.insert(batch, "batch-1")
        before = everything(first)
    with Warehouse.open(tmp_path / "w") as second:
        second.insert(batch, "batch-1")
        assert everything(second) == before


@pytest.mark.every_layout
def test_a_crash_between_raw_table_and_roll_up_is_repaired_by_sending_again(warehouse: Warehouse) -> None:
    engine = warehouse._engine
    for number, missed in enumerate(ROLL_UP_TABLES, 1):
        batch = [rated(f"{number}-{n}", user=missed) for n in range(5)]
        # What a kill leaves behind in the worst case: the batch in the raw table, not yet in one roll-up.
        engine.command(f"DETACH TABLE {missed}_view")
        warehouse.insert(batch, missed)
        engine.command(f"ATTACH TABLE {missed}_view")
        warehouse.insert(batch, missed)
        calls = number * 5
        assert warehouse.total("default", WEEK).calls == calls
        for dimensions in (("hour",), ("user",), ("process",)):
            assert sum(row.calls for row in warehouse.spend("default", WEEK, dimensions)) == calls
        assert sum(seen.calls for seen in warehouse.observers("default")) == calls
        assert len(warehouse.calls("default", WEEK).calls) == calls


def test_a_reversal_takes_a_call_back_from_every_sum(warehouse: Warehouse) -> None:
    old = rated("seen twice", team="", user="")
    new = rated("seen twice", observer=Observer.OBSERVER_ROUTER, cost_nano_usd=2_000_000)
    warehouse.insert([old], "1")
    warehouse.insert([old.reversed(), new], "2")
    total = warehouse.total("default", WEEK)
    assert (total.calls, total.priced_nano_usd, total.input_tokens) == (1, 2_000_000, 100)
    assert [row.group for row in warehouse.spend("default", WEEK, ("team",))] == [("search",)]
    assert [row.group for row in warehouse.spend("default", WEEK, ("user",))] == [("ada",)]
    page = warehouse.calls("default", WEEK)
    assert [stored.call for stored in page.calls] == [new.call]
    assert warehouse.call("default", old.call.id) == page.calls[0]


@pytest.mark.every_layout
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_roll_ups_equal_the_calls_that_stand(warehouse: Warehouse, data: st.DataObject) -> None:
    tenant = f"tenant-{next(_tenants)}"
    rows = data.draw(histories(tenant))
    cuts = data.draw(st.sets(st.integers(0, len(rows)), max_size=3)) | {0, len(rows)}
    # Reports of one call come over different partitions: what takes a charge back may be here before it.
    for start, end in data.draw(st.permutations(list(itertools.pairwise(sorted(cuts))))):
        for _ in range(data.draw(st.integers(1, 2))):
            warehouse.insert(rows[start:end], f"{tenant}-{start}")

    left = standing(rows)
    page = warehouse.calls(tenant, WEEK, limit=1000)
    latest_first = sorted(left, key=lambda row: (row.call.started_at_unix_ns, row.call.id), reverse=True)
    assert [(s.call, s.cost_nano_usd) for s in page.calls] == [
        (row.call, row.cost_nano_usd) for row in latest_first
    ]

    total = warehouse.total(tenant, WEEK)
    assert total.calls == len(left)
    assert total.unpriced_calls == sum(row.cost_nano_usd is None for row in left)
    assert total.errors == sum(bool(row.call.error_type) for row in left)
    assert total.duration_s == sum(row.call.duration_s for row in left)
    assert total.timed_calls == sum(row.call.HasField("duration_s") for row in left)
    assert total.input_tokens == sum(usage.input_tokens(row.call.usage.tokens) or 0 for row in left)
    assert total.output_tokens == sum(usage.output_tokens(row.call.usage.tokens) or 0 for row in left)

    buckets: dict[str, int] = {}
    for row in left:
        for bucket, count in row.call.usage.tokens.items():
            name = bucket if bucket in usage.TOKEN_BUCKETS else "other"
            buckets[name] = buckets.get(name, 0) + count
    assert warehouse.tokens(tenant, WEEK) == {name: n for name, n in buckets.items() if n}

    for dimensions in (("team", "application"), ("user", "team"), ("node",)):
        spent = {row.group: row.priced_nano_usd for row in warehouse.spend(tenant, WEEK, dimensions)}
        assert spent == spend_by(rows, *dimensions)
        costs = {row.group: row.priced_nano_usd for row in warehouse.costs(tenant, WEEK, dimensions)}
        assert costs == spent
    by_hour = warehouse.spend(tenant, WEEK, ("hour", "model"))
    for daily in warehouse.spend(tenant, WEEK, ("day", "model")):
        day, model = daily.group
        hours = [each for each in by_hour if each.group[0].startswith(day) and each.group[1] == model]
        for measure in ("calls", "unpriced_calls", "priced_nano_usd", "errors", "output_tokens"):
            assert getattr(daily, measure) == sum(getattr(each, measure) for each in hours)
    by_user = warehouse.spend(tenant, WEEK, ("user",))
    by_process = warehouse.spend(tenant, WEEK, ("process",))
    for measure in SpendRow.__slots__ + CostRow.__slots__[1:]:
        expected = getattr(total, measure)
        assert sum(getattr(row, measure) for row in by_user) == expected
        assert sum(getattr(row, measure) for row in by_process) == expected
    assert sum(share.calls for share in warehouse.qualities(tenant, WEEK)) == len(left)
    assert sum(share.calls for share in warehouse.unpriced(tenant, WEEK)) == total.unpriced_calls
    assert sum(share.calls for share in warehouse.errors(tenant, WEEK)) == total.errors


def test_tenants_see_only_their_own(warehouse: Warehouse) -> None:
    hostile = "a' OR '1'='1"
    for tenant in ("one", "two", hostile):
        warehouse.insert([rated(f"{n}", tenant=tenant, team=tenant) for n in range(3)], tenant)
    for tenant in ("one", "two", hostile):
        assert warehouse.total(tenant, WEEK).calls == 3
        assert [row.group for row in warehouse.spend(tenant, WEEK, ("team",))] == [(tenant,)]
        assert {s.call.tenant for s in warehouse.calls(tenant, WEEK).calls} == {tenant}
        assert warehouse.facets(tenant, WEEK).teams == (tenant,)
        assert sum(seen.calls for seen in warehouse.observers(tenant)) == 3
    assert warehouse.call("one", rated("0", tenant="two").call.id) is None
    assert warehouse.total("nobody", WEEK).calls == 0


@pytest.mark.every_layout
def test_the_wall_stands_where_a_statement_forgets_its_tenant(warehouse: Warehouse) -> None:
    for tenant in ("one", "two"):
        warehouse.insert([rated("x", tenant=tenant)], tenant)
        for reported in REPORTED:
            warehouse._engine.command(f"INSERT INTO {reported.name} (tenant_id) VALUES ('{tenant}')")  # noqa: S608
    for table in TENANT_TABLES:
        rows = warehouse._engine.read("one", f"SELECT DISTINCT tenant_id FROM {table}", {})  # noqa: S608
        assert list(rows) == [("one",)], table


def test_a_group_without_any_price_costs_none_not_nothing(warehouse: Warehouse) -> None:
    warehouse.insert(
        [
            rated("priced", model="gpt-4o"),
            rated("not priced", model="gpt-4o", cost_nano_usd=None, unpriced_reason="no_usage"),
            rated("unknown", model="new-model", cost_nano_usd=None),
            rated("free", model="free-model", cost_nano_usd=0),
        ],
        "1",
    )
    costs = {row.group[0]: row.cost_nano_usd for row in warehouse.spend("default", WEEK, ("model",))}
    assert costs == {"gpt-4o": 1_250_000, "new-model": None, "free-model": 0}
    reasons = {(share.model, share.reason) for share in warehouse.unpriced("default", WEEK)}
    assert reasons == {("gpt-4o", "no_usage"), ("new-model", "unknown_model")}


@pytest.mark.every_layout
def test_pages_of_calls_join_without_gap_or_repeat(warehouse: Warehouse) -> None:
    rows = [rated(f"c{n}", at_ns=MONDAY_NS + (n // 4) * 1_000) for n in range(103)]
    # Many pairs that took each other back lie between those that stand.
    gone = [rated(f"gone{n}", at_ns=MONDAY_NS + 20_000) for n in range(60)]
    warehouse.insert([*rows, *gone], "1")
    warehouse.insert([row.reversed() for row in gone], "2")
    seen: list[str] = []
    cursor = None
    while True:
        page = warehouse.calls("default", WEEK, before=cursor, limit=10)
        seen += [stored.call.id for stored in page.calls]
        cursor = page.next
        if cursor is None:
            break
    expected = sorted(rows, key=lambda row: (row.call.started_at_unix_ns, row.call.id), reverse=True)
    assert seen == [row.call.id for row in expected]


@pytest.mark.every_layout
def test_a_charge_that_comes_after_what_takes_it_back_is_not_shown(warehouse: Warehouse) -> None:
    first = rated("a", team="", observer=Observer.OBSERVER_SENSOR)
    second = rated("a", team="search", observer=Observer.OBSERVER_ROUTER)
    third = RatedCall(second.call, 1, 7, "", "card@2")
    batches = ([first], [first.reversed(), second], [second.reversed(), third])
    for number, order in enumerate(itertools.permutations(batches)):
        tenant = f"tenant-{number}"
        for at, batch in enumerate(order):
            for row in batch:
                row.call.tenant = tenant
            warehouse.insert(batch, f"{tenant}-{at}")
        assert [(s.call.team, s.cost_nano_usd) for s in warehouse.calls(tenant, WEEK).calls] == [
            ("search", 7)
        ]
        assert [row[2] for row in warehouse.relation(tenant, "cost_metrics", 0, 2**62).rows] == [
            Decimal("7e-9")
        ]
        assert warehouse.total(tenant, WEEK).priced_nano_usd == 7


def test_groups_continue_behind_a_given_one(warehouse: Warehouse) -> None:
    warehouse.insert([rated(f"{n}", team=f"team {n % 5}", model=f"m{n % 2}") for n in range(20)], "1")
    whole = [row.group for row in warehouse.spend("default", WEEK, ("team", "model"))]
    first = [row.group for row in warehouse.spend("default", WEEK, ("team", "model"), limit=4)]
    rest = [row.group for row in warehouse.spend("default", WEEK, ("team", "model"), after=first[-1])]
    assert first + rest == whole


def test_filters_narrow_every_question(warehouse: Warehouse) -> None:
    warehouse.insert(
        [
            rated("a", team="", model="o3", error_type="timeout"),
            rated("b", provider="anthropic", model="claude", user="eve", quality=Quality.QUALITY_PARTIAL),
        ],
        "1",
    )
    assert warehouse.total("default", WEEK, Filters(team="")).calls == 1
    assert warehouse.total("default", WEEK, Filters(user="eve", provider="anthropic")).calls == 1
    assert warehouse.total("default", WEEK, Filters(user="eve", provider="openai")).calls == 0
    assert [e.error_type for e in warehouse.errors("default", WEEK, Filters(model="o3"))] == ["timeout"]
    assert [q.quality for q in warehouse.qualities("default", WEEK, Filters(model="claude"))] == ["PARTIAL"]
    assert len(warehouse.calls("default", WEEK, Filters(application="nothing")).calls) == 0


@pytest.mark.every_layout
def test_late_calls_and_new_prices_correct_every_sum(warehouse: Warehouse) -> None:
    """A reprice takes the old charge back; what had no price gets one; a call comes days late."""
    unknown = [
        rated(f"u{n}", model="new", at_ns=MONDAY_NS + n * HOUR_NS, cost_nano_usd=None) for n in range(30)
    ]
    wrong = [rated(f"w{n}", at_ns=MONDAY_NS + n * HOUR_NS, cost_nano_usd=10**9 + n) for n in range(30)]
    warehouse.insert([*unknown, *wrong], "charged")
    assert warehouse.total("default", WEEK).unpriced_calls == 30

    priced = [RatedCall(row.call, 1, 3 * n + 1, "", "card@2") for n, row in enumerate(unknown)]
    cheaper = [RatedCall(row.call, 1, 7 * n, "", "card@2") for n, row in enumerate(wrong)]
    pairs = [
        row
        for old, new in zip([*unknown, *wrong], [*priced, *cheaper], strict=True)
        for row in (old.reversed(), new)
    ]
    late = rated("late", at_ns=MONDAY_NS + HOUR_NS, cost_nano_usd=1)
    warehouse.insert([*pairs, late], "repriced")
    warehouse.insert([*pairs, late], "repriced")

    standing_rows = [*priced, *cheaper, late]
    expected = sum(row.cost_nano_usd or 0 for row in standing_rows)
    total = warehouse.total("default", WEEK)
    assert (total.calls, total.unpriced_calls, total.priced_nano_usd) == (61, 0, expected)
    dimensions: tuple[Dimension, ...]
    for dimensions in (("hour",), ("day",), ("user",), ("process",), ("model", "hour")):
        assert sum(row.priced_nano_usd for row in warehouse.spend("default", WEEK, dimensions)) == expected
    assert warehouse.unpriced("default", WEEK) == []
    assert warehouse.charged("default", MONDAY_NS, WEEK.to_unix_ns, {}) == expected
    first = warehouse.charged("default", MONDAY_NS, MONDAY_NS + 1, {"model": "new", "team": "search"})
    assert first == priced[0].cost_nano_usd
    assert {stored.rate_card for stored in warehouse.calls("default", WEEK, limit=100).calls} == {
        "card@2",
        "test@1",
    }


@pytest.mark.every_layout
def test_a_batch_of_many_months_and_of_the_largest_size_is_taken_once(warehouse: Warehouse) -> None:
    months = [rated(f"{n}", at_ns=n * 31 * DAY_NS) for n in range(20)]
    big = [rated(f"big {n}", user="u" * 1000) for n in range(2000)]
    blocks = [block_of([row_of_rated(row) for row in part]) for part in (months, big[:500], big[500:])]
    assert sum(map(len, blocks)) > 4 << 20
    for _ in range(2):
        warehouse.insert_blocks(blocks, "lane-0-1000")
    always = Span(0, (2**32 // 3600 + 1) * HOUR_NS)
    assert warehouse.total("default", always).calls == 2020
    assert (
        sum(row.calls for row in warehouse.spend("default", Span(0, 200 * 365 * DAY_NS), ("month",))) == 2020
    )
    assert sum(seen.calls for seen in warehouse.observers("default")) == 2020


def test_times_no_calendar_of_ours_holds_are_kept_not_lost(warehouse: Warehouse) -> None:
    moments = (0, -1, 2**63 - 1, MONDAY_NS)
    warehouse.insert([rated(f"at {at}", at_ns=at) for at in moments], "1")
    always = Span(0, (2**32 // 3600 + 1) * HOUR_NS)
    assert warehouse.total("default", always).calls == len(moments)
    assert {s.call.started_at_unix_ns for s in warehouse.calls("default", always).calls} == set(moments)


def test_what_the_roll_ups_do_not_keep_is_refused_not_guessed(warehouse: Warehouse) -> None:
    afternoon = Span(MONDAY_NS + 12 * HOUR_NS, MONDAY_NS + 18 * HOUR_NS)
    with pytest.raises(Unanswerable, match="whole days"):
        warehouse.spend("default", afternoon, ("user",))
    with pytest.raises(Unanswerable, match="whole days"):
        warehouse.spend("default", WEEK, ("hour", "process"))
    with pytest.raises(Unanswerable, match="together"):
        warehouse.spend("default", WEEK, ("user", "process"))
    with pytest.raises(Unanswerable, match="not kept by user"):
        warehouse.qualities("default", WEEK, Filters(user="ada"))


def test_spans_are_whole_hours() -> None:
    with pytest.raises(ValueError, match="whole hours"):
        Span(1, HOUR_NS)
    with pytest.raises(ValueError, match="ends after"):
        Span(HOUR_NS, HOUR_NS)


def test_a_second_process_is_told_that_the_folder_is_taken(tmp_path: Path) -> None:
    with Warehouse.open(tmp_path / "w"):
        with pytest.raises(WarehouseLocked, match="another process"):
            Warehouse.open(tmp_path / "w")
        program = (
            "import sys; from pathlib import Path\n"
            "from mmpipeline.store.warehouse.warehouse import Warehouse\n"
            "from mmpipeline.store.warehouse.errors import WarehouseLocked\n"
            "try: Warehouse.open(Path(sys.argv[1]))\n"
            "except WarehouseLocked as error: print(error.hint)\n"
        )
        other = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "w")], capture_output=True, text=True, check=True
        )
    assert "choose another state folder" in other.stdout
    assert not other.stderr


def test_a_folder_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with Warehouse.open(tmp_path / "w") as warehouse:
        warehouse._engine.command("INSERT INTO schema_versions VALUES (999, now())")
    with pytest.raises(WarehouseTooNew, match="999"):
        Warehouse.open(tmp_path / "w")


def test_a_folder_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WarehouseFailed, match="file"):
        Warehouse.open(tmp_path / "file")
