"""Calls a second of one worker between Kafka and PostgreSQL, and what a call takes at rest.

    python -m tests.bench.worker_bench [--calls 200000] [--workers 1] [--tenants 1] [--duplicates 0] [--pin]

Starts a broker, PostgreSQL (fsync on) and the stand-in for ClickHouse on this machine, fills the calls topic,
and only then starts `mmpipeline work`, so that the worker alone is measured: from the first charged batch to
the last, and the CPU of worker and PostgreSQL for it. Then the sink is started and timed in the same way.
`--pin` gives the worker a core of its own and the servers the others. At the end: bytes on disk for a call,
of charges, of call ids, of rated rows in Kafka and of the warehouse, roll-ups included.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from mmproto.kafka import topics
from mmproto.v1.ingest_pb2 import IngestBatch
from tests.bench.ingest_bench import bodies
from tests.distributed import HEADERS, Command, Installation
from tests.faults.books import ask

_LOOK_S = 0.02


def records(calls: int, tenants: int, duplicates: float) -> list[tuple[bytes, bytes]]:
    """(key, record) of `calls` calls; so many of a hundred are sent twice."""
    made: list[tuple[bytes, bytes]] = []
    for body in bodies(calls, 1_000, seed=7):
        for call in IngestBatch.FromString(body).calls:
            number = len(made)
            call.tenant = f"tenant-{number % tenants}" if tenants > 1 else "default"
            key = f"{call.tenant}/{call.team}".encode()
            made.append((key, IngestBatch(calls=(call,)).SerializeToString()))
            if duplicates and number % round(100 / duplicates) == 0:
                made.append(made[-1])
    return made


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children so far, living and dead."""
    total = 0.0
    for one in (pid, *children(pid)):
        try:
            text = Path(f"/proc/{one}/stat").read_text(encoding="ascii")
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return total


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def timed(command: Command, done: Callable[[], int], wanted: int, cpu: dict[str, int]) -> dict[str, float]:
    """Start `command`; calls a second and CPU a call from its first progress until `done` says `wanted`."""
    command.start()
    while not (first := done()):
        time.sleep(_LOOK_S)
        if not command.running:
            raise SystemExit(f"{command.name} ended{command.last_words()}")
    assert command.process is not None
    pids = {command.name: command.process.pid, **cpu}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    began = time.perf_counter()
    while (now := done()) < wanted:
        time.sleep(_LOOK_S)
        if not command.running:
            raise SystemExit(f"{command.name} ended{command.last_words()}")
    elapsed = time.perf_counter() - began
    calls = now - first
    used = {f"{name} us": (cpu_seconds(pid) - before[name]) / calls * 1e6 for name, pid in pids.items()}
    return {"calls/s": calls / elapsed, **used}


def pin(pid: int, cores: set[int]) -> None:
    for one in (pid, *children(pid)):
        for task in Path(f"/proc/{one}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def produced(installation: Installation, made: list[tuple[bytes, bytes]]) -> int:
    """Put everything into the calls topic; the topic's size on disk."""
    producer = installation.producer()
    for number, (key, record) in enumerate(made):
        producer.produce(topics.CALLS, record, key, headers=HEADERS)
        if number % 1_000 == 0:
            producer.poll(0)
    producer.flush()
    return topic_bytes(installation, topics.CALLS)


def topic_bytes(installation: Installation, topic: str) -> int:
    folders = (installation.kafka.folder / "data").glob(f"{topic}-*")
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.log"))


def table_bytes(url: str, table: str) -> int:
    """A table with its partitions and their indexes."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree(%s)",
            (table,),
        ).fetchone()
    return int(row[0]) if row else 0


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tenants", type=int, default=1)
    parser.add_argument("--duplicates", type=float, default=0.0, help="of a hundred calls")
    parser.add_argument("--pin", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="modelmeter-bench-") as folder,
        Installation(Path(folder), partitions=6) as installation,
    ):
        measure(installation, options)


def measure(installation: Installation, options: argparse.Namespace) -> None:
    made = records(options.calls, options.tenants, options.duplicates)
    for team in ("payments", "search"):
        installation.run(
            *("mmpipeline", "budgets", "set", team, "--team", team),
            *("--amount", "1000000", "--block-at", "100"),
        )
    calls_bytes = produced(installation, made)
    cores = set(range(os.cpu_count() or 1))
    if options.pin:
        for server in (installation.kafka, installation.postgresql, installation.clickhouse):
            if server.pid:
                pin(server.pid, cores - {0})
    url = installation.superuser_url

    with psycopg.connect(url, autocommit=True) as looking:

        def charged() -> int:
            row = looking.execute("SELECT coalesce(sum(next_offset), 0)::bigint FROM positions").fetchone()
            return int(row[0]) if row else 0

        for number in range(2, options.workers + 1):
            installation.worker(f"work-{number}").start()
        worker = installation.worker("work-1")
        if options.pin:
            worker.prefix = ["taskset", "-c", "0"]
        servers = {"postgresql": installation.postgresql.pid, "kafka": installation.kafka.pid}
        figures = timed(worker, charged, len(made), servers)
        print(f"worker      {figures.pop('calls/s'):10,.0f} calls/s  ({len(made)} messages)")
        for name, value in figures.items():
            print(f"            {value:10.1f} {name}/call")

        def waiting() -> int:
            row = looking.execute("SELECT coalesce(sum(rows), 0)::bigint FROM outbox").fetchone()
            return int(row[0]) if row else 0

        began = time.perf_counter()
        while waiting():
            time.sleep(_LOOK_S)
        print(f"relay       {time.perf_counter() - began:10.1f} s until the outbox was empty")
    for name in [name for name in installation.commands if name.startswith("work")]:
        installation.commands[name].end()

    def stored() -> int:
        try:
            rows = ask(installation.clickhouse.url, "SELECT count() FROM calls")
        except OSError:
            return 0
        return int(rows[0][0])

    warehouse = {"warehouse": installation.clickhouse.pid or 0}
    figures = timed(installation.sink(), stored, options.calls, warehouse)
    print(f"sink        {figures.pop('calls/s'):10,.0f} calls/s")
    for name, value in figures.items():
        print(f"            {value:10.1f} {name}/call")
    ask_nothing = (
        "SELECT table, sum(bytes_on_disk) FROM system.parts WHERE active GROUP BY table ORDER BY table"
    )
    at_rest = {
        "calls topic": calls_bytes,
        "rated topic": topic_bytes(installation, topics.RATED),
        "charges": table_bytes(url, "charges"),
        "call ids": table_bytes(url, "call_ids"),
        **{f"warehouse {table}": size for table, size in ask(installation.clickhouse.url, ask_nothing)},
    }
    for name, size in at_rest.items():
        print(f"{name:28} {size / options.calls:10.1f} bytes/call")


if __name__ == "__main__":
    main()
