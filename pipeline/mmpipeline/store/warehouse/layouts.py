"""How the same tables are laid out in chDB, on one ClickHouse server, and on a cluster.

`schema` says what tables there are; a layout says of what engine each kind of them is, and under which
names it is stored and asked. On a cluster a table `calls` is two: `calls_local` on every shard, replicated
under the server's own macros {shard} and {replica}, and a Distributed `calls` over them. Questions name the
latter, so that there is one set of statements.

Where a batch goes on a cluster, and why. It is inserted into the Distributed table in the foreground, which
splits it by a hash of the call's id:

- A call's rows of sign +1 and -1 lie on one shard, else FINAL would not see them together. A shard that is
  chosen from the batch's token would part them.
- The servers send the token on with each part of the batch. The split depends on the rows alone, so the
  same batch gives each shard the same part again, and the shard's own log of tokens (shared by its replicas
  through Keeper) drops what it has. A batch that reached some shards only is repaired by sending it again.
- In the background, the default, it would be acknowledged while it lies on one server's disk.

What this rests on: `internal_replication` is on in the cluster's definition, and the number of shards does
not change between a batch and its repetition: stop the sink, let it drain, then add shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["collapsing", "aggregating", "replacing", "versions"]

# Batches remembered for recognising one that comes again. What can come twice lies between two crashes; ten
# thousand batches of ten thousand rows are a day at a thousand calls a second.
_WINDOW: Final = 10_000
_WINDOW_S: Final = 7 * 24 * 3600

# A batch is durable when an insert returns, also if the machine loses power a moment later.
_DURABLE: Final = "fsync_after_insert = 1, fsync_part_directory = 1"

_PLAIN: Final[Mapping[Kind, str]] = {
    "collapsing": "VersionedCollapsingMergeTree(sign, version)",
    "aggregating": "AggregatingMergeTree",
    "replacing": "ReplacingMergeTree",
    "versions": "MergeTree",
}
# By shard, except what every server of the cluster has to agree on.
_PATH: Final = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
_REPLICATED: Final[Mapping[Kind, str]] = {
    "collapsing": f"ReplicatedVersionedCollapsingMergeTree({_PATH}, sign, version)",
    "aggregating": f"ReplicatedAggregatingMergeTree({_PATH})",
    "replacing": f"ReplicatedReplacingMergeTree({_PATH})",
    "versions": "ReplicatedMergeTree('/clickhouse/tables/{database}/{table}', '{shard}-{replica}')",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """One shape. `cluster` is "" where there is none."""

    engines: Mapping[Kind, str]
    table_settings: str
    database: str = "default"
    cluster: str = ""
    read_settings: Mapping[str, int] = field(default_factory=dict)
    insert_settings: Mapping[str, int] = field(default_factory=dict)

    def local(self, table: str) -> str:
        """The name under which the rows of `table` lie on a server."""
        return f"{table}_local" if self.cluster else table

    @property
    def everywhere(self) -> str:
        """What makes a statement run on all servers; with a space before it."""
        return f" ON CLUSTER {identifier(self.cluster)}" if self.cluster else ""

    def distributed(self, table: str, sharded_by: str) -> str:
        """The engine of the table over all shards. Without `sharded_by` nothing can be inserted into it."""
        names = ", ".join(map(quoted, (self.cluster, self.database, self.local(table))))
        return f"Distributed({names}{f', {sharded_by}' if sharded_by else ''})"

    @property
    def parts(self) -> str:
        """The table of all parts of all tables, everywhere."""
        return f"clusterAllReplicas({quoted(self.cluster)}, system.parts)" if self.cluster else "system.parts"


_WINDOW_OF_ONE: Final = f"non_replicated_deduplication_window = {_WINDOW}, {_DURABLE}"

# The pages of one process ask side by side: two threads a question leave the other cores to ingest.
EMBEDDED: Final = Layout(_PLAIN, _WINDOW_OF_ONE, read_settings={"max_threads": 2})


def server(database: str) -> Layout:
    """One server."""
    return Layout(_PLAIN, _WINDOW_OF_ONE, database)


def clustered(database: str, cluster: str) -> Layout:
    """All servers of `cluster`."""
    window = (
        f"replicated_deduplication_window = {_WINDOW}, replicated_deduplication_window_seconds = {_WINDOW_S}"
    )
    return Layout(
        _REPLICATED,
        f"{window}, {_DURABLE}",
        database,
        cluster,
        insert_settings={"distributed_foreground_insert": 1},
    )


def quoted(text: str) -> str:
    """`text` as an SQL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def identifier(name: str) -> str:
    """`name` as an SQL identifier."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"
