"""Connections that are older than the sensor: what it reads of them is right, what it cannot is a named loss.

HTTP/2 puts headers into tables that both ends have built since the beginning. Node's client never puts a
path into one, so its calls are read from the next one on. grpcio does: until it connects anew, its calls are
losses with a reason. Needs root and a kernel that attaches uprobes; fails, never skips, where it cannot run.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.e2e.reading import answers
from tests.e2e.reading.clients import ENDS_WITHIN_S, environment, side_by_side, xai
from tests.e2e.reading.sensor import in_order, measuring
from tests.e2e.reading.server import serving
from tests.e2e.stack import wait_for

pytestmark = pytest.mark.capture


def test_calls_on_connections_that_were_there_before(tmp_path: Path) -> None:
    with serving(tmp_path) as servers:
        node, grpcio = (
            subprocess.Popen(
                command, env=environment(servers), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for command in (side_by_side(servers, rounds=3), xai(servers, rounds=2))
        )
        with node, grpcio:
            assert node.stdout is not None and node.stdin is not None and grpcio.stdout is not None
            assert (node.stdout.readline(), grpcio.stdout.readline()) == ("round 1\n", "round\n")
            with measuring(tmp_path / "state", (node.pid, grpcio.pid), "bin/node", "cygrpc") as sensor:
                node.stdin.write("\n")
                node.stdin.flush()
                assert node.stdout.readline() == "round 2\n"
                for process in (node, grpcio):
                    process.communicate("\n", timeout=ENDS_WITHIN_S)
                    assert process.returncode == 0
                wait_for("six exchanges", lambda: sensor.events()["captured"] >= 6)
                read = [answer.read for answer in answers.CONVERSE_SIDE_BY_SIDE]
                assert sensor.read(node.pid) == in_order(read * 2)
                assert sensor.read(grpcio.pid) == []
                events = sensor.events()
                assert (events["emitted"], events["failed"]) == (4, {"hpack_unresolved": 2})
                assert events["balanced"]
