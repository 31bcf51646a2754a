"""BoringSSL in stripped programs: against the symbols of one that has them, and against damage."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from capstone import x86

from mmsensor.capture.ladder import body, boringssl
from mmsensor.capture.ladder.code import Code
from tests.sensor.capture.ladder.programs import entries, opened, reason, stripped, truth

#: In BoringSSL's own words; SSL_free is probed where it gives a connection's state back.
NAMES = {
    "SSL_read": "SSL_read",
    "SSL_write": "SSL_write",
    "_ZN4bssl7tls_newEPNS_7SSLImplE": "tls_new",
    "_ZN4bssl8tls_freeEPNS_7SSLImplE": "SSL_free",
    "SSL_set_tlsext_host_name": "SSL_set_tlsext_host_name",
}


def in_wheel(package: str, pattern: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, f"{package} is not installed: run `make setup-dev`"
    return next(Path(spec.origin).parent.rglob(pattern))


@pytest.fixture(scope="module")
def named() -> Path:
    """A wheel that was built with symbols: curl-impersonate's BoringSSL, by clang with -O2."""
    return in_wheel("curl_cffi", "_wrapper*.so")


@pytest.fixture(scope="module")
def nameless(named: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stripped(named, tmp_path_factory.mktemp("nameless"))


def test_what_the_symbols_say(named: Path, nameless: Path) -> None:
    with opened(nameless) as file:
        found = entries(boringssl.locate(file))
    assert found == {NAMES[name]: offset for name, offset in truth(named, list(NAMES)).items()}


def test_without_an_unwind_table(nameless: Path, tmp_path: Path) -> None:
    """bun has none. This compiler's padding does not tell where functions begin, so nothing is certain."""
    bare = tmp_path / "bare"
    subprocess.run(
        ["objcopy", "--remove-section=.eh_frame_hdr", "--remove-section=.eh_frame", nameless, bare],
        check=True,
    )
    raw = bytearray(bare.read_bytes())
    with opened(bare) as file:
        at = next(number for number, each in enumerate(file.segments) if each.kind == 0x6474E550)
    raw[64 + at * 56 : 64 + at * 56 + 4] = bytes(4)  # the header that says where it was
    bare.write_bytes(raw)
    with opened(bare) as file:
        assert reason(boringssl.locate(file)) == "boringssl_not_certain"


def test_grpcio() -> None:
    """By gcc, which lays the same functions out another way. There is nobody to say what is right here; that
    bytes written are bytes captured is for the coverage matrix to show."""
    with opened(in_wheel("grpc", "cygrpc*.so")) as file:
        assert set(entries(boringssl.locate(file))) == set(NAMES.values())


def test_no_check_is_idle(nameless: Path, tmp_path: Path) -> None:
    """One changed instruction at a time in what makes the functions certain, and none of them is any more."""
    original = nameless.read_bytes()
    changed = tmp_path / "changed"
    with opened(nameless) as file:
        code = Code(file)
        places = list(_changes(code, entries(boringssl.locate(file))))
    assert len(places) >= 10
    for what, offset, value in places:
        raw = bytearray(original)
        raw[offset : offset + len(value)] = value
        changed.write_bytes(raw)
        with opened(changed) as file:
            assert reason(boringssl.locate(file)) == "boringssl_not_certain", what


def _changes(code: Code, found: dict[str, int]) -> Iterator[tuple[str, int, bytes]]:
    """(what, file offset, new bytes)."""
    functions = {name: code.body_from(code.file.address_of(offset)) for name, offset in found.items()}
    for name in ("SSL_read", "SSL_write"):
        for each in functions[name]:
            last = code.file.offset_of(each.address) + each.size - 4
            if each.id == x86.X86_INS_MOV and body.register(each, 0) == "rdx" and body.immediate(each, 1):
                yield f"a reason of {name}", last, (1).to_bytes(4, "little")
            if each.id == x86.X86_INS_MOV and body.register(each, 0) == "r8" and body.immediate(each, 1):
                yield f"a line of {name}", last, (1 if name == "SSL_write" else 9999).to_bytes(4, "little")
    for each in functions["SSL_read"]:
        if each.id == x86.X86_INS_MOV and {0x88} == body.stored([each]):
            at = code.file.offset_of(each.address)
            yield "where it moves on in its data", at + each.size - 4, (0x98).to_bytes(4, "little")
    for each in functions["SSL_free"]:
        if body.cleared([each]):
            at = code.file.offset_of(each.address)
            yield "what it clears at the end", at + each.size - 5, b"\x38"


def test_a_program_without_it(libssl: Path) -> None:
    with opened(libssl) as file:
        assert boringssl.locate(file) is None
