"""Calls sent through the distributed shape while it is being killed, and the books held against the truth.

A schedule made from a seed says who is killed (kill -9) or asked to leave, when, and for how long it stays
away: workers, the warehouse's sink, the broker, PostgreSQL's first process, the warehouse. Between two events
a further part of the messages may be sent, so every kill falls into work. At the end everything runs, all
there is has been worked off, and every book must agree with what the scenario must come to.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from mmlocal.process import ServiceFailed
from mmlocal.services.clickhouse import ClickHouseStandIn
from mmlocal.services.kafka import Kafka
from mmlocal.services.postgresql import PostgreSQL
from mmproto.kafka import topics
from tests.distributed import HEADERS, Away, Command, Installation, wait_for
from tests.faults import books
from tests.faults.reports import Report, scenario

Say = Callable[[str], None]

WORKERS = ("work-1", "work-2", "work-3")
SINK_GROUP = "modelmeter.sink"
# Who is killed, and how often of a hundred times.
VICTIMS = {"worker": 45, "sink": 15, "postgresql": 20, "kafka": 12, "warehouse": 8}
# Of the times that it is a worker's turn: how often it is asked to leave, which is no kill.
LEAVES = 0.2

SETTINGS = {
    # A worker that was killed is missed sooner than a company would want it.
    "MODELMETER_KAFKA_PROPERTIES": '{"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"}',
    # Small transactions: more of them to die in.
    "MODELMETER_WORKER_BATCH_CALLS": "250",
    "MODELMETER_WAREHOUSE_GATHER": "0.2",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """`calls` distinct calls, `kills` kills. The same seed gives the same messages and the same schedule."""

    calls: int
    kills: int
    seed: int


@dataclass(slots=True)
class Outcome:
    """What was done, what was seen, and what is wrong: `wrong` is empty when all books agree."""

    plan: Plan
    calls: int = 0
    messages: int = 0
    made: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    left: int = 0
    counted: dict[str, int] = field(default_factory=dict)
    spent_nano_usd: int = 0
    entries: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    killing_s: float = 0.0
    settling_s: float = 0.0

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"seed {self.plan.seed}: {self.calls} calls in {self.messages} messages"
        yield "made: " + ", ".join(f"{name} {number}" for name, number in sorted(self.made.items()))
        yield (
            f"killed {sum(self.killed.values())}: "
            + ", ".join(f"{name} {number}" for name, number in self.killed.most_common())
            + f"; {self.left} workers left and came back"
        )
        yield "counted: " + ", ".join(f"{name} {n}" for name, n in sorted(self.counted.items()))
        yield f"spent {self.spent_nano_usd} nano-dollars"
        yield "entries compared: " + ", ".join(f"{name} {n}" for name, n in self.entries.items())
        yield f"{self.killing_s:.0f} s of kills, {self.settling_s:.0f} s to settle"
        yield from (self.wrong or ["every book agrees"])


def run(plan: Plan, folder: Path, say: Say) -> Outcome:
    """Everything, from an empty folder to the comparison. Raises Away where something does not come back."""
    outcome = Outcome(plan)
    made = scenario(plan.calls, plan.seed, time.time_ns())
    outcome.calls, outcome.messages, outcome.made = len(made.truth), len(made.messages), made.made
    with Installation(folder, settings=SETTINGS) as installation:
        for limit in books.LIMITS:
            set_budget(installation, limit)
        commands = {name: installation.worker(name) for name in WORKERS} | {"sink": installation.sink()}
        for command in commands.values():
            command.start()
        began = time.monotonic()
        with sending(installation, made.messages) as sender:
            _kill(installation, commands, sender, outcome, say)
            sender.allow(len(made.messages))
            for command in commands.values():
                if not command.running:
                    command.start()
            outcome.killing_s = time.monotonic() - began
            say(f"{sum(outcome.killed.values())} kills in {outcome.killing_s:.0f} s; settling ...")
            began = time.monotonic()
            sender.finish()
            _settle(installation, tuple(commands.values()), within_s=300 + plan.calls / 50)
            outcome.settling_s = time.monotonic() - began
        compare(installation, list(made.truth.values()), outcome)
    return outcome


def set_budget(installation: Installation, limit: books.Limit) -> None:
    """As a person sets it."""
    names = {"virtual_key": "key"}
    scope = [part for name, value in limit.scope.items() for part in (f"--{names.get(name, name)}", value)]
    installation.run(
        "mmpipeline", "budgets", "set", limit.name, "--tenant", limit.tenant, *scope,
        "--amount", limit.usd, "--period", limit.period, "--time-zone", limit.zone,
    )  # fmt: skip


class Sender:
    """Sends reports in order, as many as it was allowed so far, whatever happens to the broker."""

    def __init__(self, installation: Installation, reports: Sequence[Report]) -> None:
        self._producer = installation.producer()
        self._reports = reports
        self._allowed = 0
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._send, name="sender", daemon=True)
        self._thread.start()

    def allow(self, number: int) -> None:
        with self._changed:
            self._allowed = number
            self._changed.notify()

    def finish(self, within_s: float = 300.0) -> None:
        """Returns when the broker has acknowledged all of it. Raises Away."""
        self._thread.join(within_s)
        if self._thread.is_alive() or self._producer.flush(within_s):
            raise Away("the broker did not take all messages")

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _send(self) -> None:
        for index, report in enumerate(self._reports):
            with self._changed:
                while index >= self._allowed and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
            key = f"{report.tenant}/{report.team}"
            self._producer.produce(topics.CALLS, report.record, key.encode(), headers=HEADERS)
            if index % 100 == 0:
                self._producer.poll(0)


@contextmanager
def sending(installation: Installation, reports: Sequence[Report]) -> Iterator[Sender]:
    sender = Sender(installation, reports)
    try:
        yield sender
    finally:
        sender.stop()


def _kill(
    installation: Installation,
    commands: Mapping[str, Command],
    sender: Sender,
    outcome: Outcome,
    say: Say,
) -> None:
    """Carry out the schedule. Everybody but the victims of the moment runs when it returns."""
    plan = outcome.plan
    dice = random.Random(plan.seed + 1)
    # Commands that are away, and when they come back.
    away: dict[str, float] = {}
    while sum(outcome.killed.values()) < plan.kills:
        number = sum(outcome.killed.values())
        sender.allow(outcome.messages * (number + 1) // (plan.kills + 1))
        time.sleep(dice.uniform(0.05, 0.8))
        victim = dice.choices(tuple(VICTIMS), tuple(VICTIMS.values()))[0]
        stays_away_s = dice.uniform(0.0, 1.5)
        leaves = dice.random() < LEAVES
        name = dice.choice(WORKERS) if victim == "worker" else victim
        if name in commands:
            command = commands[name]
            if command.running:
                if victim == "worker" and leaves:
                    _leave(command)
                    outcome.left += 1
                else:
                    kill(command)
                    outcome.killed[victim] += 1
            away[name] = time.monotonic() + stays_away_s
        else:
            _kill_server(installation, name, stays_away_s)
            outcome.killed[victim] += 1
        for back in [one for one, when in away.items() if when <= time.monotonic()]:
            del away[back]
            if not commands[back].running:
                commands[back].start()
        if number % 20 == 19 and sum(outcome.killed.values()) > number:
            say(f"{number + 1} kills")


def kill(command: Command) -> None:
    """kill -9, whatever it is doing."""
    process = command.process
    if process is not None:
        process.kill()
        process.wait()


def _leave(command: Command) -> None:
    """SIGTERM, without waiting for the end: a worker that drains may be killed on the way."""
    process = command.process
    if process is not None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            kill(command)
            raise Away(f"{command.name} did not leave within 20 s{command.last_words()}") from None


def _kill_server(installation: Installation, name: str, stays_away_s: float) -> None:
    servers: dict[str, Kafka | PostgreSQL | ClickHouseStandIn] = {
        "kafka": installation.kafka,
        "postgresql": installation.postgresql,
        "warehouse": installation.clickhouse,
    }
    server = servers[name]
    server.kill()
    time.sleep(stays_away_s)
    for attempt in range(10):
        try:
            server.start()
            return
        except ServiceFailed:
            # PostgreSQL's other processes may hold its memory for a moment.
            if attempt == 9:
                raise
            time.sleep(0.5)


def _settle(installation: Installation, commands: Sequence[Command], within_s: float) -> None:
    """Returns when all that was sent is charged and in the warehouse."""

    def all_alive() -> None:
        for command in commands:
            if not command.running:
                raise Away(f"{command.name} ended by itself{command.last_words()}")

    ends = {number: end for number, end in installation.ends(topics.CALLS).items() if end}

    def charged() -> bool:
        all_alive()
        with psycopg.connect(installation.superuser_url) as connection:
            rows = connection.execute(
                "SELECT partition, next_offset FROM positions WHERE topic = %s", (topics.CALLS,)
            ).fetchall()
            waiting = connection.execute("SELECT count(*) FROM outbox").fetchone()
        return {number: end for number, end in rows if end} == ends and waiting == (0,)

    def delivered() -> bool:
        all_alive()
        return installation.committed(topics.RATED, SINK_GROUP) == installation.ends(topics.RATED)

    wait_for("all calls charged and the outbox empty", charged, within_s)
    wait_for("all rated rows in the warehouse", delivered, within_s)


def compare(installation: Installation, truth: Sequence[Report], outcome: Outcome) -> None:
    """Hold every book against the truth; differences go into the outcome."""
    wanted = books.expected(truth)
    url = installation.superuser_url
    ledger, warehouse = books.ledger_books(url), books.warehouse_books(installation.clickhouse.url)
    for name, book in {**ledger, **warehouse}.items():
        outcome.entries[name] = len(book)
        outcome.wrong += [f"{name}: {words}" for words in books.differences(wanted[name], book)]
    outcome.spent_nano_usd = sum(report.cost or 0 for report in truth)
    outcome.counted = counted = books.counters(url)
    taken = counted.get("accepted", 0) + counted.get("duplicates", 0)
    sent = sum(installation.ends(topics.CALLS).values())
    if taken != sent:
        outcome.wrong.append(f"{sent} messages, but {taken} were counted as accepted or duplicate")
    if counted.get("accepted", 0) - counted.get("replaced", 0) != len(truth):
        outcome.wrong.append(f"accepted without those replaced is not the number of calls, {len(truth)}")
    verified = installation.verify()
    if verified.returncode:
        outcome.wrong.append(f"ledger verify: {verified.stdout}{verified.stderr}")
