"""The spool: what was accepted stays until it is removed, whatever happens to process, disk or file."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmproto.delivery import Spool, SpoolFull, SpoolUnavailable

MEGABYTE = 1 << 20


def _drain(spool: Spool) -> list[bytes]:
    return [payload for _, payload in spool.peek(1_000_000)]


def test_records_come_out_in_order_and_stay_until_removed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.sqlite", MEGABYTE)
    spool.append([b"a", b"b"])
    spool.append([b"c"])
    batch = spool.peek(2)
    assert [payload for _, payload in batch] == [b"a", b"b"]
    assert spool.peek(2) == batch
    spool.remove(batch[0][0])
    assert _drain(spool) == [b"b", b"c"]
    assert len(spool) == 2
    spool.close()
    again = Spool(tmp_path / "s.sqlite", MEGABYTE)
    assert _drain(again) == [b"b", b"c"]
    assert again.statistics().payload_bytes == 2
    again.close()


def test_peek_keeps_to_its_size_but_always_gives_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.sqlite", MEGABYTE)
    spool.append([b"x" * 100, b"y" * 100, b"z"])
    assert len(spool.peek(10, max_bytes=150)) == 1
    assert len(spool.peek(10, max_bytes=1)) == 1
    assert len(spool.peek(10, max_bytes=200)) == 2
    spool.close()


def test_a_full_spool_refuses_the_new_and_keeps_the_old(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.sqlite", 10)
    spool.append([b"12345678"])
    with pytest.raises(SpoolFull, match="2 records were refused; bring back the pipeline") as caught:
        spool.append([b"9", b"0", b"a", b"b"])
    assert (caught.value.accepted, caught.value.reason) == (2, "spool_full")
    assert _drain(spool) == [b"12345678", b"9", b"0"]
    assert spool.statistics().refused == 2
    spool.remove(spool.peek(1)[0][0])
    spool.append([b"abcd"])
    assert _drain(spool) == [b"9", b"0", b"abcd"]
    spool.close()


def test_a_full_disk_refuses_whole_batches_and_recovers(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.sqlite", 100 * MEGABYTE, max_pages=32)
    stored = 0
    with pytest.raises(SpoolFull) as caught:
        while True:
            spool.append([b"x" * 1000] * 4)
            stored += 4
    assert (caught.value.reason, caught.value.accepted) == ("disk_full", 0)
    assert len(_drain(spool)) == stored == len(spool) > 0
    assert spool.statistics().refused == 4
    spool.remove(spool.peek(stored)[-1][0])
    spool.append([b"fits again"])
    assert _drain(spool) == [b"fits again"]
    spool.close()


def test_a_real_full_disk_is_refused_too() -> None:
    """/dev/full cannot hold a database; a tmpfs of 256 KiB can, and then no more."""
    code = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.unshare(os.CLONE_NEWNS) if hasattr(os, "unshare") else libc.unshare(0x20000)
libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None)
assert libc.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, b"size=256k") == 0, os.strerror(ctypes.get_errno())
from pathlib import Path
from mmproto.delivery import Spool, SpoolFull
spool = Spool(Path("/mnt/s.sqlite"), 1 << 30)
count = 0
try:
    while True:
        spool.append([b"x" * 500])
        count += 1
except SpoolFull as full:
    assert full.reason == "disk_full", full.reason
batch = spool.peek(1000)
assert len(batch) == count > 0, (len(batch), count)
spool.remove(batch[-1][0])
assert spool.peek(10) == [] and len(spool) == 0
print("ok", count)
"""
    if os.geteuid() != 0:
        pytest.fail("mounting the small disk needs root, as the capture tests do")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("ok"), done.stderr


