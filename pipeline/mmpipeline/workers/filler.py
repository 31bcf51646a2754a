"""Fills the warehouse from the rated topic; what `Loop.work` is for `mmpipeline sink`.

Each message is one insert under its token. Kafka keeps the offsets and is told after the insert; so what was
inserted may be read again after a crash, and the warehouse drops it by its token.

A block that the warehouse refuses for what it is goes to the dead letters; one that it cannot take now
(away, disk full, no right to) waits, and with it all that is behind it. A refusal whose kind is not known is
not taken for the block's fault: waiting loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from confluent_kafka import Message

from mmpipeline.store.control.database import StoreBusy
from mmpipeline.store.warehouse.errors import WarehouseError, WarehouseFailed
from mmpipeline.workers.deadletters import DeadLetters, Undelivered
from mmpipeline.workers.deadlimit import DeadLetterLimit, TooManyDeadLetters
from mmpipeline.workers.loop import Obstacle
from mmpipeline.workers.progress import Progress
from mmpipeline.workers.rated import Unreadable, block_of
from mmpipeline.workers.reader import Batch

_log = logging.getLogger(__name__)

# ClickHouse's codes for data that it cannot read, by its names of them.
_UNREADABLE: Final = frozenset(
    (
        3,  # UNEXPECTED_END_OF_FILE
        9,  # SIZES_OF_COLUMNS_DOESNT_MATCH
        32,  # ATTEMPT_TO_READ_AFTER_EOF
        33,  # CANNOT_READ_ALL_DATA
        50,  # UNKNOWN_TYPE
        53,  # TYPE_MISMATCH
        62,  # SYNTAX_ERROR: of a type's name in the block
        70,  # CANNOT_CONVERT_TYPE
        117,  # INCORRECT_DATA
        128,  # TOO_LARGE_ARRAY_SIZE
        131,  # TOO_LARGE_STRING_SIZE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    )
)


class BlockStore(Protocol):
    """Where rows go: the warehouse. Inserting a token again changes nothing."""

    def insert_blocks(self, blocks: Sequence[bytes], token: str) -> None: ...


class Filler:
    """Inserts batches. `beat` is called between inserts: a batch may take a while."""

    def __init__(
        self,
        warehouse: BlockStore,
        letters: DeadLetters,
        limit: Callable[[], DeadLetterLimit],
        progress: Progress,
    ) -> None:
        """`limit` opens the control store: it is needed when a letter is put aside, and not before."""
        self._warehouse = warehouse
        self._letters = letters
        self._limit = limit
        self._progress = progress
        # Offsets of the batch in hand that are inserted: where a later one waits, they are not sent again.
        self._inserted: set[tuple[int | None, int | None]] = set()

    def __call__(self, batch: Batch) -> None:
        """Insert all of `batch`. Raises Obstacle, TooManyDeadLetters."""
        for message in batch.messages:
            where = (message.partition(), message.offset())
            if where not in self._inserted:
                self._insert(message)
                self._inserted.add(where)
        self._inserted.clear()
        self._letters.passed()

    def _insert(self, message: Message) -> None:
        try:
            block = block_of(message)
            self._warehouse.insert_blocks([block.payload], block.token)
        except Unreadable as reason:
            self._put_aside(message, str(reason))
        except WarehouseFailed as error:
            code = getattr(error.__cause__, "code", None)
            if code not in _UNREADABLE:
                raise Obstacle("warehouse", str(error)) from error
            _log.error("the warehouse cannot read a block: %s", error)
            self._put_aside(message, f"unreadable_block:{code}")
        except WarehouseError as error:
            raise Obstacle("warehouse", str(error)) from error
        else:
            self._progress.counts["rows"] += block.rows

    def _put_aside(self, message: Message, reason: str) -> None:
        try:
            limit = self._limit()
            if not limit.room():
                raise TooManyDeadLetters(reason, message)
            self._letters.put_aside([(message, reason)])
            limit.count(1)
        except StoreBusy as error:
            raise Obstacle("store", str(error)) from error
        except Undelivered as error:
            raise Obstacle("kafka", str(error)) from error
        self._progress.counts[f"dead:{reason}"] += 1
