"""Finds the function inside of OpenSSL that SSL_read and SSL_read_ex share, and that of the writing ones.

The public functions are thin: they check the size, call ssl_read_internal or ssl_write_internal, and turn its
result into theirs. Neither has a symbol in most builds. That a function is one of them is shown by following
all public ones to their first call: they must arrive at the same function, with the arguments that it has in
OpenSSL's source, on the only way on which bytes are moved; and the one whose result is the count must be
seen to take it from the place whose address it passed. All of this held for every build at hand of OpenSSL
1.1.1 to 3.5, of gcc and clang.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mmsensor.capture.ladder import instructions
from mmsensor.capture.ladder.instructions import GREATER, LESS_EQUAL, NO_SIGN, SIGN, Instruction, Op
from mmsensor.capture.ladder.symbols import exported
from mmsensor.capture.ladder.walk import ARGUMENTS, MAX_STEPS, POINTER, RESULT, Code, NotProven, Value, Walk

_S, _BUFFER, _THIRD, _FOURTH, _FIFTH, _SIXTH = ARGUMENTS
_SIZE = Value("lower", _THIRD.number)  # `int num`, not negative, as a size_t
_NO_FLAGS = Value("number", 0)
_LOCAL = Value("stack")  # any variable of the caller


class Wrapper(NamedTuple):
    """A public function and what it passes on. `returns_count`: its result is the count, so that it looks
    into the count's place, and shows us that this is the place."""

    name: str
    passes: tuple[Value, ...]
    returns_count: bool = False


class Underneath(NamedTuple):
    """A function of OpenSSL's source; `name` is its row in hooks.HOOKS."""

    name: str
    wrappers: tuple[Wrapper, ...]
    must_not: tuple[str, ...]  # functions that would show, by calling it, that it is another


UNDERNEATH = (
    # int ssl_read_internal(SSL *s, void *buf, size_t num, size_t *readbytes)
    Underneath(
        "ssl_read_internal",
        (
            Wrapper("SSL_read", (_S, _BUFFER, _SIZE, _LOCAL, _FIFTH, _SIXTH), returns_count=True),
            Wrapper("SSL_read_ex", ARGUMENTS),
        ),
        must_not=("SSL_peek", "SSL_peek_ex", "SSL_write", "SSL_write_ex"),
    ),
    # int ssl_write_internal(SSL *s, const void *buf, size_t num, size_t *written), before 3.3
    Underneath(
        "ssl_write_internal",
        (
            Wrapper("SSL_write", (_S, _BUFFER, _SIZE, _LOCAL, _FIFTH, _SIXTH), returns_count=True),
            Wrapper("SSL_write_ex", ARGUMENTS),
        ),
        must_not=("SSL_read", "SSL_read_ex", "SSL_write_ex2"),
    ),
    # ... and with uint64_t flags before the last, since
    Underneath(
        "ssl_write_internal_flags",
        (
            Wrapper("SSL_write", (_S, _BUFFER, _SIZE, _NO_FLAGS, _LOCAL, _SIXTH), returns_count=True),
            Wrapper("SSL_write_ex", (_S, _BUFFER, _THIRD, _NO_FLAGS, _FOURTH, _SIXTH)),
            Wrapper("SSL_write_ex2", ARGUMENTS),
        ),
        must_not=("SSL_read", "SSL_read_ex"),
    ),
)


def find(code: Code, function: Underneath, entries: Mapping[str, int]) -> tuple[int, tuple[str, ...]]:
    """(its first instruction, the names in `entries` that it stands for). Raises NotProven."""
    wrappers = [(each, entries[each.name]) for each in function.wrappers if each.name in entries]
    if not wrappers or not wrappers[0][0].returns_count:
        raise NotProven("nothing shows where the count is")
    arrivals = _arrivals(code, wrappers)
    if len(arrivals) > 1:
        raise NotProven("they call different functions")
    (entry,) = arrivals
    for start in exported(code.file, function.must_not).values():
        if _first_call(code, start) == entry:
            raise NotProven("a function that does something else calls it too")
    return entry, tuple(wrapper.name for wrapper, _ in wrappers)


def _arrivals(code: Code, wrappers: Sequence[tuple[Wrapper, int]]) -> set[int]:
    """Where the wrappers, given with their entries, arrive; one may go through another that passes on its
    arguments as they are."""
    arrivals = {start: _arrival(code, wrapper, start) for wrapper, start in wrappers}
    through = {start: arrivals[start] for wrapper, start in wrappers if wrapper.passes == ARGUMENTS}
    return {through.get(arrival, arrival) for arrival in arrivals.values()}


def _arrival(code: Code, wrapper: Wrapper, entry: int) -> int:
    """The function that a wrapper calls with what it should."""
    walk = _to_first_call(code, entry, only_if_size=wrapper.returns_count)
    if not wrapper.returns_count:
        _expect(walk, wrapper.passes)
        return walk.target()
    at = wrapper.passes.index(_LOCAL)
    place = walk.arguments[at]
    if place.kind != "stack" or walk.stack is None or not walk.stack <= place.number <= -POINTER:
        raise NotProven("the count's place is not a variable of the caller")
    _expect(walk, (*wrapper.passes[:at], place, *wrapper.passes[at + 1 :]))
    target = walk.target()
    walk.call(walk.here())
    _expect_count(walk, place.number)
    return target


def _expect(walk: Walk, arguments: Iterable[Value]) -> None:
    if walk.arguments != tuple(arguments):
        raise NotProven("other arguments than expected")


def _first_call(code: Code, entry: int) -> int | None:
    try:
        return _to_first_call(code, entry, only_if_size=True).target()
    except NotProven:
        return None  # no thin wrapper


def _to_first_call(code: Code, entry: int, *, only_if_size: bool) -> Walk:
    """Follows a function to its first call, which comes on every way through it; `only_if_size`: on every
    way on which its third argument, an int, is not negative."""
    walk = Walk(code, entry)
    for _ in range(MAX_STEPS):
        step = walk.here()
        if step.op is Op.CALL:
            return walk
        if step.op is Op.JUMP:
            walk.go(step, jumps=True)
        elif step.op is Op.BRANCH and only_if_size:
            walk.go(step, jumps=_not_negative(walk, step))
        else:
            walk.do(step)
    raise NotProven("no call is near")


def _not_negative(walk: Walk, step: Instruction) -> bool:
    """Whether a branch is taken where the size is not negative."""
    if walk.tested not in (_THIRD, _SIZE) or step.condition not in (SIGN, NO_SIGN):
        raise NotProven(f"a branch at {walk.at:#x}")
    return step.condition == NO_SIGN


def _expect_count(walk: Walk, place: int) -> None:
    """That what follows the call returns the count at `place` in the stack where the result is above zero."""
    positive = False
    for _ in range(MAX_STEPS):
        step = walk.here()
        tested = walk.tested == RESULT
        if step.op is Op.LOAD and step.to == instructions.RAX:
            chosen = step.condition is None if positive else tested and step.condition == GREATER
            if chosen and walk.registers[step.of] == Value("stack", place - step.value):
                return
        if step.to == instructions.RAX:
            break
        if step.op is not Op.BRANCH:
            walk.do(step)
        elif not positive and tested and step.condition in (LESS_EQUAL, GREATER):
            positive = True
            walk.go(step, jumps=step.condition == GREATER)
        else:
            break
    raise NotProven("the result is not the count")
