"""A line of the table that says which request is which operation. Every dialect file has its own lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmproto.providers.dialect import Dialect

POST = frozenset({"POST"})
GET = frozenset({"GET"})


@dataclass(frozen=True, slots=True)
class Route:
    """A request whose path matches is read by `dialect`.

    `path` is a regular expression for the whole path (no query, no doubled or trailing slashes); most begin
    with `.*`, because gateways and compatible servers put anything before. What its named groups match is
    percent-decoded and given to the dialect (`Asked.names`): `model` is the model that is asked for,
    `deployment` what stands for it.

    `providers` limits the route to their hosts, for paths that mean something else elsewhere; such a route
    goes before one for everybody. `free` names why the exchange costs nothing whatever it answers
    (`token_counting`, `retrieval`, `preparation`): it never becomes a call.
    """

    path: str
    dialect: type[Dialect]
    methods: frozenset[str] = POST
    providers: frozenset[str] = frozenset()
    free: str = ""
