"""What a caller orders: one request header that says how this one request is to be answered.

`x-local-provider: input=1200; cache_read=800; output=300; delay_ms=20`

An unknown word in it is answered with 400: a test that misspells its order must not pass by accident.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

HEADER = "x-local-provider"


class PlanError(ValueError):
    """The order cannot be read; the text says which word of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One order. Token counts are DISJOINT buckets; None leaves a count to the formula in `usage.py`."""

    input: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    output: int | None = None
    reasoning: int | None = None
    usage: str = "normal"  # normal | absent
    status: int = 200  # any other status is answered in the dialect's error shape
    delay_ms: int = 0  # before the first byte of the response
    gap_ms: int = 0  # before each further event of a stream
    events: int = 6  # text events of a stream
    text_bytes: int = 64  # length of the generated text
    cut: int | None = None  # close the connection after that many stream events, without an end
    gzip: str = "json"  # never | json | all: compress if the client accepts it
    id: str = "strong"  # strong | weak: weak gives the same short id each time, as some local servers do
    tier: str = "default"

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> Self:
        """The plan in the request's headers, or the plain one. Raises PlanError."""
        given: dict[str, int | str] = {}
        types = {field.name: str(field.type) for field in fields(cls)}
        for word in filter(None, (part.strip() for part in headers.get(HEADER, "").split(";"))):
            name, equals, value = word.partition("=")
            if not equals or name not in types:
                raise PlanError(f"unknown order {word!r} in {HEADER}; there are: {', '.join(types)}")
            try:
                given[name] = value if types[name] == "str" else int(value)
            except ValueError as error:
                raise PlanError(f"{HEADER}: {name} wants a whole number, not {value!r}") from error
        return cls(**given)  # type: ignore[arg-type]  # the loop above holds each value to its field's type
