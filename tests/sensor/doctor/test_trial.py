"""The doctor's own trials, and the whole command, on this machine and in the corners of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmproto.exits import Exit
from mmsensor.doctor.checks import CHECKS
from tests.sensor.limited import FIVE, limited, open_to_all

pytestmark = pytest.mark.capture

MMSENSOR = str(Path(sys.executable).parent / "mmsensor")
VERDICTS = {"healthy": Exit.OK, "degraded": Exit.DEGRADED, "unhealthy": Exit.UNHEALTHY}
OWN_NAMESPACE = ("unshare", "--mount", "--propagation", "private", "sh", "-euc")


class Report:
    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert "Traceback" not in done.stderr, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        self.checks = {check["name"]: check for check in document["checks"]}
        assert list(self.checks) == [check.name for check in CHECKS], "all of them, in order"
        assert done.returncode == VERDICTS[document["verdict"]]
        for check in self.checks.values():
            # One line each; and whoever is told that something is wrong is told what to do.
            assert "\n" not in check["fact"] + check["fix"]
            assert bool(check["fix"]) == (check["outcome"] != "ok"), check

    def outcome(self, name: str) -> str:
        return str(self.checks[name]["outcome"])

    def fact(self, name: str) -> str:
        return str(self.checks[name]["fact"])


def doctor(state: Path, *options: str) -> list[str]:
    return [MMSENSOR, "doctor", "--state-dir", str(state), *options]


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELMETER_")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=kept, timeout=120)


def examined(command: Sequence[str]) -> Report:
    return Report(run(command))


def elsewhere(change: str, command: Sequence[str]) -> list[str]:
    """The command in a mount namespace of its own, after a change to it."""
    return [*OWN_NAMESPACE, f'{change}\nexec "$@"', "sh", *command]


def test_as_root_everything_is_tried(tmp_path: Path) -> None:
    report = examined(doctor(tmp_path, "-o", "json"))
    for name in ("kernel", "btf", "capabilities", "libbpf", "object", "bpf", "links", "discovery", "capture"):
        assert report.outcome(name) == "ok", report.checks[name]
    assert "4099 bytes each way, captured by uprobe_" in report.fact("capture")


def test_every_form_says_the_same(tmp_path: Path) -> None:
    # In a pid namespace of its own nothing else of the machine moves between the three.
    alone = ["unshare", "--pid", "--fork", "--mount-proc"]
    table, as_json, as_yaml = (
        run([*alone, *doctor(tmp_path, "-o", form)]) for form in ("table", "json", "yaml")
    )
    assert table.returncode == as_json.returncode == as_yaml.returncode == Exit.UNHEALTHY
    document = json.loads(as_json.stdout)
    told = yaml.safe_load(as_yaml.stdout)
    assert [(check["name"], check["outcome"]) for check in told["checks"]] == [
        (check["name"], check["outcome"]) for check in document["checks"]
    ]
    rows = [line.split()[:2] for line in table.stdout.splitlines() if line[:1].strip() and "  " in line]
    assert rows[1:] == [[check["outcome"], check["name"]] for check in document["checks"]]


def test_as_an_ordinary_user_it_says_what_it_could_not_find_out(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    report = examined(limited([], doctor(tmp_path, "-o", "json")))
    assert report.outcome("capabilities") == "warn"
    for name in ("bpf", "discovery", "capture", "others", "state"):
        assert report.outcome(name) == "skipped", report.checks[name]
    assert report.outcome("links") == report.outcome("libbpf") == "ok"


def test_with_the_rights_of_the_unit_the_capture_is_tried_and_works(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    report = examined(limited(FIVE, doctor(tmp_path, "-o", "json")))
    for name in ("capabilities", "bpf", "discovery", "capture"):
        assert report.outcome(name) == "ok", report.checks[name]


@pytest.mark.parametrize(
    ("change", "failed", "word"),
    [
        ("umount --lazy /sys", "btf", "is not the kernel's"),
        ("mount -t tmpfs none /proc", "capabilities", "is not the kernel's"),
        (
            "for file in $(ldconfig -p | sed -n 's/.*libbpf.*=> //p'); do mount --bind /dev/null $file; done",
            "libbpf",
            "",
        ),
        ("mount --bind /etc/hostname {object}", "object", "cut short"),
        ("mount --bind /bin/sh {object}", "object", "is no BPF object"),
    ],
)
def test_what_is_gone_is_the_one_failure_that_is_named(
    tmp_path: Path, change: str, failed: str, word: str
) -> None:
    import mmsensor._bpf

    probes = Path(mmsensor._bpf.__file__).with_name("tls.bpf.o")
    report = examined(elsewhere(change.format(object=probes), doctor(tmp_path, "-o", "json")))
    assert [name for name in report.checks if report.outcome(name) == "fail"] == [failed]
    assert word in report.fact(failed)
    assert report.outcome("capture") == "skipped"


def test_in_a_user_namespace_and_in_a_pid_namespace(tmp_path: Path) -> None:
    within = examined(["unshare", "--user", "--map-root-user", *doctor(tmp_path, "-o", "json")])
    assert "user namespace" in within.fact("namespaces")
    assert "user namespace" in within.fact("bpf")
    within = examined(["unshare", "--pid", "--fork", "--mount-proc", *doctor(tmp_path, "-o", "json")])
    assert "pid namespace" in within.fact("namespaces")
    assert within.fact("capture") == "not tried, because it rests on `namespaces`"


def test_a_configuration_that_this_user_may_not_read(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    config = tmp_path / "closed" / "sensor.yaml"
    config.parent.mkdir(0o700)
    config.write_text("sink: ingest\n")
    report = examined(limited([], doctor(tmp_path, "-o", "json", "--config", str(config))))
    assert report.fact("configuration").startswith(f"{config}: cannot be read: Permission denied")


def test_etc_closed_to_this_user(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    change = "mount -t tmpfs none /etc; mkdir -m 700 /etc/modelmeter; touch /etc/modelmeter/sensor.yaml"
    report = examined(elsewhere(change, limited([], doctor(tmp_path, "-o", "json"))))
    assert "/etc/modelmeter/sensor.yaml: cannot be read: Permission denied" in report.fact("configuration")
