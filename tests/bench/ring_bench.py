"""How large a ring, and how seldom to wake its reader: what the defaults of both rest on.

A burst is what LLM traffic consists of: two programs write and read all at once, then nothing happens. For
each size of the ring: how much of a burst is captured, and what it takes of the sensor's memory. Then a
trickle, as streamed answers make it, for each amount that must wait before the reader is woken: what a record
costs the client and the sensor.

Run as root: python -m tests.bench.ring_bench [--rounds N]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsensor.capture.errors import CaptureError
from mmsensor.capture.options import CaptureOptions
from mmsensor.capture.session import Capture
from tests.bench.capture_bench import Client, build, resident_mb

RINGS_MIB = (1, 2, 4, 8, 16)
BURSTS_MIB = (1, 4, 16, 64)
BURST_CALL = 4096
WAKES_KIB = (0, 16, 64, 256, 1024)
TRICKLE_CALL = 256
TRICKLE_CALLS = 10  # at once, then a pause
TRICKLES = 100
TRICKLE_EVERY_S = 0.01
ROUNDS = 3


@dataclass(frozen=True)
class Trickle:
    """Microseconds of CPU."""

    client: float  # a call
    sensor: float  # a record


@contextlib.contextmanager
def reading(options: CaptureOptions) -> Iterator[Capture]:
    """A capture whose reader runs in a thread of its own, as fast as it can."""
    capture = Capture(options)
    capture.start()
    over = threading.Event()

    def read() -> None:
        while not over.is_set() or sum(1 for _ in capture.poll(0)) > 0:
            for _ in capture.poll(0.05):
                pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield capture
    finally:
        over.set()
        reader.join()
        capture.close()


def burst(clients: Sequence[Client], ring_bytes: int, size: int) -> tuple[float, float]:
    """(share of a burst's bytes that was captured, MB that the sensor held with its ring)"""
    pids = frozenset(client.pid for client in clients)
    count = size // len(clients) // (2 * 2 * BURST_CALL)  # each byte is written and read, at both ends
    with reading(CaptureOptions(only_pids=pids, ring_bytes=ring_bytes)) as capture:
        at_once = [threading.Thread(target=client.call, args=(max(1, count),)) for client in clients]
        for each in at_once:
            each.start()
        for each in at_once:
            each.join()
        time.sleep(0.2)
        found = capture.statistics()
        resident = resident_mb()
    lost = sum(found.lost_bytes.values())
    return found.bytes / max(1, found.bytes + lost), resident


def trickle(client: Client, wake_bytes: int) -> Trickle:
    options = CaptureOptions(only_pids=frozenset([client.pid]), wake_bytes=wake_bytes)
    with reading(options) as capture:
        client.call(TRICKLE_CALLS)
        before, began = capture.statistics().records, time.process_time()
        spent = []
        for _ in range(TRICKLES):
            spent.append(client.call(TRICKLE_CALLS))
            time.sleep(TRICKLE_EVERY_S)
        time.sleep(0.1)
        sensor = time.process_time() - began
        return Trickle(statistics.median(spent), sensor * 1e6 / (capture.statistics().records - before))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = range(parser.parse_args().rounds)
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            parts = build(Path(folder))
            clients = [Client(*parts, BURST_CALL), Client(*parts, BURST_CALL)]
            slow = Client(*parts, TRICKLE_CALL)
            for client in (*clients, slow):
                stack.callback(client.close)
            shares = {
                (ring, size): [burst(clients, ring << 20, size << 20) for _ in rounds]
                for ring in RINGS_MIB
                for size in BURSTS_MIB
            }
            costs = {wake: [trickle(slow, wake << 10) for _ in rounds] for wake in WAKES_KIB}
    except CaptureError as error:
        print(f"ring_bench: {error}", file=sys.stderr)
        return 1
    print("share captured of a burst, by its size in MiB; the bench's resident memory")
    print(f"{'ring MiB':>9} " + " ".join(f"{size:>7}" for size in BURSTS_MIB) + f" {'MB':>7}")
    for ring in RINGS_MIB:
        found = [statistics.median(share for share, _ in shares[ring, size]) for size in BURSTS_MIB]
        resident = statistics.median(mb for size in BURSTS_MIB for _, mb in shares[ring, size])
        print(f"{ring:>9} " + " ".join(f"{share:>7.1%}" for share in found) + f" {resident:>7.1f}")
    print("CPU in us by how much must wait before the reader is woken")
    print(f"{'wake KiB':>9} {'client, call':>13} {'sensor, record':>15}")
    for wake, trickles in costs.items():
        per_call = statistics.median(each.client for each in trickles)
        per_record = statistics.median(each.sensor for each in trickles)
        print(f"{wake:>9} {per_call:>13.2f} {per_record:>15.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
