"""How the distributed shape is: what the stores know, and how far the workers are behind.

healthy: calls come in, are charged, and reach the warehouse. degraded: it works and something needs a person
(what `mmpipeline.status` says, calls that wait long, messages that were put aside). unhealthy: calls are not
charged, or do not reach the warehouse: nobody reads them, or Kafka or the store cannot be asked.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmpipeline.budgets.service import BudgetService
from mmpipeline.config import PipelineSettings
from mmpipeline.ingest.statistics import ingest_statistics
from mmpipeline.status import LAG_DEGRADED_S, status_form
from mmpipeline.store.control import positions, prices
from mmpipeline.store.control.database import Database, DatabaseError, StoreBusy
from mmpipeline.workers.deadlimit import DeadLetterLimit
from mmpipeline.workers.flow import Flow, Flows, FlowUnknown
from mmpipeline.workers.sink import GROUP as SINKS
from mmpipeline.workers.work import GROUP as WORKERS
from mmproto.kafka.topics import CALLS, RATED


class _Leg(NamedTuple):
    """A part of the way, in words: what goes, where to, by whom."""

    what: str
    goal: str
    command: str


_CALLS = _Leg("calls", "charged", "mmpipeline work")
_RATED = _Leg("batches of rows", "in the warehouse", "mmpipeline sink")


def distributed_status(settings: PipelineSettings, tenant: str) -> dict[str, Any]:
    """The status as JSON: that of one process, with `kafka` beside it. Raises ConfigurationError."""
    try:
        database = Database.open(settings.control_url)
    except DatabaseError as error:
        return {"verdict": "unhealthy", "reasons": [f"the store of charges cannot be asked: {error}"]}
    try:
        return _status(settings, database, tenant)
    except StoreBusy as error:
        return {"verdict": "unhealthy", "reasons": [f"the store of charges cannot be asked: {error}"]}
    finally:
        database.close()


def _status(settings: PipelineSettings, database: Database, tenant: str) -> dict[str, Any]:
    form = status_form(
        ingest_statistics(database, tenant),
        BudgetService(database, time.time_ns).list(tenant),
        _book(database),
        "",
        time.time_ns(),
    )
    put_aside = DeadLetterLimit(database, settings.worker.dead_letters).unacknowledged()
    form["dead_letters"] = {"waiting": put_aside, "limit": settings.worker.dead_letters}
    wrong: list[str] = []
    doubtful: list[str] = []
    if put_aside and put_aside >= settings.worker.dead_letters:
        wrong.append(
            f"{put_aside} messages are put aside, as many as worker.dead_letters allows: workers stop at the "
            "next; see `mmpipeline deadletter list`"
        )
    elif put_aside:
        doubtful.append(f"{put_aside} messages could not be worked; see `mmpipeline deadletter list`")
    try:
        calls, rated = _flows(settings, database)
    except FlowUnknown as error:
        wrong.append(str(error))
    else:
        form["kafka"] = {"calls": calls.form(), "rated": rated.form()}
        for flow, leg in ((calls, _CALLS), (rated, _RATED)):
            _judge(flow, leg, wrong, doubtful)
    reasons: Sequence[str] = [*wrong, *doubtful, *form["reasons"]]
    verdict = "unhealthy" if wrong else "degraded" if reasons else "healthy"
    return form | {"verdict": verdict, "reasons": reasons}


def _flows(settings: PipelineSettings, database: Database) -> tuple[Flow, Flow]:
    def charged(partitions: Sequence[int]) -> Mapping[int, int]:
        with database.read() as connection:
            return positions.of(connection, CALLS, partitions)

    flows = Flows(settings.kafka)
    return flows.flow(CALLS, WORKERS, charged), flows.flow(RATED, SINKS)


def _judge(flow: Flow, leg: _Leg, wrong: list[str], doubtful: list[str]) -> None:
    waiting = f"{flow.lag} {leg.what} are not {leg.goal} yet"
    if not flow.members:
        wrong.append(f"nobody runs `{leg.command}`; {waiting}")
    elif flow.oldest_s > LAG_DEGRADED_S:
        doubtful.append(f"{waiting}, the oldest for {flow.oldest_s:.0f} s")
    if flow.lost_end:
        shown = ", ".join(map(str, flow.lost_end))
        wrong.append(
            f"partitions {shown} of the {leg.what} end before what is {leg.goal}: was the topic made anew?"
        )


def _book(database: Database) -> str:
    with database.read() as connection:
        held = prices.in_force(connection)
    return "" if held is None else held.version


def kafka_lines(form: Mapping[str, Any]) -> list[str]:
    """The part of a status that only the distributed shape has, for people."""
    if "kafka" not in form:
        return []
    lines = []
    for name, readers, what in (("calls", "workers", "calls"), ("rated", "sinks", "batches of rows")):
        flow = form["kafka"][name]
        lines.append(
            f"{readers:<10} {flow['members']} on {len(flow['partitions'])} partitions; {flow['lag']} {what} "
            f"behind, the oldest {flow['oldest_s']:.1f} s old"
        )
    return [*lines, f"put aside  {form['dead_letters']['waiting']} messages"]
