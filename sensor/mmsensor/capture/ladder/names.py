"""The cheap strategies: functions that a symbol table names, and files whose own name promises TLS."""

from __future__ import annotations

import re

from mmsensor.capture import hooks
from mmsensor.capture.functions import Confidence, Function, Located, NotCovered
from mmsensor.capture.ladder import symbols
from mmsensor.capture.ladder.elf import ElfFile

#: Names of files that promise TLS. What has one, and nothing in it that we know, is reported and not probed.
_PROMISES = (
    (
        re.compile(r"libssl[-.]|libboringssl"),
        "no_exported_tls_functions",
        "it exports none of the functions we know",
    ),
    (
        re.compile(r"(node|bun|deno|claude|electron)$"),
        "no_exported_tls_functions",
        "it speaks TLS, with nothing in it that we know",
    ),
    (re.compile(r"libgnutls[-.]"), "gnutls_not_supported", "GnuTLS is not followed"),
    (re.compile(r"libnss3\.so|libnspr4\.so"), "nss_not_supported", "NSS is not followed"),
    (re.compile(r"libmbedtls[-.]"), "mbedtls_not_supported", "Mbed TLS is not followed"),
    (re.compile(r"libwolfssl[-.]"), "wolfssl_not_supported", "wolfSSL is not followed"),
    (re.compile(r"libs2n[-.]"), "s2n_not_supported", "s2n-tls is not followed"),
)


def exported(file: ElfFile) -> Located | None:
    """Functions of the dynamic symbol table, whatever the file is called."""
    functions = tuple(
        Function(name, offset) for name, offset in symbols.exported(file, hooks.SYMBOLS).items()
    )
    if not hooks.sufficient([each.name for each in functions]):
        return None
    return Located("exported", Confidence.EXPORTED, "exported by name", functions)


def local(file: ElfFile) -> Located | None:
    """Functions of the full symbol table: a linked-in library in a program that is not stripped. Where two
    copies are linked in, both are meant."""
    functions = tuple(Function(symbol.name, symbol.offset) for symbol in symbols.named(file, hooks.SYMBOLS))
    if not hooks.sufficient([each.name for each in functions]):
        return None
    return Located("local", Confidence.NAMED, "linked in, with its symbols", functions)


def promised(name: str) -> NotCovered | None:
    """What the file's name says, where nothing else did."""
    for pattern, reason, why in _PROMISES:
        if pattern.match(name):
            return NotCovered(reason, why)
    return None
