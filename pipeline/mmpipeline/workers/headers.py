"""Headers of Kafka messages as they are read: names with bytes, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from confluent_kafka._types import HeadersType

Header = tuple[str, str | bytes | None]


class Headed(Protocol):
    """What is needed of a Kafka message."""

    def headers(self) -> HeadersType | None: ...


def headers_of(message: Headed) -> list[Header]:
    """All of them; none is an empty list."""
    headers = message.headers()
    if not headers:
        return []
    return list(headers.items()) if isinstance(headers, dict) else list(headers)


def texts_of(message: Headed) -> dict[str, str]:
    """The same as texts by name, the last of a name; what is not UTF-8 is marked."""
    return {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
        for name, value in headers_of(message)
    }
