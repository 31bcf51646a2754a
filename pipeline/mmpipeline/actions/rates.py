"""Which rate books routers must be told: those whose version on the topic is not the one in force.

A book is of one provider, under every name by which calls name that provider: a router takes the books of
its own upstreams and no others. Comparing with the topic, at the start and whenever the version in force
changes, is enough to say each book once however many workers there are; a book that another worker
publishes later is left alone, since that one may have seen newer prices sooner.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import orjson

from mmpipeline.rating import catalogue
from mmpipeline.rating.service import RatingService


@dataclass(frozen=True, slots=True)
class Book:
    """The cards of one provider, as `rateform` writes them; `value` None: it has none any more."""

    provider: str
    version: str
    value: bytes | None


class Rates:
    """For one thread, which knows what stands on the topic before it asks for the first."""

    def __init__(self, rating: RatingService) -> None:
        self._rating = rating
        self._logged: dict[str, bytes | None] = {}
        self._version = ""
        self._due: deque[str] = deque()

    def heard(self, provider: str, version: bytes | None) -> None:
        """What stands on the topic under a name; None: nothing any more."""
        self._logged[provider] = version

    def again(self, provider: str) -> None:
        """The book could not be sent."""
        self._due.append(provider)

    def next(self) -> Book | None:
        """A book that is due, None where all are said."""
        self._rating.refresh()
        version = self._rating.version
        if version != self._version:
            self._version = version
            names = self._names()
            gone = {name for name, logged in self._logged.items() if logged is not None} - names
            raw = version.encode()
            self._due = deque(sorted({n for n in names if self._logged.get(n) != raw} | gone))
        if not self._due:
            return None
        provider = self._due.popleft()
        if provider not in self._names():
            return Book(provider, version, None)
        return Book(provider, version, orjson.dumps(self._rating.export([provider])))

    def _names(self) -> set[str]:
        book = self._rating.book
        return {*catalogue.PROVIDERS, *book.catalogue, *book.overrides}
