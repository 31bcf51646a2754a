"""kill -9 at any moment: what was answered is neither lost nor doubled, in any store.

A sender with a spool posts batches and forgets a batch only when it was answered, as the real one does.
The pipeline is killed at random moments and started again on the same folder, several times. In the end
ledger, kept sums, budget counters, the warehouse's calls and its roll-ups all equal what was sent.
"""

from __future__ import annotations

import http.client
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from mmpipeline.budgets.periods import Period, bounds
from mmpipeline.store.control import budgets as control_budgets
from mmpipeline.store.control import ledger, outbox
from mmpipeline.store.control.database import Database, file_url
from mmpipeline.store.control.ledger import LedgerTotals
from mmpipeline.store.warehouse.shapes import Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmproto.v1.call_pb2 import OBSERVER_ROUTER
from mmproto.v1.ingest_pb2 import IngestBatch
from tests.pipeline.calls import COST, batch, call_id, make_call

BATCHES = 90
PER_BATCH = 40
KILLS = 3


class Server:
    """`mmpipeline serve` over one folder, started again after each kill."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.command = [sys.executable, "-m", "mmpipeline.cli"]
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        log = self.state / "server.log"
        with log.open("a", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [*self.command, "serve", "--state-dir", str(self.state), "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line, log.read_text(encoding="utf-8")[-2000:]
        self.url = line.removeprefix("listening on ")

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Sender(threading.Thread):
    """Posts its spool in order; on anything but an answer it posts the same batch again."""

    def __init__(self, server: Server, spool: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.spool = spool
        self.answered = 0
        self.failures: list[str] = []

    def run(self) -> None:
        token = (self.server.state / "ingest.token").read_text(encoding="ascii").strip()
        headers = {"authorization": f"Bearer {token}", "content-type": "application/x-protobuf"}
        while self.answered < len(self.spool):
            parts = urlsplit(self.server.url)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
            try:
                while self.answered < len(self.spool):
                    connection.request("POST", "/v1/ingest", self.spool[self.answered], headers)
                    response = connection.getresponse()
                    form = orjson.loads(response.read())
                    if response.status != 200 or form["rejected"]:
                        self.failures.append(f"{response.status} {form}")
                        return
                    self.answered += 1
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)  # it is down, as this test wants it
            finally:
                connection.close()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [1, 2])
def test_kill_at_any_moment(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    server = Server(tmp_path)
    for team in ("a", "b"):
        setting = ["budgets", "set", team, "--team", team, "--amount", "1000", "--period", "day"]
        folder = ["--state-dir", str(tmp_path)]
        subprocess.run([*server.command, *setting, *folder], check=True, stdout=subprocess.DEVNULL)
    at = time.time_ns()
    batches, teams = _batches(rng, at)
    server.start()
    sender = Sender(server, [b.SerializeToString() for b in batches])
    sender.start()
    for kill in range(1, KILLS + 1):
        # Somewhere in the sending, at a point of its own in a transaction or an insert.
        target = BATCHES * kill // (KILLS + 1)
        while sender.answered < target and sender.is_alive():
            time.sleep(0.001)
        time.sleep(rng.random() * 1.2)
        server.end(signal.SIGKILL)
        server.start()
    sender.join(120)
    assert not sender.is_alive()
    assert sender.failures == []
    assert server.end(signal.SIGTERM) == 0

    calls = sum(teams.values())
    expected = LedgerTotals(calls, calls * COST, 0)
    store = Database.open(file_url(tmp_path / "pipeline" / "control.sqlite"))
    with store.read() as connection:
        assert ledger.summed(connection) == expected
        assert ledger.totals(connection) == expected
        assert outbox.state(connection).rows == 0
        chosen = control_budgets.all_of(connection, "default")
        statuses = control_budgets.statuses(connection, "default", chosen, at)
    assert {s.budget.name: (s.calls, s.spent_nano_usd) for s in statuses} == {
        team: (number, number * COST) for team, number in teams.items()
    }
    store.close()
    day, end = bounds(Period.DAY, at)
    with Warehouse.open(tmp_path / "pipeline" / "warehouse") as warehouse:
        rows = warehouse.spend("default", Span(day, end), ["team"])
        assert {row.group[0]: (row.calls, row.cost_nano_usd) for row in rows} == {
            team: (number, number * COST) for team, number in teams.items()
        }
        raw = warehouse.calls("default", Span(day, end), limit=1000)
        found = [stored.call.id for stored in raw.calls]
        while raw.next is not None:
            raw = warehouse.calls("default", Span(day, end), before=raw.next, limit=1000)
            found += [stored.call.id for stored in raw.calls]
        sent = {call.id for sent_batch in batches for call in sent_batch.calls}
        assert len(found) == len(set(found))
        assert set(found) == sent


def _batches(rng: random.Random, at: int) -> tuple[list[IngestBatch], dict[str, int]]:
    """Batches with resent and re-observed calls among the new ones; how many calls each team ends with."""
    made: list[tuple[str, str]] = []
    teams = {"a": 0, "b": 0}
    batches = []
    for _ in range(BATCHES):
        calls = []
        for _ in range(PER_BATCH):
            if made and rng.random() < 0.1:  # the router saw a call that the sensor had reported
                identity, team = rng.choice(made)
                calls.append(make_call(identity, at=at, team=team, observer=OBSERVER_ROUTER))
                continue
            identity, team = call_id(rng), rng.choice("ab")
            made.append((identity, team))
            teams[team] += 1
            calls.append(make_call(identity, at=at, team=team))
        batches.append(batch(calls))
    return batches, teams
