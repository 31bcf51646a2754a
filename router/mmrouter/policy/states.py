"""What stands on the topics of budgets and prices, decoded and kept: the newest of each tenant and provider.

Sans-IO: messages go in, `Known` and rate books come out. A message that cannot be read is a ValueError for
whoever hands it in, and changes nothing: what was known of that tenant goes on to hold.

Of two states of a tenant the one with the later moment holds, in whatever order they come. A moment that is
far before the one known is no message that was overtaken (publishers give one up after seconds): the
store's clock was set back, or another store is in its place, and it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from mmproto.kafka.topics import AS_OF_HEADER
from mmproto.ratebook import RateBook
from mmproto.rateform import book_from_json
from mmproto.v1.budget_pb2 import BudgetState, BudgetStates
from mmrouter.policy.ledger import Budget
from mmrouter.policy.state import ceiling

# The tenant of a heartbeat, which says that whoever publishes is alive and up to date.
NO_TENANT = ""

_OVERTAKEN_NS = 60_000_000_000
_MOST_PERCENT = 1000


@dataclass(frozen=True, slots=True)
class _Tenant:
    as_of_ns: int
    budgets: tuple[Budget, ...]
    positions: Mapping[int, int]


@dataclass(slots=True)
class TenantStates:
    """The newest state of each of `tenants`; of the others nothing is kept but that they were heard of."""

    tenants: Collection[str]
    overtaken: int = 0
    #: Moment of the newest state of anybody, unix nanoseconds; 0: nothing was ever heard.
    heard_ns: int = 0
    _known: dict[str, _Tenant] = field(default_factory=dict)

    def take(self, key: bytes, value: bytes | None, headers: Mapping[str, bytes]) -> bool:
        """Whether anything changed that a call of ours could be decided by. Raises ValueError."""
        tenant = key.decode()
        if tenant != NO_TENANT and tenant not in self.tenants:
            self._hear(int(headers.get(AS_OF_HEADER, b"0")))
            return False
        fresh = _state(tenant, value, headers)
        before = self._known.get(tenant)
        if before is not None and before.as_of_ns - _OVERTAKEN_NS < fresh.as_of_ns < before.as_of_ns:
            self.overtaken += 1
            return False
        if before is not None and fresh.as_of_ns < before.as_of_ns:
            self.heard_ns = 0
        self._hear(fresh.as_of_ns)
        self._known[tenant] = fresh
        return True

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Every budget that blocks, of all tenants of this router."""
        return tuple(budget for known in self._known.values() for budget in known.budgets)

    @property
    def positions(self) -> dict[str, Mapping[int, int]]:
        """How far the calls of each tenant are counted.

        A tenant without a budget has no spend that its calls could be missing from; those that were
        finished under a budget that is gone are as far as everybody's.
        """
        nobody = self._known.get(NO_TENANT)
        everywhere = {} if nobody is None else nobody.positions
        found: dict[str, Mapping[int, int]] = {}
        for tenant in self.tenants:
            known = self._known.get(tenant)
            found[tenant] = known.positions if known is not None and known.positions else everywhere
        return found

    def _hear(self, as_of_ns: int) -> None:
        self.heard_ns = max(self.heard_ns, as_of_ns)


@dataclass(slots=True)
class Books:
    """The rate books of `providers`, each as it stands on its topic."""

    providers: Collection[str]
    version: str = ""
    _forms: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def take(self, key: bytes, value: bytes | None) -> bool:
        """Whether a price of ours may have changed. Raises ValueError."""
        provider = key.decode()
        if provider not in self.providers:
            return False
        if value is None:
            return self._forms.pop(provider, None) is not None
        try:
            form = orjson.loads(value)
            self.version = book_from_json(form).version
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None
        self._forms[provider] = form
        return True

    def form(self) -> dict[str, Any]:
        """All of them as one book's JSON."""
        merged: dict[str, Any] = {"version": self.version, "catalogue": {}, "overrides": {}}
        for form in self._forms.values():
            merged["catalogue"].update(form["catalogue"])
            merged["overrides"].update(form["overrides"])
        return merged

    def book(self) -> RateBook | None:
        """All of them as one book, None where there is none yet."""
        return book_from_json(self.form()) if self._forms else None


def _state(tenant: str, value: bytes | None, headers: Mapping[str, bytes]) -> _Tenant:
    if value is None:
        return _Tenant(int(headers.get(AS_OF_HEADER, b"0")), (), {})
    try:
        message = BudgetStates.FromString(value)
    except Exception as error:
        # protobuf's DecodeError differs between its implementations.
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if message.tenant != tenant:
        raise ValueError("the state is of another tenant than its key says")
    return _Tenant(message.as_of_unix_ns, tuple(_blocking(tenant, message.budgets)), dict(message.positions))


def _blocking(tenant: str, states: Iterable[BudgetState]) -> Iterable[Budget]:
    for state in states:
        if not state.HasField("block_at_percent"):
            continue
        if not state.budget_id or state.period_end_unix_ns <= state.period_start_unix_ns:
            raise ValueError(f"the budget '{state.name}' has no id or no period")
        if state.limit_nano_usd < 0 or not 1 <= state.block_at_percent <= _MOST_PERCENT:
            raise ValueError(f"the budget '{state.name}' has a limit that none can have")
        yield Budget(
            id=state.budget_id,
            name=state.name,
            tenant=tenant,
            scope=dict(state.scope),
            period=state.period,
            period_start_ns=state.period_start_unix_ns,
            resets_at_ns=state.period_end_unix_ns,
            limit=state.limit_nano_usd,
            spent=state.spent_nano_usd,
            ceiling=ceiling(state.limit_nano_usd, state.block_at_percent),
        )
