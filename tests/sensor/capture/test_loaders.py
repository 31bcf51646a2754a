"""The same probes through both loaders: libbpf, and BCC for kernels without BTF."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mmproto.reader import Direction
from mmsensor.capture.kernel import bcc, btf, dialect
from mmsensor.capture.kernel.dialect import Field
from mmsensor.capture.kernel.probes import UPROBE_PROGRAMS, object_path
from mmsensor.capture.options import CaptureOptions, LinkKind, Loader
from tests.sensor.capture.recorder import Recorder, Workload, python, recording, started
from tests.sensor.capture.test_completeness import SIZES, Certificate, assert_same, libssl_workload

#: What the verifier walks for BCC (MM_CHUNKS_WITHOUT_LOOP in bpf/abi.h), in bytes.
LONGEST_BCC_CALL = 128 << 14

DECLARATIONS = """\
struct inner {
 unsigned long before;
 struct {
  int counter;
 } live;
} MM_CORE;
struct outer {
 struct inner *inner;
} MM_CORE;
struct {
 __uint(type, BPF_MAP_TYPE_LRU_HASH);
 __uint(map_flags, BPF_F_NO_PREALLOC);
 __uint(max_entries, 65536);
 __type(key, struct key);
 __type(value, struct value);
} first SEC(".maps");
struct {
 __uint(type, BPF_MAP_TYPE_RINGBUF);
 __uint(max_entries, 8 << 20);
} second SEC(".maps");
SEC("uretprobe/leave")
int leave(struct pt_regs *ctx)
{
 return ask(MM_NUMBER_OF(second), ((struct outer *)ctx)->inner->live.counter);
}
"""


def run(workload: Workload, recorder: Recorder) -> list[dict[str, Any]]:
    """The ends of one connection, as the workload that carried its bytes saw them."""
    workload.line()
    workload.go()
    workload.line()
    workload.go()
    ends: list[dict[str, Any]] = recorder.result(workload)["ends"]
    recorder.until_closed(2)
    return ends


@pytest.mark.capture
@pytest.mark.parametrize("kind", list(LinkKind))
@pytest.mark.parametrize("loader", list(Loader))
def test_every_size_both_directions(
    loader: Loader, kind: LinkKind, libssl: Path, certificate: Certificate
) -> None:
    sizes = [size for size in SIZES if loader is Loader.LIBBPF or size <= LONGEST_BCC_CALL]
    command = libssl_workload(libssl, certificate, "sizes", sizes=sizes)
    options = CaptureOptions(loader=loader, link_kind=kind, ring_bytes=128 << 20)
    with started(command) as workload, recording([workload.pid], options) as recorder:
        assert_same(recorder, run(workload, recorder))
        assert {seen.closed for seen in recorder.seen.values()} == {"ssl_free"}
        assert [seen.late for seen in recorder.seen.values()] == [False, False]
        statistics = recorder.capture.statistics()
        assert (statistics.loader, statistics.link_kind) == (loader, kind)
        assert not any(statistics.lost.values())
        assert statistics.calls >= len(sizes) * 4 * 2


@pytest.mark.capture
@pytest.mark.parametrize("loader", list(Loader))
def test_a_ring_too_small_and_a_verdict(loader: Loader, libssl: Path, certificate: Certificate) -> None:
    """Captured and lost is sent; what is ignored from then on is neither."""
    options = CaptureOptions(loader=loader, ring_bytes=4096)
    command = libssl_workload(libssl, certificate, "verdict", rounds=2)
    with started(command) as workload, recording([workload.pid], options) as recorder:
        workload.line()
        workload.go()
        sent = sum(moved(end) for end in json.loads(workload.line()))
        recorder.settle()
        first = recorder.capture.statistics()
        assert first.lost_bytes["ring_full"] > 0
        assert first.bytes + first.lost_bytes["ring_full"] == sent
        for key in recorder.order:
            recorder.capture.set_verdict(key, interesting=False)
        workload.go()
        workload.line()
        recorder.settle()
        second = recorder.capture.statistics()
        assert second.ignored_calls >= 20
        assert second.calls == first.calls


def moved(end: dict[str, Any]) -> int:
    return int(end["write"][0]) + int(end["read"][0])


@pytest.mark.capture
def test_a_call_too_long_for_bcc_is_counted(libssl: Path, certificate: Certificate) -> None:
    size = LONGEST_BCC_CALL + 1_000_003
    options = CaptureOptions(loader=Loader.BCC, ring_bytes=64 << 20)
    command = libssl_workload(libssl, certificate, "sizes", sizes=[size])
    with started(command) as workload, recording([workload.pid], options) as recorder:
        ends = run(workload, recorder)
        statistics = recorder.capture.statistics()
        # The library reads 16 KiB at a time, so that only the writes are too long.
        beyond = sum(end["write"][0] // size for end in ends) * (size - LONGEST_BCC_CALL)
        assert statistics.lost_bytes["call_too_long"] == beyond > 0
        assert statistics.bytes + beyond == sum(moved(end) for end in ends)
        for end in ends:
            (seen,) = recorder.by_ssl(end["ssl"])
            assert seen.size(Direction.WRITE) == end["write"][0]
            assert seen.digest(Direction.READ) == end["read"]
            assert seen.lost() == end["write"][0] // size * (size - LONGEST_BCC_CALL)


@pytest.mark.capture
def test_without_btf_only_this_kernels_headers_will_do() -> None:
    """With others every place in the kernel's memory, and with it every number, would be a guess."""
    masked = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
    sensor = python("sensor", LinkKind.PERF_EVENT, Loader.BCC)
    command = ["unshare", "--mount", "sh", "-c", masked, "sh", *sensor]
    result = subprocess.run(command, check=False, capture_output=True, text=True, input="\n")
    release = os.uname().release
    if bcc.headers(release).release == release:
        assert result.stdout == "started\n"
    else:
        assert "the kernel has no BTF, and the headers found are those of" in result.stderr
        assert f"install linux-headers-{release}" in result.stderr


