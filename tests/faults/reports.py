"""Reports of calls as a fleet sends them, good and bad luck included, and what they must come to.

A call may be reported once, again and again, by a sensor and a router that differ in who made it, with an
estimate before or after the provider's own numbers, days late, or around midnight by clocks that differ.
`scenario` makes all of that from a seed, and computes what each call must be charged by rules of its own:
prices are numbers written here, and the best report of a call is chosen from all of its reports at once.
Nothing of the pipeline's code takes part.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mmproto.v1.call_pb2 import OBSERVER_ROUTER, OBSERVER_SDK, OBSERVER_SENSOR, Call, Observer
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.usage_pb2 import QUALITY_ESTIMATED, QUALITY_EXACT, QUALITY_PARTIAL, Quality

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS

#: Nano-dollars a token, by provider, model and bucket, as the providers publish them.
PRICES: dict[tuple[str, str], dict[str, int]] = {
    ("openai", "gpt-4o"): {"input": 2_500, "input_cache_read": 1_250, "output": 10_000},
    ("openai", "gpt-4o-mini"): {"input": 150, "input_cache_read": 75, "output": 600},
    ("anthropic", "claude-sonnet-4-5"): {"input": 3_000, "input_cache_read": 300, "output": 15_000},
}
#: A model that no price list knows.
UNPRICED = ("openai", "in-house-model")

TENANTS = ("default", "acme", "globex")
TEAMS = ("payments", "search", "support", "")
APPLICATIONS = ("checkout", "web", "batch")
_TRUST = {QUALITY_ESTIMATED: 1, QUALITY_PARTIAL: 2, QUALITY_EXACT: 3}


@dataclass(frozen=True, slots=True)
class Report:
    """One report of one call, all that the books depend on."""

    id: str
    started_at: int
    tenant: str
    team: str
    application: str
    user: str
    virtual_key: str
    provider: str
    model: str
    node: str
    process: str
    observer: Observer
    quality: Quality
    tokens: tuple[tuple[str, int], ...]
    duration_s: float
    error: str = ""

    @property
    def cost(self) -> int | None:
        """Nano-dollars by the published prices; None where there are none."""
        if self.error:
            return 0
        prices = PRICES.get((self.provider, self.model))
        return None if prices is None else sum(prices[bucket] * count for bucket, count in self.tokens)

    @property
    def record(self) -> bytes:
        """The message of it, as a sensor or a router sends it."""
        call = Call(
            id=self.id,
            provider=self.provider,
            operation="chat",
            request_model=self.model,
            response_model="" if self.error else self.model,
            host=f"api.{self.provider}.com",
            http_status=429 if self.error else 200,
            error_type=self.error,
            billable=not self.error,
            started_at_unix_ns=self.started_at,
            duration_s=self.duration_s,
            tenant=self.tenant,
            team=self.team,
            application=self.application,
            user=self.user,
            virtual_key_id=self.virtual_key,
            node=self.node,
            observer=self.observer,
        )
        call.process.pid = 4242
        call.process.command = self.process
        if not self.error:
            call.usage.quality = self.quality
            for bucket, count in self.tokens:
                call.usage.tokens[bucket] = count
        return IngestBatch(calls=(call,)).SerializeToString()


@dataclass(slots=True)
class Scenario:
    """`messages` in the order in which they are sent, and what each call must be in the end, by id."""

    messages: list[Report]
    truth: dict[str, Report]
    made: Counter[str] = field(default_factory=Counter)


def scenario(calls: int, seed: int, now_unix_ns: int) -> Scenario:
    """The same for the same arguments."""
    dice = random.Random(seed)
    scenario = Scenario([], {})
    placed: list[tuple[float, int, Report]] = []
    for number in range(calls):
        reports = _reports(dice, now_unix_ns, scenario.made)
        scenario.truth[reports[0].id] = best(reports)
        for report in reports:
            # Most reports of a call come close together, some much later than anything around them.
            later = dice.expovariate(1 / 20) if dice.random() < 0.8 else dice.random() * calls / 2
            placed.append((number + later, len(placed), report))
    placed.sort()
    messages = [report for _, _, report in placed]
    # A sender that lost its acknowledgements sends a whole stretch once more.
    for _ in range(max(1, calls // 2_000)):
        length = max(1, calls // 200)
        start = dice.randrange(max(1, len(messages) - length))
        stretch = messages[start : start + length]
        at = dice.randrange(start + len(stretch), len(messages) + 1)
        messages[at:at] = stretch
        scenario.made["sent again in a stretch"] += len(stretch)
    scenario.messages = messages
    return scenario


def best(reports: Sequence[Report]) -> Report:
    """What a call is by all that was said of it: whose by the best observer, usage by the best numbers."""
    who = max(reports, key=lambda report: report.observer)
    usage = max(reports, key=lambda report: (_TRUST[report.quality], report.observer))
    return replace(who, tokens=usage.tokens, quality=usage.quality)


def _reports(dice: random.Random, now: int, made: Counter[str]) -> list[Report]:
    """All reports of one call. Two that neither observer nor quality tell apart are equal."""
    first = _sensor_report(dice, now)
    if dice.random() < 0.12:
        made["late by days"] += 1
        first = replace(first, started_at=now - dice.randrange(DAY_NS, 40 * DAY_NS))
    reports = [first]
    fate = dice.random()
    if first.error or fate < 0.70:
        pass
    elif fate < 0.80:
        made["reported again"] += 1
        reports += [first] * dice.randrange(1, 4)
    elif fate < 0.90:
        made["seen by the router too"] += 1
        reports.append(_router_report(dice, first))
    elif fate < 0.95:
        made["estimated and told"] += 1
        estimate = replace(first, quality=QUALITY_ESTIMATED, tokens=_tokens(dice))
        reports.append(estimate)
    else:
        made["three reports"] += 1
        reports.append(replace(_router_report(dice, first), quality=QUALITY_ESTIMATED, tokens=_tokens(dice)))
        reports.append(replace(first, observer=OBSERVER_SDK, quality=QUALITY_PARTIAL, user="by-the-sdk"))
    if len(reports) > 1 and dice.random() < 0.2:
        # The clocks of two observers differ, and it is midnight in UTC between them.
        made["around midnight"] += 1
        midnight = first.started_at // DAY_NS * DAY_NS
        clocks = {report.observer: midnight + dice.randrange(-50, 50) * 1_000_000 for report in reports}
        reports = [replace(report, started_at=clocks[report.observer]) for report in reports]
    dice.shuffle(reports)
    return reports


def _sensor_report(dice: random.Random, now: int) -> Report:
    provider, model = dice.choice(tuple(PRICES)) if dice.random() < 0.97 else UNPRICED
    error = "rate_limit_exceeded" if dice.random() < 0.03 else ""
    node = dice.choice(("node-1", "node-2", "node-3"))
    return Report(
        id=str(uuid.UUID(int=dice.getrandbits(128), version=5)),
        started_at=now - dice.randrange(60 * SECOND_NS),
        tenant=dice.choice(TENANTS),
        team=dice.choice(TEAMS),
        application=dice.choice(APPLICATIONS),
        user=f"user-{dice.randrange(20)}",
        virtual_key="",
        provider=provider,
        model=model,
        node=node,
        process=dice.choice(("python3", "node")),
        observer=OBSERVER_SENSOR,
        quality=QUALITY_EXACT,
        tokens=() if error else _tokens(dice),
        # Binary fractions: their sums are the same in any order.
        duration_s=dice.randrange(1, 512) / 64,
        error=error,
    )


def _router_report(dice: random.Random, sensors: Report) -> Report:
    """The same call as the router saw it: it knows better whose it is, down to the tenant."""
    return replace(
        sensors,
        observer=OBSERVER_ROUTER,
        tenant=dice.choice(TENANTS),
        team=dice.choice(TEAMS[:3]),
        application=dice.choice(APPLICATIONS),
        virtual_key=dice.choice(("key-1", "key-2")),
        node="router-1",
        process="",
        started_at=sensors.started_at - dice.randrange(5_000_000),
    )


def _tokens(dice: random.Random) -> tuple[tuple[str, int], ...]:
    return (
        ("input", dice.randrange(4_000)),
        ("input_cache_read", dice.randrange(4_000)),
        ("output", dice.randrange(1, 900)),
    )