@pytest.mark.parametrize("damage", [b"this is no database at all" * 100, None])
def test_a_damaged_file_is_set_aside_and_a_new_one_started(
    tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.sqlite"
    spool = Spool(path, MEGABYTE)
    spool.append([b"x" * 5000] * 20)
    spool.close()
    if damage is None:
        content = bytearray(path.read_bytes())
        content[4096:16384] = b"\xff" * 12288
        damage = bytes(content)
    path.write_bytes(damage)
    with caplog.at_level(logging.ERROR):
        fresh = Spool(path, MEGABYTE)
    assert "is damaged" in caplog.text
    assert fresh.statistics().damaged_files == 1
    aside = [file for file in tmp_path.iterdir() if ".damaged-" in file.name]
    assert [file.read_bytes() for file in aside if not file.name.endswith(("-wal", "-shm"))] == [damage]
    fresh.append([b"new"])
    assert _drain(fresh) == [b"new"]
    fresh.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.sqlite", MEGABYTE)
    with pytest.raises(SpoolUnavailable, match="in use by another process; stop that one"):
        Spool(tmp_path / "s.sqlite", MEGABYTE)
    spool.close()
    spool.close()
    Spool(tmp_path / "s.sqlite", MEGABYTE).close()


def test_a_folder_that_is_none_gives_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolUnavailable, match=r"cannot be written: .*choose another state folder"):
        Spool(tmp_path / "file" / "s.sqlite", MEGABYTE)


def test_records_set_aside_leave_the_queue_and_are_counted_for_ever(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.sqlite", MEGABYTE)
    spool.append([b"a", b"poison", b"b"])
    spool.set_aside(spool.peek(2)[1][0], "http_400")
    assert _drain(spool) == [b"a", b"b"]
    assert [(reason, payload) for _, reason, payload in spool.rejected()] == [("http_400", b"poison")]
    spool.remove(spool.peek(2)[-1][0])
    assert (len(spool), spool.statistics().payload_bytes) == (0, 0)
    spool.close()
    again = Spool(tmp_path / "s.sqlite", MEGABYTE)
    assert again.statistics().rejected_ever == 1
    again.close()


def test_a_killed_process_loses_no_record_whose_append_returned(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from mmproto.delivery import Spool
spool = Spool(Path(sys.argv[1]), 1 << 30)
number = 0
while True:
    spool.append([b"%d" % n for n in range(number, number + 7)])
    number += 7
    print(number, flush=True)
"""
    path = tmp_path / "s.sqlite"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(60)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().split()]
    process.stdout.close()
    process.wait()
    spool = Spool(path, 1 << 30)
    numbers = [int(payload) for payload in _drain(spool)]
    assert numbers == list(range(len(numbers)))
    assert acknowledged[-1] <= len(numbers) <= acknowledged[-1] + 7
    assert spool.statistics().damaged_files == 0
    spool.close()


def test_appending_and_removing_from_two_threads(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s.sqlite", 10 * MEGABYTE)
    seen: list[bytes] = []
    done = threading.Event()

    def consume() -> None:
        while not done.is_set() or len(spool):
            if batch := spool.peek(50):
                seen.extend(payload for _, payload in batch)
                spool.remove(batch[-1][0])

    consumer = threading.Thread(target=consume)
    consumer.start()
    for number in range(0, 400, 4):
        spool.append([b"%d" % n for n in range(number, number + 4)])
    done.set()
    consumer.join()
    assert seen == [b"%d" % n for n in range(400)]
    assert spool.statistics().payload_bytes == 0
    spool.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.lists(st.binary(max_size=20), max_size=5), st.integers(0, 6)), max_size=12))
def test_the_spool_is_a_queue_with_a_limit(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[bytes] | int]
) -> None:
    spool = Spool(tmp_path_factory.mktemp("q") / "s.sqlite", 60)
    model: list[bytes] = []
    for step in steps:
        if isinstance(step, int):
            batch = spool.peek(step)
            assert [payload for _, payload in batch] == model[:step]
            if batch:
                spool.remove(batch[-1][0])
            model = model[len(batch) :]
            continue
        fits: list[bytes] = []
        for record in step:
            if sum(map(len, model + fits)) + len(record) > 60:
                break
            fits.append(record)
        try:
            spool.append(step)
            assert fits == step
        except SpoolFull as full:
            assert full.accepted == len(fits) < len(step)
        model += fits
    assert (_drain(spool), len(spool)) == (model, len(model))
    assert spool.statistics().payload_bytes == sum(map(len, model))
    spool.close()
