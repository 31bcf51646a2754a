"""How every client of ours reaches Kafka: librdkafka's settings from the `kafka` section.

The library is an optional dependency. Whoever needs it imports what is built on it where it is used, inside
`kafka_needed`, so that nobody else pays for it and its absence is one clear line.

Errors: `ConfigurationError`, where the library is missing or does not take the settings. It never repeats
what may be secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmproto.kafka.settings import KafkaSettings
from mmproto.settings import MASK, ConfigurationError, Problem

# Properties with one of these in their names hold what nobody is shown.
_SECRET_PARTS = ("password", "secret", "username", ".pem", "oauthbearer.config")


def connection_properties(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Brokers, name and whatever `properties` says, for any kind of client.

    librdkafka writes every failed attempt to connect to standard error. It stays silent, since `error_cb` and
    the error of a call tell the same.
    """
    return {
        "bootstrap.servers": settings.brokers,
        "client.id": client_id,
        "log_level": 0,
        "reconnect.backoff.max.ms": 2_000,
        **{name: value.reveal() for name, value in settings.properties.items()},
    }


@contextmanager
def kafka_needed() -> Iterator[None]:
    """Around an import of what is built on the library. Raises ConfigurationError where it is missing."""
    try:
        yield
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "confluent_kafka":
            raise
        hint = "install it, e.g. pip install 'modelmeter[kafka]'"
        problem = Problem("kafka", "the Python package confluent-kafka is not installed", hint)
        raise ConfigurationError([problem]) from None


@contextmanager
def settings_taken(settings: KafkaSettings) -> Iterator[None]:
    """Around the making of a client. Raises ConfigurationError for settings that librdkafka does not take."""
    from confluent_kafka import KafkaException  # noqa: PLC0415

    try:
        yield
    except (KafkaException, TypeError, ValueError) as error:
        argument = error.args[0] if error.args else error
        text = argument.str() if hasattr(argument, "str") else str(argument)
        shown = _masked(settings, text.replace("\n", " ").rstrip(". "))
        raise ConfigurationError([Problem("kafka.properties", shown)]) from None


def _masked(settings: KafkaSettings, text: str) -> str:
    for name, value in settings.properties.items():
        if value and any(part in name for part in _SECRET_PARTS):
            text = text.replace(value.reveal(), MASK)
    return text
