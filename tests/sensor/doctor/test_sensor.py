"""The sensor that runs, as the doctor asks it, and others' probes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mmsensor.control import JSON, TEXT, Answer, ControlServer
from mmsensor.doctor import sensor
from mmsensor.doctor.findings import Outcome
from tests.sensor.capture.recorder import python, started
from tests.sensor.doctor.machines import Machine

OK, WARN, FAIL = Outcome.OK, Outcome.WARN, Outcome.FAIL
LINK = "pos:\t0\nlink_type:\t{kind}\nlink_id:\t7\n{path}"


def test_no_sensor(computer: Machine) -> None:
    finding = sensor.check_sensor(computer.look())
    assert (finding.outcome, finding.fact.startswith("no sensor answers at ")) == (WARN, True)


@pytest.mark.parametrize(
    ("status", "outcome", "fact"),
    [
        ({"verdict": "healthy", "reasons": []}, OK, "it runs, and is healthy"),
        ({"verdict": "degraded", "reasons": ["a", "b"]}, WARN, "it runs, and is degraded: a; b"),
        ({"verdict": "unhealthy", "reasons": ["c"]}, FAIL, "it runs, and is unhealthy: c"),
        ({"something": "else"}, FAIL, "is no sensor of this version"),
        ("not a mapping", FAIL, "is no sensor of this version"),
        (None, FAIL, "is no sensor of this version"),
    ],
)
def test_a_sensor_with_its_verdict(computer: Machine, status: Any, outcome: Outcome, fact: str) -> None:
    place = computer.look()
    place.settings.folder.mkdir()
    answer = Answer(503, TEXT, "no") if status is None else Answer(200, JSON, json.dumps(status))
    control = ControlServer()
    control.add_unix(place.settings.control_socket, {"/status": lambda: answer})
    control.start()
    finding = sensor.check_sensor(place)
    control.close()
    assert finding.outcome is outcome
    assert fact in finding.fact


def holds_link(computer: Machine, kind: str, path: str) -> None:
    """Process 4242 does."""
    computer.write("proc/4242/comm", "sniffer\n")
    computer.write("proc/4242/fdinfo/7", LINK.format(kind=kind, path=path))
    computer.write("proc/4242/fdinfo/8", "pos:\t0\n")
    descriptors = computer.proc / "4242" / "fd"
    descriptors.mkdir()
    (descriptors / "7").symlink_to("anon_inode:bpf_link")
    (descriptors / "8").symlink_to("/usr/lib/libssl.so.3")


@pytest.mark.parametrize(
    ("kind", "path", "named"),
    [
        ("uprobe_multi", "path:\t/usr/lib/libssl.so.3\n", True),
        ("uretprobe_multi", "path:\t/opt/x/libssl-1a2b.so.3\n", True),
        ("uprobe_multi", "", True),
        ("uprobe_multi", "path:\t/usr/lib/libc.so.6\n", False),
        ("tracing", "", False),
        ("perf", "event_type:\tuprobe\nname:\t/usr/lib/libssl.so.3\n", True),
        ("perf", "event_type:\tkprobe\nname:\tdo_exit\n", False),
    ],
)
def test_others_that_probe_are_named(computer: Machine, kind: str, path: str, named: bool) -> None:
    holds_link(computer, kind, path)
    finding = sensor.check_other_sensors(computer.look())
    assert finding.outcome is (WARN if named else OK)
    assert ("sniffer (4242" in finding.fact) is named


@pytest.mark.capture
@pytest.mark.parametrize("kind", ["uprobe_session", "uprobe_multi", "perf_event"])
def test_a_real_one_is_found(computer: Machine, kind: str) -> None:
    with started(python("sensor", kind)) as other:
        assert other.line() == "started"
        (computer.proc / str(other.pid)).symlink_to(f"/proc/{other.pid}")
        assert f"({other.pid}, " in sensor.check_other_sensors(computer.look()).fact


def test_our_own_sensor_is_none_of_the_others(computer: Machine) -> None:
    place = computer.look()
    place.settings.folder.mkdir()
    holds_link(computer, "uprobe_multi", "path:\t/usr/lib/libssl.so.3\n")
    control = ControlServer()
    answer = Answer(200, JSON, json.dumps({"identity": {"pid": 4242}}))
    control.add_unix(place.settings.control_socket, {"/status": lambda: answer})
    control.start()
    finding = sensor.check_other_sensors(place)
    control.close()
    assert finding.outcome is OK
