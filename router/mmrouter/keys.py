"""Virtual keys: what an application presents instead of a provider's key.

The configuration holds only the SHA-256 of a key. A key carries 192 bits of randomness, so a plain digest
cannot be searched, and looking the digest up in a table tells a timing attacker nothing about the key.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from mmrouter.policy.ledger import Who

PREFIX = "mmk-"


@dataclass(frozen=True, slots=True)
class VirtualKey:
    """Who calls, as far as money is concerned. `models` empty means every model.

    `who` is the key's owner in the words of budgets.
    """

    id: str
    tenant: str
    team: str
    application: str
    user: str
    models: frozenset[str] = frozenset()
    who: Who = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        who = Who(self.tenant, self.team, self.application, self.user, self.id)
        object.__setattr__(self, "who", who)

    def may_use(self, model: str) -> bool:
        """Whether the key may call `model`; entries ending in `*` match by prefix."""
        if not self.models or model in self.models:
            return True
        return any(entry.endswith("*") and model.startswith(entry[:-1]) for entry in self.models)


class KeyRing:
    """All virtual keys by the digest of their secret."""

    def __init__(self, keys: Iterable[tuple[str, VirtualKey]]) -> None:
        self._by_digest = dict(keys)

    @property
    def tenants(self) -> frozenset[str]:
        """Whose calls can come here at all."""
        return frozenset(key.tenant for key in self._by_digest.values())

    def __len__(self) -> int:
        return len(self._by_digest)

    def find(self, authorization: bytes | None, api_key: bytes | None) -> VirtualKey | None:
        """The key that a request presents as `Authorization: Bearer` or as `x-api-key`."""
        for presented in (_bearer(authorization), api_key):
            if presented is not None:
                key = self._by_digest.get(hashlib.sha256(presented.strip()).hexdigest())
                if key is not None:
                    return key
        return None


def _bearer(authorization: bytes | None) -> bytes | None:
    if authorization is None or authorization[:7].lower() != b"bearer ":
        return None
    return authorization[7:]


def new_secret() -> str:
    """A fresh key. It is shown once and stored nowhere."""
    return PREFIX + secrets.token_urlsafe(24)


def digest(secret: str) -> str:
    """What stands in the configuration for a key."""
    return hashlib.sha256(secret.encode()).hexdigest()
