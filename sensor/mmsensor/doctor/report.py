"""The examination for people: one line a check, its fix below where there is one."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

_OUTCOME, _NAME = 9, 15
_INDENT = " " * (_OUTCOME + _NAME)
_COUNTED = (("fail", "failed"), ("warn", "to be improved"), ("skipped", "not found out"))


def text(document: Mapping[str, Any], width: int) -> str:
    """`width`: columns of the terminal."""
    lines = [f"verdict  {document['verdict']}{_summary(document['counts'])}"]
    area = ""
    for check in document["checks"]:
        if check["area"] != area:
            area = check["area"]
            lines += ["", area]
        lines += _entry(check, width)
    return "\n".join(lines)


def _summary(counts: Mapping[str, int]) -> str:
    found = [f"{counts[outcome]} {words}" for outcome, words in _COUNTED if counts[outcome]]
    return f": of {sum(counts.values())} checks, {', '.join(found)}" if found else ""


def _entry(check: Mapping[str, Any], width: int) -> list[str]:
    start = f"{check['outcome']:<{_OUTCOME}}{check['name']:<{_NAME}}"
    lines = _wrapped(check["fact"], start, _INDENT, width)
    if check["fix"]:
        lines += _wrapped(check["fix"], f"{_INDENT}-> ", f"{_INDENT}   ", width)
    return lines


def _wrapped(words: str, first: str, others: str, width: int) -> list[str]:
    # Paths, addresses and options stay whole, so that they can be copied.
    return textwrap.wrap(
        words,
        max(width, len(others) + 20),
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
