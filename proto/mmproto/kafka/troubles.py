"""librdkafka's errors as reasons of ours: a name for counters, and a line that says what to do.

A message that times out says nothing of why: what was heard of the brokers meanwhile does.
"""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import KafkaError

TOO_LARGE = "message_too_large"


@dataclass(frozen=True, slots=True)
class Trouble:
    """`reason` is a name for counters, `message` one line for a person."""

    reason: str
    message: str


# By code: reason, what it means, what to do. `{detail}` are librdkafka's own words.
_TROUBLES: dict[int, tuple[str, str]] = {
    KafkaError._TRANSPORT: (
        "broker_away",
        "no broker answers at {brokers}: {detail}; is Kafka running there, and is the port one for clients?",
    ),
    KafkaError._ALL_BROKERS_DOWN: (
        "broker_away",
        "no broker answers at {brokers}; is Kafka running there, and is the port one for clients?",
    ),
    KafkaError._RESOLVE: ("broker_unknown", "a broker's name is not known: {detail}; check kafka.brokers"),
    KafkaError._AUTHENTICATION: (
        "unauthorized",
        "the brokers refuse our credentials: {detail}; check sasl.* in kafka.properties",
    ),
    KafkaError._SSL: (
        "tls",
        "no TLS connection to the brokers: {detail}; check security.protocol and ssl.* in kafka.properties",
    ),
    KafkaError._UNKNOWN_TOPIC: (
        "unknown_topic",
        "there is no topic {topic}; `mmpipeline topics apply` creates it",
    ),
    KafkaError.TOPIC_AUTHORIZATION_FAILED: (
        "forbidden",
        "this user may not write to {topic}; the brokers' ACLs must allow WRITE and DESCRIBE on it",
    ),
    KafkaError.NOT_ENOUGH_REPLICAS: (
        "not_enough_replicas",
        "{topic} has fewer replicas in sync than min.insync.replicas asks for; bring the other brokers back",
    ),
    KafkaError.MSG_SIZE_TOO_LARGE: (
        TOO_LARGE,
        "the brokers find it too large; raise max.message.bytes of {topic}",
    ),
    KafkaError._MSG_TIMED_OUT: (
        "timeout",
        "no acknowledgement in time: brokers overloaded, no leader for {topic}, or too few replicas in sync",
    ),
    KafkaError._QUEUE_FULL: ("queue_full", "librdkafka's queue is full and nothing leaves it"),
}
_SAME_AS = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION: KafkaError._UNKNOWN_TOPIC,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED: KafkaError._AUTHENTICATION,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.RECORD_LIST_TOO_LARGE: KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError._TIMED_OUT: KafkaError._MSG_TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE: KafkaError._MSG_TIMED_OUT,
}
# These follow from something, and do not say from what.
_UNTELLING = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
    }
)
# Of what was heard of the brokers, the first of these tells most: the others follow from it.
_TELLING = (
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError._RESOLVE,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
)


class Heard:
    """What librdkafka said of the brokers on its own, by `error_cb`."""

    def __init__(self) -> None:
        self._errors: dict[int, KafkaError] = {}
        #: After this the client is of no use any more.
        self.fatal: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        code = _SAME_AS.get(error.code(), error.code())
        self._errors[code] = error
        if error.fatal():
            self.fatal = error

    def forget(self) -> None:
        self._errors.clear()

    def why(self) -> KafkaError | None:
        """The error that explains best why nothing was answered."""
        return next((self._errors[code] for code in _TELLING if code in self._errors), None)


def trouble(error: KafkaError, heard: Heard, *, brokers: str, topic: str) -> Trouble:
    """What `error` is for us, given what was heard meanwhile."""
    if error.code() in _UNTELLING:
        error = heard.why() or error
    code = _SAME_AS.get(error.code(), error.code())
    reason, text = _TROUBLES.get(code, (f"kafka_{error.name().strip('_').lower()}", "Kafka: {detail}"))
    detail = error.str().replace("\n", " ").rstrip(". ")
    return Trouble(reason, text.format(detail=detail, brokers=brokers, topic=topic))
