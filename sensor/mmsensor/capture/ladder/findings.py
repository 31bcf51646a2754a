"""Findings as JSON, and back with every number checked against the file they are said to be of.

They come from a child process that read a hostile file, and from a file that outlives the daemon: neither is
believed. What does not fit raises Unfit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmsensor.capture import hooks
from mmsensor.capture.functions import Confidence, Function, Located, NotCovered
from mmsensor.capture.ladder.elf import PF_X, ElfFile, NotElf
from mmsensor.capture.ladder.table import Finding

_MOST_FUNCTIONS = 64
_MOST_RETURNS = 1024
_LONGEST_TEXT = 500


class Unfit(ValueError):
    """Not a finding of this file."""


def to_json(finding: Finding) -> dict[str, Any]:
    if finding is None:
        return {}
    if isinstance(finding, NotCovered):
        return {"reason": finding.reason, "why": finding.why}
    return {
        "strategy": finding.strategy,
        "confidence": finding.confidence.name,
        "why": finding.why,
        "functions": [
            {"name": each.name, "entry": each.entry, "shift": each.stack_shift, "returns": list(each.returns)}
            for each in finding.functions
        ],
    }


def from_json(form: object, file: ElfFile) -> Finding:
    """Raises Unfit, OSError."""
    if not isinstance(form, dict):
        raise Unfit("no object")
    try:
        if not form:
            return None
        if "reason" in form:
            return NotCovered(_text(form["reason"]), _text(form["why"]))
        listed = form["functions"]
        if not isinstance(listed, list) or not 0 < len(listed) <= _MOST_FUNCTIONS:
            raise Unfit("no list of functions")
        functions = tuple(_function(each, file) for each in listed)
        if not hooks.sufficient([each.name for each in functions]):
            raise Unfit("functions are missing")
        return Located(
            _text(form["strategy"]), Confidence[_text(form["confidence"])], _text(form["why"]), functions
        )
    except (KeyError, NotElf) as error:
        raise Unfit(str(error)) from error


def _function(form: object, file: ElfFile) -> Function:
    if not isinstance(form, Mapping) or form["name"] not in hooks.BY_NAME:
        raise Unfit("not a function that is probed")
    returns = form["returns"]
    if not isinstance(returns, list) or len(returns) > _MOST_RETURNS:
        raise Unfit("returns that are none")
    shift = form["shift"]
    if type(shift) is not int or not 0 <= shift < 1 << 16:
        raise Unfit("an absurd stack")
    return Function(
        form["name"],
        _place(form["entry"], file),
        shift,
        tuple(_place(each, file) for each in returns),
    )


def _place(offset: object, file: ElfFile) -> int:
    """An offset of an instruction. Raises Unfit, NotElf where there is no code."""
    if type(offset) is not int or not 0 <= offset < file.size:
        raise Unfit("outside of the file")
    file.address_of(offset, PF_X)
    return offset


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise Unfit("no text")
    return value
