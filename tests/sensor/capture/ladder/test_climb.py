"""The whole ladder over real files: what is known at once, what a search finds, and what is remembered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mmsensor.capture.functions import Confidence, Located, NotCovered
from mmsensor.capture.ladder import search as searching
from mmsensor.capture.ladder.climb import Ladder, Search
from mmsensor.capture.ladder.findings import Unfit, from_json, to_json
from mmsensor.capture.ladder.table import Finding
from tests.sensor.capture.ladder.programs import entries, linked, opened, reason, stripped


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linked(tmp_path_factory.mktemp("program"), "-Wl,--build-id")


@pytest.fixture(scope="module")
def nameless(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stripped(program, tmp_path_factory.mktemp("nameless"))


def looked(path: Path, ladder: Ladder | None = None) -> Finding | Search:
    with opened(path) as file:
        return (ladder or Ladder(None)).look(file, path.name)


def searched(path: Path, ladder: Ladder) -> Finding:
    with opened(path) as file:
        first = ladder.look(file, path.name)
        assert isinstance(first, Search)
        return ladder.search(file, path.name, first.strategies)


def strategy(finding: Finding | Search) -> tuple[str, Confidence]:
    assert isinstance(finding, Located), finding
    return finding.strategy, finding.confidence


# -- at once ---------------------------------------------------------------------------------------


def test_exported_under_any_name(libssl: Path, tmp_path: Path) -> None:
    copy = tmp_path / "innocent.bin"
    shutil.copy(libssl, copy)
    assert strategy(looked(copy)) == ("exported", Confidence.EXPORTED)


def test_linked_in_with_symbols(program: Path) -> None:
    finding = looked(program)
    assert strategy(finding) == ("local", Confidence.NAMED)
    assert {"SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex", "SSL_free"} <= set(entries_of(finding))


def entries_of(finding: Finding | Search) -> dict[str, int]:
    assert not isinstance(finding, Search)
    return entries(finding)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("libssl-x.so", "no_exported_tls_functions"),
        ("libgnutls.so.30", "gnutls_not_supported"),
        ("libnss3.so", "nss_not_supported"),
        ("libmbedtls.so.14", "mbedtls_not_supported"),
        ("libwolfssl.so.42", "wolfssl_not_supported"),
        ("libs2n.so.1", "s2n_not_supported"),
    ],
)
def test_a_name_that_promises_tls(name: str, why: str, tmp_path: Path) -> None:
    library = tmp_path / name
    (tmp_path / "nothing.c").write_text("int nothing_to_see(void) { return 1; }")
    subprocess.run(["cc", "-shared", "-fPIC", str(tmp_path / "nothing.c"), "-o", str(library)], check=True)
    finding = looked(library)
    assert isinstance(finding, NotCovered)
    assert finding.reason == why
    renamed = library.rename(tmp_path / "libelse.so")
    assert looked(renamed) is None


# -- by a search -----------------------------------------------------------------------------------


def test_a_search_and_what_is_remembered_of_it(nameless: Path, tmp_path: Path) -> None:
    remembered = tmp_path / "findings.json"
    found = searched(nameless, Ladder(remembered))
    assert strategy(found) == ("openssl", Confidence.PROVEN)
    assert remembered.stat().st_mode & 0o777 == 0o600

    copy = tmp_path / "elsewhere"
    shutil.copy(nameless, copy)
    again = looked(copy, Ladder(remembered))
    assert strategy(again) == ("openssl", Confidence.KNOWN)
    assert entries_of(again) == entries(found)


def test_a_build_id_is_not_believed_alone(nameless: Path, tmp_path: Path) -> None:
    ladder = Ladder(tmp_path / "findings.json")
    found = entries(searched(nameless, ladder))
    longer = tmp_path / "longer"
    longer.write_bytes(nameless.read_bytes() + b"payload")
    assert isinstance(looked(longer, ladder), Search)

    raw = bytearray(nameless.read_bytes())
    raw[found["ssl_read_internal"]] ^= 0xFF
    forged = tmp_path / "forged"
    forged.write_bytes(raw)
    assert isinstance(looked(forged, ladder), Search)


def test_a_program_without_build_id_is_known_by_its_file(tmp_path: Path) -> None:
    bare = stripped(linked(tmp_path, "-Wl,--build-id=none"), tmp_path)
    remembered = tmp_path / "findings.json"
    ladder = Ladder(remembered)
    searched(bare, ladder)
    assert strategy(looked(bare, ladder)) == ("openssl", Confidence.KNOWN)
    assert not remembered.exists()
    os.utime(bare, ns=(1, 1))
    assert isinstance(looked(bare, ladder), Search)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 1}',
        b'{"version": "VERSION", "builds": 3}',
        b'{"version": "VERSION", "builds": {"a": 3}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_damaged_memory_is_put_aside(damage: bytes, tmp_path: Path, nameless: Path) -> None:
    from mmsensor.capture.ladder import cache

    remembered = tmp_path / "findings.json"
    remembered.write_bytes(damage.replace(b"VERSION", cache._version().encode()))
    ladder = Ladder(remembered)
    assert isinstance(looked(nameless, ladder), Search)
    if damage != b'{"version": 1}':  # that is only another version's
        assert not remembered.exists()
        assert (tmp_path / "findings.damaged").exists()


def test_what_is_remembered_is_checked(nameless: Path, tmp_path: Path) -> None:
    remembered = tmp_path / "findings.json"
    searched(nameless, Ladder(remembered))
    document = json.loads(remembered.read_text())
    (form,) = document["builds"].values()
    # The middle of the constants: inside of the file, but nothing that is ever run.
    with opened(nameless) as file:
        section = file.section(".rodata")
        assert section is not None
    for wrong in (section.offset, 1 << 40, -1, "0", None, 1.5):
        form["finding"]["functions"][0]["entry"] = wrong
        remembered.write_text(json.dumps(document))
        assert isinstance(looked(nameless, Ladder(remembered)), Search)


def test_a_memory_that_cannot_be_written_is_no_fault(nameless: Path, tmp_path: Path) -> None:
    ladder = Ladder(tmp_path / "absent" / "findings.json")
    searched(nameless, ladder)
    assert strategy(looked(nameless, ladder)) == ("openssl", Confidence.KNOWN)


# -- the child -------------------------------------------------------------------------------------


def test_findings_survive_the_wire(nameless: Path) -> None:
    with opened(nameless) as file:
        found = Ladder(None).search(file, "x", ("openssl",))
        for finding in (found, NotCovered("some_reason", "why"), None):
            assert from_json(json.loads(json.dumps(to_json(finding))), file) == finding
        absurd: list[object] = [
            [],
            {"reason": 1, "why": ""},
            {"functions": []},
            {"reason": "x" * 1000, "why": ""},
        ]
        for nonsense in absurd:
            with pytest.raises(Unfit):
                from_json(nonsense, file)


def test_a_search_that_is_stopped(nameless: Path) -> None:
    stop = threading.Event()
    stop.set()
    with opened(nameless) as file:
        assert reason(searching.search(file, ["openssl"], stop)) == searching.FAILED


def test_a_search_for_nothing(nameless: Path) -> None:
    with opened(nameless) as file:
        assert searching.search(file, ["boringssl"], threading.Event()) is None


def test_the_child_has_no_rights(tmp_path: Path) -> None:
    """Asked from inside: nobody, no capabilities, no new ones, little memory."""
    script = (
        "from mmsensor.capture.ladder.child import _confine; import os, resource; _confine(1 << 20)\n"
        "print(os.getresuid(), os.getgroups(), resource.getrlimit(resource.RLIMIT_AS)[1])\n"
        "rights = ('CapEff', 'CapPrm', 'NoNewPrivs')\n"
        "print([each for each in open('/proc/self/status') if each.startswith(rights)])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    if os.geteuid() == 0:
        assert first.startswith("(65534, 65534, 65534) []")
    assert first.endswith(str((1 << 20) + (512 << 20)))
    assert second.count("\\t0000000000000000\\n") == 2
    assert "NoNewPrivs:\\t1" in second
