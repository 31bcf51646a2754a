"""Configuration, state folder, disk, spool and token, as people leave them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mmproto.delivery import Spool, ensure_token
from mmsensor.doctor import local
from mmsensor.doctor.findings import Outcome
from tests.sensor.doctor.machines import Machine

OK, WARN, FAIL, SKIPPED = Outcome.OK, Outcome.WARN, Outcome.FAIL, Outcome.SKIPPED


def test_a_wrong_configuration_is_one_finding_and_the_rest_is_looked_at(computer: Machine) -> None:
    computer.configure("captre: {ring_bytes: 1}\nlog_level: loud\n")
    place = computer.look()
    finding = local.check_configuration(place)
    assert finding.outcome is FAIL
    assert finding.fact.startswith(f"{computer.config}:1: unknown key 'captre'; did you mean 'capture'?")
    assert finding.fact.endswith("(and 1 more)")
    assert place.settings.state_dir == computer.state, "what the command line gave still counts"


def test_a_valid_configuration_names_its_files(computer: Machine) -> None:
    assert local.check_configuration(computer.look()).fact == f"valid: {computer.config}"


def test_a_configuration_that_is_not_there(computer: Machine) -> None:
    computer.config.unlink()
    assert "cannot be read: No such file" in local.check_configuration(computer.look()).fact


def test_a_state_folder_that_is_there_and_one_that_can_be_made(computer: Machine) -> None:
    assert "can be made in" in local.check_state_folder(computer.look()).fact
    (computer.state / "sensor").mkdir()
    assert local.check_state_folder(computer.look()).fact == f"{computer.state / 'sensor'} may be written"


def test_a_state_folder_that_is_a_file(computer: Machine) -> None:
    computer.state.rmdir()
    computer.state.write_text("")
    finding = local.check_state_folder(computer.look())
    assert (finding.outcome, "is not a folder" in finding.fact) == (FAIL, True)


def test_room_on_the_disk(computer: Machine) -> None:
    assert local.check_disk(computer.look()).outcome is OK
    computer.configure("spool: {max_bytes: 1000000GiB}")
    assert local.check_disk(computer.look()).outcome is WARN


@pytest.mark.capture
def test_a_full_disk(computer: Machine) -> None:
    """A file system of 1 MiB; mounting it needs root, like the capture."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(computer.state)], check=True)
    try:
        (computer.state / "filler").write_bytes(bytes(1 << 20))
        finding = local.check_disk(computer.look())
        assert (finding.outcome, finding.fact.startswith("0 B free")) == (FAIL, True)
        assert local.check_state_folder(computer.look()).outcome is OK
    finally:
        subprocess.run(["umount", str(computer.state)], check=True)


def test_spools(computer: Machine) -> None:
    place = computer.look()
    assert local.check_spool(place).fact == "none yet: the sensor makes it"
    place.settings.folder.mkdir()
    spool = Spool(place.settings.spool_file, 1 << 20)
    spool.append([b"one"])
    spool.close()
    assert local.check_spool(place).outcome is OK
    damaged = place.settings.spool_file.with_name("spool.sqlite.damaged-17")
    damaged.write_bytes(b"")
    assert str(damaged) in local.check_spool(place).fact
    place.settings.spool_file.write_text("a letter to my aunt")
    assert "is no spool" in local.check_spool(place).fact


def test_a_file_as_sink_needs_neither_spool_nor_token(computer: Machine) -> None:
    computer.configure("sink: 'jsonl:/tmp/calls'")
    place = computer.look()
    for check in (local.check_disk, local.check_spool, local.check_token):
        assert check(place).fact.endswith("calls go to jsonl:/tmp/calls")


def test_tokens(computer: Machine) -> None:
    assert local.check_token(computer.look()).outcome is OK, "on one machine it is made by whoever is first"
    computer.configure("ingest: {url: 'http://pipeline.example:8780'}")
    finding = local.check_token(computer.look())
    assert (finding.outcome, finding.fix) == (WARN, "copy the pipeline's ingest.token there")
    ensure_token(computer.look().settings.token_file)
    assert local.check_token(computer.look()).outcome is OK
    assert ensure_token(computer.look().settings.token_file) not in local.check_token(computer.look()).fact


def test_looking_leaves_nothing_behind(computer: Machine) -> None:
    before = sorted(Path(computer.folder).rglob("*"))
    place = computer.look()
    for check in (local.check_state_folder, local.check_disk, local.check_spool, local.check_token):
        check(place)
    assert sorted(Path(computer.folder).rglob("*")) == before
