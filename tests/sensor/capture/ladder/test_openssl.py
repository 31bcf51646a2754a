"""OpenSSL in stripped programs, against the symbols that it had before."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsensor.capture.ladder import openssl
from mmsensor.capture.ladder.code import Code
from tests.sensor.capture.ladder.programs import entries, linked, opened, reason, stripped, truth

NAMES = ("ssl_read_internal", "ssl_write_internal", "SSL_free", "SSL_new")


@pytest.mark.parametrize("flags", [(), ("-static",), ("-no-pie",), ("-Wl,--no-eh-frame-hdr",)], ids=" ".join)
def test_static_programs(flags: tuple[str, ...], tmp_path: Path) -> None:
    program = linked(tmp_path, *flags)
    with opened(stripped(program, tmp_path)) as file:
        found = entries(openssl.locate(file))
    assert found == truth(program, NAMES)


def test_the_librarys_own_file(libssl: Path) -> None:
    """It exports some of what is looked for: the same functions by another way."""
    from mmsensor.capture.ladder.symbols import exported

    with opened(libssl) as file:
        found = entries(openssl.locate(file))
        assert found["SSL_free"] == exported(file, ["SSL_free"])["SSL_free"]
        code = Code(file)
        wrapper = code.body_from(file.address_of(exported(file, ["SSL_read_ex"])["SSL_read_ex"]))
        inner = file.address_of(found["ssl_read_internal"])
        assert any(str(each.op_str) == hex(inner) for each in wrapper)


def test_a_name_that_two_functions_raise_is_no_proof(tmp_path: Path) -> None:
    """Another function says that it is ssl_read_internal: nothing is certain any more."""
    raw = bytearray(stripped(linked(tmp_path), tmp_path).read_bytes())
    # `ssl_peek_internal` in all its errors becomes `ssl_read_internal`.
    assert raw.count(b"ssl_peek_internal\0") == 1
    at = raw.index(b"ssl_peek_internal\0")
    raw[at : at + 17] = b"ssl_read_internal"
    forged = tmp_path / "forged"
    forged.write_bytes(raw)
    with opened(forged) as file:
        assert reason(openssl.locate(file)) == "openssl_not_certain"


def test_a_program_without_it(tmp_path: Path) -> None:
    import _ssl

    with opened(Path(_ssl.__file__)) as file:
        assert openssl.locate(file) is None
