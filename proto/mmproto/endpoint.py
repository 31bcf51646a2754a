"""The other end of a connection."""

from __future__ import annotations

from typing import Final, NamedTuple

_HTTPS: Final = 443


class Endpoint(NamedTuple):
    """An address, IPv4 or IPv6 in their usual text forms, and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        """As a Host header names it: without the port of https, IPv6 in brackets."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return host if self.port == _HTTPS else f"{host}:{self.port}"
