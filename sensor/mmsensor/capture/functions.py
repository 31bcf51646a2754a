"""What the ladder hands to the kernel side: the places in one file where programs go.

Addresses here are offsets in the file, which is what the kernel's uprobes take.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Confidence(IntEnum):
    """How a function was recognised, the surest first. Nothing less sure than PROVEN is probed."""

    EXPORTED = 1  # the dynamic symbol table names it
    NAMED = 2  # a symbol table or the language's own function table names it
    KNOWN = 3  # this very build (by build-id) was examined before
    PROVEN = 4  # found in the code itself, and every check that tells it from its neighbours holds


@dataclass(frozen=True, slots=True)
class Function:
    """One function to probe; `name` is its row in `hooks.HOOKS`.

    `entry` is where the entry program goes: the first instruction, or a later one that every call passes
    once with the arguments still in their registers. There the stack pointer is `stack_shift` bytes below
    where it was at the first instruction. `returns` are the RET instructions, for functions whose return
    address may not be touched (Go); empty where a uretprobe at `entry` is right, which needs a
    `stack_shift` of 0.
    """

    name: str
    entry: int
    stack_shift: int = 0
    returns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Located:
    """TLS functions were found in a file. `why` is one line for people."""

    strategy: str
    confidence: Confidence
    why: str
    functions: tuple[Function, ...]


@dataclass(frozen=True, slots=True)
class NotCovered:
    """The file speaks TLS and is not probed. `reason` is a stable short name, `why` one line for people."""

    reason: str
    why: str
