"""How the router is: one verdict with its reasons, the same for `/-/status`, `/-/readyz` and the command.

No amount of money is in it: the port is open to every application on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmproto.exits import Exit

VERDICTS = {"healthy": Exit.OK, "degraded": Exit.DEGRADED, "unhealthy": Exit.UNHEALTHY}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the verdict is made from. Ages in seconds, None for never."""

    version: str
    node: str
    address: str
    uptime_s: float
    fail_closed: bool
    state_age_s: float | None
    state_lost: bool
    state_known: bool
    pipeline_error: str
    unreadable: int
    prices: str
    budgets: int
    keys: int
    pending_calls: int
    unmeasured_calls: int
    upstreams: Mapping[str, Mapping[str, Any]]
    spool: Mapping[str, Any]
    delivery: Mapping[str, Any]
    counts: Mapping[str, Any]


def verdict(facts: Facts) -> tuple[str, list[str]]:
    """healthy, degraded or unhealthy, and why it is not healthy."""
    broken: list[str] = []
    weak: list[str] = []
    if facts.state_lost:
        away = facts.pipeline_error or _silence(facts.state_age_s)
        if facts.fail_closed:
            broken.append(f"every call is refused (fail_closed): {away}")
        else:
            known = "the last known budgets apply" if facts.state_known else "no budget is enforced"
            weak.append(f"{known} (fail_open): {away}")
    elif not facts.prices:
        weak.append("no rate cards: what calls cost is not known until the pipeline has counted them")
    for name, upstream in facts.upstreams.items():
        if upstream["failing"]:
            weak.append(f"upstream {name} fails: {upstream['last_error']}")
    if not facts.upstreams:
        weak.append("no upstream is configured: set OPENAI_API_KEY or ANTHROPIC_API_KEY, or `upstreams`")
    if not facts.keys:
        weak.append("no virtual key is configured: every call is refused; `mmrouter keys new` makes one")
    if facts.counts["dropped"]:
        total = sum(facts.counts["dropped"].values())
        broken.append(f"{total} records were lost because the spool could not take them")
    if facts.spool["payload_bytes"] > 0.8 * facts.spool["max_bytes"]:
        weak.append("the spool is nearly full: bring the pipeline back")
    if broken:
        return "unhealthy", broken + weak
    return ("degraded", weak) if weak else ("healthy", [])


def _silence(age_s: float | None) -> str:
    if age_s is None:
        return "the pipeline has not answered yet"
    return f"the newest word of the pipeline is {age_s:.0f} s old"


def report(facts: Facts) -> dict[str, Any]:
    """The status document."""
    word, reasons = verdict(facts)
    return {
        "verdict": word,
        "reasons": reasons,
        "version": facts.version,
        "node": facts.node,
        "address": facts.address,
        "uptime_s": round(facts.uptime_s, 1),
        "pipeline": {
            "state_age_s": None if facts.state_age_s is None else round(facts.state_age_s, 3),
            "away": facts.state_lost,
            "on_loss": "fail_closed" if facts.fail_closed else "fail_open",
            "last_error": facts.pipeline_error,
            "unreadable": facts.unreadable,
            "rate_cards": facts.prices,
        },
        "blocking_budgets": facts.budgets,
        "virtual_keys": facts.keys,
        "calls_not_yet_in_state": facts.pending_calls,
        "unmeasured_calls": facts.unmeasured_calls,
        "upstreams": {name: dict(upstream) for name, upstream in facts.upstreams.items()},
        "spool": dict(facts.spool),
        "delivery": dict(facts.delivery),
        "counts": dict(facts.counts),
    }
