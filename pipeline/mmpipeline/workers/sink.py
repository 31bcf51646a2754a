"""`mmpipeline sink`: carries the rated topic into the warehouse. Kafka keeps its offsets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from mmpipeline.config import PipelineSettings
from mmpipeline.store.control.database import Database, DatabaseAway, DatabaseError, StoreBusy
from mmpipeline.store.warehouse.errors import WarehouseAway, WarehouseError
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmpipeline.workers.clients import consumer_properties, producer_properties
from mmpipeline.workers.deadletters import DeadLetters
from mmpipeline.workers.deadlimit import DeadLetterLimit
from mmpipeline.workers.filler import Filler
from mmpipeline.workers.loop import Loop
from mmpipeline.workers.process import CannotWork, Process, TopicsAway, partitions_of, run_process
from mmpipeline.workers.reader import Away, Reader
from mmproto.kafka.connection import settings_taken
from mmproto.kafka.topics import DEADLETTER, RATED

GROUP = "modelmeter.sink"

# Messages that are read at once: a few, since each is thousands of rows and one insert.
_MOST = 16
_COMMITTED_S = 5.0


def sink(settings: PipelineSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises CannotWork, ConfigurationError."""
    run_process("sink", settings, _run)


def _run(process: Process, closing: ExitStack) -> None:
    settings = process.settings
    with settings_taken(settings.kafka):
        producer = Producer(producer_properties(settings.kafka, process.heard))
    process.until("kafka", lambda: partitions_of(settings.kafka, (RATED, DEADLETTER)), TopicsAway)
    warehouse = process.until("warehouse", lambda: _open(settings), WarehouseAway)
    closing.callback(warehouse.close)
    with settings_taken(settings.kafka):
        consumer = Consumer(consumer_properties(settings.kafka, GROUP, process.heard))

    def committed(partitions: Sequence[int]) -> dict[int, int]:
        try:
            found = consumer.committed([TopicPartition(RATED, p) for p in partitions], _COMMITTED_S)
        except KafkaException as error:
            raise Away(error.args[0].str()) from error
        return {place.partition: place.offset for place in found if place.offset >= 0}

    reader = Reader(consumer, RATED, committed)
    closing.callback(reader.close)
    letters = DeadLetters(producer)
    filler = Filler(warehouse, letters, _Limit(settings, closing), process.progress)
    process.announce()
    Loop(reader, _MOST, filler, process.progress, process.stopping, process.beat, wait_for_commit=True).run()


class _Limit:
    """Opens the control store when the first letter is put aside: the sink needs it for nothing else."""

    def __init__(self, settings: PipelineSettings, closing: ExitStack) -> None:
        self._settings = settings
        self._closing = closing
        self._limit: DeadLetterLimit | None = None

    def __call__(self) -> DeadLetterLimit:
        if self._limit is None:
            try:
                database = Database.open(self._settings.control_url, "worker")
            except DatabaseAway as error:
                raise StoreBusy(str(error)) from error
            except DatabaseError as error:
                raise CannotWork(str(error)) from error
            self._closing.callback(database.close)
            self._limit = DeadLetterLimit(database, self._settings.worker.dead_letters)
        return self._limit


def _open(settings: PipelineSettings) -> Warehouse:
    try:
        return Warehouse.open(settings.warehouse_folder, settings.warehouse)
    except WarehouseAway:
        raise
    except WarehouseError as error:
        raise CannotWork(str(error)) from error
