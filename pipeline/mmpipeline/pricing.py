"""`mmpipeline price`: explains what any usage costs, from JSON to JSON.

Input: one object, pretty-printed or not, or one object a line:

    {"provider": "openai", "model": "gpt-4o", "at": "2026-11-23T10:00:00Z", "service_tier": "standard",
     "usage": {"input": 1000, "output": 200}}

`at` (default now) is RFC 3339, or a day, which means its midnight in UTC. Output, one line for each:

    {"cost_usd": "0.0045", "rate_card": "openai/gpt-4o/standard@always#...", "lines": [{"bucket": "input",
     "quantity": 1000, "rate": "2.5", "per": 1000000, "amount": "0.0025"}, ...], "sources": [...]}

`rate` is USD for `per` of the bucket. What has no known price has `cost_usd` null and a `reason`. Input
that is not of this shape is an error, and what stands on other lines is priced all the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from mmpipeline.rating.service import RatingService
from mmproto.callform import parse_time
from mmproto.rating import STANDARD, Charge, plain, usd

_NS = 1_000_000_000
_KEYS = ("provider", "model", "at", "service_tier", "usage")


class InputError(ValueError):
    """The input does not have the shape of a question; str() says where and what is expected."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: already of the right shape, not yet of sensible content."""

    provider: str
    model: str
    at: object
    service_tier: str
    usage: dict[str, Any]


def questions(text: str) -> Iterator[Question | InputError]:
    """The questions in `text`, and an error in the place of each that is none."""
    if not text.strip():
        yield InputError("nothing on standard input; one JSON object, or one a line, is expected")
        return
    try:
        yield _question(json.loads(text, object_pairs_hook=_unique), "standard input")
        return
    except InputError as error:
        yield error
        return
    except (ValueError, RecursionError) as error:
        whole = error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) == 1 or (not _is_json(lines[0][1]) and not _is_json(lines[-1][1])):
        yield InputError(f"standard input is not JSON: {whole}")
        return
    for number, line in lines:
        try:
            yield _question(json.loads(line, object_pairs_hook=_unique), f"line {number}")
        except InputError as error:
            yield error
        except (ValueError, RecursionError) as error:
            yield InputError(f"line {number} is not JSON: {error}")


def answer(rating: RatingService, question: Question, now: Callable[[], int]) -> dict[str, Any]:
    """The charge that `question` asks for."""
    try:
        at = now() if question.at is None else moment(question.at)
    except ValueError:
        return _form(Charge(None, "invalid_time"))
    usage: dict[str, Decimal | float] = {}
    for bucket, count in question.usage.items():
        if isinstance(count, bool) or not isinstance(count, int | float):
            return _form(Charge(None, "invalid_count"))
        usage[bucket] = count
    return _form(rating.explain(question.provider, question.model, question.service_tier, at, usage))


def _question(form: object, where: str) -> Question:
    if not isinstance(form, dict):
        raise InputError(f"{where}: an object with {', '.join(_KEYS)} is expected")
    for key in form:
        if key not in _KEYS:
            raise InputError(f"{where}: unknown key '{key}'; known are {', '.join(_KEYS)}")
    for key in ("provider", "model"):
        if not isinstance(form.get(key), str):
            raise InputError(f"{where}: '{key}' must be given as text")
    tier = form.get("service_tier")
    if tier is not None and not isinstance(tier, str):
        raise InputError(f"{where}: 'service_tier' must be text: standard, batch, flex or priority")
    usage = form.get("usage")
    if not isinstance(usage, dict):
        raise InputError(f"{where}: 'usage' must be an object of bucket names and counts")
    return Question(form["provider"], form["model"], form.get("at"), tier or STANDARD, usage)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    form = dict(pairs)
    if len(form) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"'{twice}' is given twice in one object")
    return form


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def moment(at: object) -> int:
    """`at` in unix nanoseconds; without an offset it is UTC. Raises ValueError."""
    if not isinstance(at, str):
        raise ValueError("not a time")
    try:
        return parse_time(at)
    except ValueError:
        moment = (
            datetime.fromisoformat(at)
            if len(at) > 10
            else datetime.combine(date.fromisoformat(at), datetime.min.time())
        )
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000_000) * 1000


def _form(charge: Charge) -> dict[str, Any]:
    if charge.nano_usd is None or charge.card is None:
        return {"cost_usd": None, "rate_card": None, "lines": [], "reason": charge.reason}
    return {
        "cost_usd": usd(charge.nano_usd),
        "rate_card": charge.card.id,
        "lines": [
            {
                "bucket": line.bucket,
                "quantity": _number(line.quantity),
                "rate": plain(line.usd),
                "per": line.per,
                "amount": usd(line.nano_usd),
            }
            for line in charge.lines
        ],
        "sources": list(charge.card.sources),
    }


def _number(quantity: Decimal) -> int | float:
    return int(quantity) if quantity == quantity.to_integral_value() else float(quantity)
