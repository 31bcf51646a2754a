"""Which exported functions are probed, by which programs. Data, not code: a new function is a row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hook:
    """One function. `enter` and `leave` are program names of bpf/tls.bpf.c, None where not needed."""

    symbol: str
    enter: str | None
    leave: str | None
    moves: str = ""  # "read" or "write" where it carries bytes


HOOKS = (
    Hook("SSL_read", "read_enter", "read_leave", "read"),
    Hook("SSL_read_ex", "read_ex_enter", "read_ex_leave", "read"),
    Hook("SSL_write", "write_enter", "write_leave", "write"),
    Hook("SSL_write_ex", "write_ex_enter", "write_ex_leave", "write"),
    Hook("SSL_write_ex2", "write_ex2_enter", "write_ex2_leave", "write"),
    Hook("SSL_new", None, "new_leave"),
    Hook("SSL_ctrl", "ctrl_enter", None),
    Hook("SSL_set_tlsext_host_name", "host_name_enter", None),
    Hook("SSL_free", "free_enter", None),
)

SYMBOLS = tuple(hook.symbol for hook in HOOKS)


def sufficient(symbols: frozenset[str]) -> bool:
    """Whether a file that exports these can be captured: bytes in both directions, and their end."""
    moved = {hook.moves for hook in HOOKS if hook.symbol in symbols}
    return {"read", "write"} <= moved and "SSL_free" in symbols
