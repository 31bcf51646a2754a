"""A ring that is too small on purpose: what was captured and what was counted as lost is what was sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmproto.reader import Direction
from mmsensor.capture.options import CaptureOptions
from tests.sensor.capture.recorder import Recorder, Workload, recording, started
from tests.sensor.capture.test_completeness import Certificate, libssl_workload
from tests.sensor.capture.workloads.control import pattern

pytestmark = pytest.mark.capture


def run_to_the_end(workload: Workload, recorder: Recorder) -> dict[int, Any]:
    """What the workload moved on each connection, by SSL object, once all of it has been seen.

    Nothing is polled while it runs: the ring fills.
    """
    workload.line()
    workload.go()
    workload.line()
    workload.go()
    ends = {end["ssl"]: end for end in workload.result()["ends"]}
    recorder.settle()
    recorder.until(lambda: all(seen.closed for seen in recorder.seen.values()), "closed")
    return ends


@pytest.mark.parametrize("ring", [4096, 65536, 1 << 20])
@pytest.mark.parametrize("sizes", [[100_000, 1, 5000, 1_000_000, 3], [200] * 997])
def test_captured_and_lost_is_sent(
    ring: int, sizes: list[int], libssl: Path, certificate: Certificate
) -> None:
    with (
        started(libssl_workload(libssl, certificate, "sizes", sizes=sizes)) as workload,
        recording([workload.pid], CaptureOptions(ring_bytes=ring)) as recorder,
    ):
        ends = run_to_the_end(workload, recorder)
        statistics = recorder.capture.statistics()
        sent = sum(end["write"][0] + end["read"][0] for end in ends.values())
        assert sum(statistics.lost_bytes.values()) == statistics.lost_bytes["ring_full"]
        assert statistics.bytes + statistics.lost_bytes["ring_full"] == sent
        for key, seen in recorder.seen.items():
            # Every stream is covered to its end, and what was captured stands at its place.
            assert seen.size(Direction.WRITE) == ends[key.ssl]["write"][0]
            assert seen.size(Direction.READ) == ends[key.ssl]["read"][0]
        captured = recorder.total(Direction.WRITE) + recorder.total(Direction.READ)
        unheard = sum(
            end["write"][0] + end["read"][0]
            for ssl, end in ends.items()
            if ssl not in {key.ssl for key in recorder.seen}
        )
        assert captured == statistics.bytes
        assert captured + recorder.lost() + unheard == sent


def test_captured_bytes_stand_at_their_place(libssl: Path, certificate: Certificate) -> None:
    size = 4_000_000
    with (
        started(libssl_workload(libssl, certificate, "abandoned", size=size)) as workload,
        recording([workload.pid], CaptureOptions(ring_bytes=1 << 20)) as recorder,
    ):
        workload.line()
        workload.go()
        workload.result()
        recorder.settle()
        # Nobody frees these connections, and nothing follows what was lost: it shows all the same.
        recorder.until(
            lambda: all(
                seen.size(Direction.WRITE) + seen.size(Direction.READ) == size
                for seen in recorder.seen.values()
            ),
            "the gaps at the ends",
        )
        client = next(seen for seen in recorder.seen.values() if seen.size(Direction.WRITE))
        whole, at, taken = pattern(size), 0, 0
        for gap in client.gaps:
            held = gap.offset - at
            assert client.data[Direction.WRITE][taken : taken + held] == whole[at : gap.offset]
            taken += held
            at = gap.offset + gap.size
        assert client.gaps


def test_a_bulk_transfer_without_a_verdict_has_its_share_and_no_more(
    libssl: Path, certificate: Certificate
) -> None:
    """What is of no interest by default must not fill the ring; every byte is captured or counted still."""
    share, call = 100_000, 10_000
    with (
        started(libssl_workload(libssl, certificate, "sizes", sizes=[call] * 101)) as workload,
        recording([workload.pid], CaptureOptions(undecided_bytes=share)) as recorder,
    ):
        ends = run_to_the_end(workload, recorder)
        statistics = recorder.capture.statistics()
        sent = sum(end["write"][0] + end["read"][0] for end in ends.values())
        assert statistics.lost_bytes["undecided"] > 0
        assert sum(statistics.lost_bytes.values()) == statistics.lost_bytes["undecided"]
        assert statistics.bytes + statistics.lost_bytes["undecided"] == sent
        for key, seen in recorder.seen.items():
            held = len(seen.data[Direction.WRITE]) + len(seen.data[Direction.READ])
            # The share, and the call that crossed it.
            assert share <= held < share + max(call, 1 << 14)
            assert seen.size(Direction.WRITE) == ends[key.ssl]["write"][0]
            assert seen.size(Direction.READ) == ends[key.ssl]["read"][0]