def test_the_newest_headers_of_another_kernel_where_there_are_none(tmp_path: Path) -> None:
    def install(release: str, folder: Path) -> None:
        (folder / "include/generated").mkdir(parents=True)
        (folder / "include/generated/utsrelease.h").write_text(f'#define UTS_RELEASE "{release}"\n')

    for release in ("5.15.0-1-amd64", "6.1.0-9-amd64", "6.1.0-10-amd64"):
        install(release, tmp_path / "lib/modules" / release / "build")
    assert bcc.headers("5.15.0-1-amd64", tmp_path).release == "5.15.0-1-amd64"
    found = bcc.headers("6.18.0", tmp_path)
    assert (found.release, found.flags()) == ("6.1.0-10-amd64", [])
    # As Debian has them, in two folders; and where only the package can be seen.
    (tmp_path / "lib/modules/6.1.0-10-amd64/source").mkdir()
    found = bcc.headers("6.18.0", tmp_path)
    assert f"-I{tmp_path}/lib/modules/6.1.0-10-amd64/build/include" in found.flags()
    install("6.12.0-1-amd64", tmp_path / "usr/src/linux-headers-6.12.0-1-amd64")
    (tmp_path / "usr/src/linux-headers-6.12.0-1-common").mkdir()
    for release in ("6.12.0-1-amd64", "6.18.0"):
        found = bcc.headers(release, tmp_path)
        assert found.release == "6.12.0-1-amd64"
        assert found.source == tmp_path / "usr/src/linux-headers-6.12.0-1-common"


def test_declarations_in_bccs_words() -> None:
    assert dialect.maps(DECLARATIONS) == ["first", "second"]
    assert dialect.programs(DECLARATIONS) == {"leave": "uretprobe"}
    wanted = dialect.fields(DECLARATIONS)
    assert wanted == [Field("inner", "before"), Field("inner", "live"), Field("outer", "inner")]
    places = {field: 8 * number for number, field in enumerate(wanted)}
    text = dialect.translated(DECLARATIONS, places, {"second": 4096}, ["first"])
    assert "char at_live[8]; struct {\n  int counter;\n } live; } __attribute__((packed));" in text
    assert "char at_inner[16]; struct inner___mm *inner; } __attribute__((packed));" in text
    assert 'BPF_F_TABLE("lru_hash", struct key, struct value, first, 65536, 0);' in text
    assert "BPF_RINGBUF_OUTPUT(second, (4096) / PAGE_SIZE);" in text
    assert "ask(-2, ((struct outer___mm *)ctx)" in text


def test_every_program_is_in_the_text() -> None:
    text = object_path(Loader.BCC).read_text()
    kinds = dialect.programs(text)
    assert {name for name, kind in kinds.items() if kind != "raw_tracepoint"} == set(UPROBE_PROGRAMS)
    assert "MM_CORE" not in dialect.translated(text, dict.fromkeys(dialect.fields(text), 0), {}, [])


def test_places_in_the_kernels_structs() -> None:
    """Those that never move, one inside of unnamed ones, and what is not there."""
    wanted = [("list_head", "next"), ("list_head", "prev"), ("sock_common", "skc_daddr"), ("sock", "nothing")]
    wanted.append(("no_such_struct", "next"))
    assert btf.offsets(btf.KERNEL_BTF.read_bytes(), wanted) == {
        ("list_head", "next"): 0,
        ("list_head", "prev"): 8,
        ("sock_common", "skc_daddr"): 0,
    }
