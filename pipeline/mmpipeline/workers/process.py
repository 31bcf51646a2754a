"""What `mmpipeline work` and `mmpipeline sink` have in common: starting, waiting for what is away, ending.

A worker that starts while Kafka or its store is away waits for it, says so on `/readyz`, and begins when it
comes; one that is configured wrongly ends at once. SIGTERM and SIGINT ask it to end: the batch in hand is
finished, what waits is delivered for at most DRAIN_S, and the group is left.

Errors: `CannotWork`, one line for people and the exit code.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from threading import Event
from types import FrameType
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from mmpipeline.config import PipelineSettings
from mmpipeline.workers.clients import client_properties
from mmpipeline.workers.deadlimit import TooManyDeadLetters
from mmpipeline.workers.progress import Progress
from mmpipeline.workers.reader import PositionLost
from mmpipeline.workers.watching import ListenError, Watching
from mmproto.exits import Exit
from mmproto.kafka.connection import settings_taken
from mmproto.kafka.settings import KafkaSettings

_log = logging.getLogger(__name__)

T = TypeVar("T")

DRAIN_S = 20.0
_RETRY_S = 0.5
_METADATA_S = 5.0


class CannotWork(Exception):
    """The worker cannot start or go on: str() is one line, `code` the exit code."""

    def __init__(self, message: str, code: Exit = Exit.UNHEALTHY) -> None:
        super().__init__(message)
        self.code = code


class Stopped(Exception):
    """We were asked to end while we waited."""


class Process:
    """One worker's frame: its numbers, its page, its wish to end."""

    def __init__(self, name: str, settings: PipelineSettings, closing: ExitStack) -> None:
        """Raises CannotWork."""
        logging.basicConfig(
            level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
        )
        self.settings = settings
        self.progress = Progress(name, time.time_ns)
        self._ending = Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        if not settings.kafka.brokers:
            raise CannotWork(
                f"`mmpipeline {name}` reads Kafka, and kafka.brokers is empty: set it, or run "
                "`mmpipeline serve` alone",
                Exit.CONFIGURATION,
            )
        self.watching: Watching | None = None
        if settings.worker.metrics_listen:
            try:
                self.watching = Watching(settings.worker.metrics_listen, self.progress)
            except ListenError as error:
                raise CannotWork(str(error)) from error
            closing.callback(self.watching.close)

    def stopping(self) -> bool:
        """Whether we were asked to end."""
        return self._ending.is_set()

    def beat(self) -> None:
        """The loop comes round."""
        if self.watching is not None:
            self.watching.beat()

    def announce(self) -> None:
        """Work begins; whoever started us may be waiting for this line."""
        self.progress.started = True
        where = self.watching.url if self.watching is not None else ""
        print(f"listening on {where}" if where else "working", flush=True)

    def until(self, what: str, attempt: Callable[[], T], away: type[Exception]) -> T:
        """`attempt()` once it does not raise `away` any more. Raises Stopped."""
        while True:
            if self.stopping():
                raise Stopped
            try:
                found = attempt()
            except away as error:
                if self.progress.obstacles.get(what) != str(error):
                    _log.warning("waiting for %s: %s", what, error)
                self.progress.obstacles[what] = str(error)
                self.beat()
                self._ending.wait(_RETRY_S)
            else:
                self.progress.obstacles.pop(what, None)
                return found

    def heard(self, error: KafkaError) -> None:
        """What librdkafka says about the brokers; it goes on trying by itself."""
        self.progress.counts["error:kafka"] += 1
        level = logging.ERROR if error.fatal() else logging.INFO
        _log.log(level, "kafka: %s", error.str())

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ending.set()


def run_process(name: str, settings: PipelineSettings, run: Callable[[Process, ExitStack], None]) -> None:
    """Do `run` in a process of that name until SIGTERM or SIGINT. Raises CannotWork, ConfigurationError."""
    with ExitStack() as closing:
        process = Process(name, settings, closing)
        try:
            run(process, closing)
        except Stopped:
            return
        except (PositionLost, TooManyDeadLetters) as error:
            raise CannotWork(str(error)) from error


class TopicsAway(Exception):
    """The brokers do not answer."""


def partitions_of(settings: KafkaSettings, topics: Sequence[str]) -> dict[str, int]:
    """How many partitions each of `topics` has. Raises TopicsAway, CannotWork, ConfigurationError."""
    with settings_taken(settings):
        admin = AdminClient(client_properties(settings))
    try:
        listed = admin.list_topics(timeout=_METADATA_S).topics
    except KafkaException as error:
        raise TopicsAway(f"{settings.brokers}: {error.args[0].str()}") from error
    missing = [name for name in topics if name not in listed]
    if missing:
        raise CannotWork(
            f"there is no topic {', '.join(missing)}: create what is needed with `mmpipeline topics apply`"
        )
    return {name: len(listed[name].partitions) for name in topics}
