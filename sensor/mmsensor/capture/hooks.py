"""Which functions are probed, by which programs. Data, not code: a new function is a row."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from mmsensor.capture.kernel.abi import Form


class Way(StrEnum):
    """Which programs of bpf/tls.bpf.c go where on a function."""

    CALL = "call"  # moves bytes: entry and return, or both in a session
    GO = "go"  # the same in Go, whose return addresses may not be touched
    NEW = "new"  # returns a connection
    BEGIN = "begin"  # is given a connection that begins
    CLEAR = "clear"  # makes it ready for another use
    CONTROL = "ctrl"  # may name the host
    HOST_NAME = "host_name"  # names the host
    FREE = "free"  # ends it
    GO_BIRTH = "go_birth"
    GO_CLOSE = "go_close"


@dataclass(frozen=True, slots=True)
class Hook:
    """One function. `moves` is "read" or "write" where it carries bytes, as `form` says; `success` is the
    result that means it did, 0 for any positive one."""

    name: str
    way: Way
    moves: str = ""
    form: Form = Form.COUNT
    success: int = 0


HOOKS = (
    Hook("SSL_read", Way.CALL, "read"),
    Hook("SSL_read_ex", Way.CALL, "read", Form.MOVED_4TH),
    Hook("SSL_write", Way.CALL, "write"),
    Hook("SSL_write_ex", Way.CALL, "write", Form.MOVED_4TH),
    Hook("SSL_write_ex2", Way.CALL, "write", Form.MOVED_5TH),
    Hook("SSL_sendfile", Way.CALL, "write", Form.FILE),
    # What SSL_read and SSL_read_ex share inside of OpenSSL, and SSL_write and SSL_write_ex
    # (ladder/placement.py).
    Hook("ssl_read_internal", Way.CALL, "read", Form.MOVED_4TH),
    Hook("ssl_write_internal", Way.CALL, "write", Form.MOVED_4TH),
    Hook("ssl_write_internal_flags", Way.CALL, "write", Form.MOVED_5TH),
    Hook("SSL_new", Way.NEW),
    # What SSL_new calls for it in BoringSSL.
    Hook("tls_new", Way.BEGIN),
    Hook("SSL_clear", Way.CLEAR),
    Hook("SSL_ctrl", Way.CONTROL),
    Hook("SSL_set_tlsext_host_name", Way.HOST_NAME),
    Hook("SSL_free", Way.FREE),
    Hook("crypto/tls.(*Conn).Read", Way.GO, "read", Form.GO),
    Hook("crypto/tls.(*Conn).Write", Way.GO, "write", Form.GO),
    Hook("crypto/tls.(*Conn).clientHandshake-fm", Way.GO_BIRTH),
    Hook("crypto/tls.(*Conn).serverHandshake-fm", Way.GO_BIRTH),
    Hook("crypto/tls.(*Conn).Close", Way.GO_CLOSE),
    # rustls-ffi; RUSTLS_RESULT_OK is 7000.
    Hook("rustls_connection_read", Way.CALL, "read", Form.MOVED_4TH, 7000),
    Hook("rustls_connection_write", Way.CALL, "write", Form.MOVED_4TH, 7000),
    Hook("rustls_connection_free", Way.FREE),
)

BY_NAME = {hook.name: hook for hook in HOOKS}
#: What libraries export in C: looked for in symbol tables.
SYMBOLS = tuple(hook.name for hook in HOOKS if hook.name.startswith(("SSL_", "rustls_")))


def sufficient(names: Collection[str]) -> bool:
    """Whether a file that has these functions can be captured: bytes in both directions, and their end."""
    hooks = [BY_NAME[name] for name in names]
    ends = any(hook.way in (Way.FREE, Way.GO_CLOSE) for hook in hooks)
    return ends and {"read", "write"} <= {hook.moves for hook in hooks}
