"""The topics as they are and as they should be: what differs, and what can be done about it.

Nothing that exists is made smaller, and nothing is deleted. The number of partitions of a topic is raised
only when somebody says so, because keys are then placed anew; the number of replicas is never changed: that
copies all data and is the operators' to plan.

Errors: `NotDone`, with a line that says what to do. `ConfigurationError` for settings that the library
does not take.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewPartitions, NewTopic

from mmproto.kafka.connection import connection_properties, settings_taken
from mmproto.kafka.settings import KafkaSettings
from mmproto.kafka.topics import TOPICS, Topic
from mmproto.kafka.troubles import Heard, trouble

T = TypeVar("T")

MIN_INSYNC: Final = "min.insync.replicas"
# Three replicas bear the loss of one broker while another is being restarted.
_REPLICAS: Final = 3


class NotDone(Exception):
    """Kafka cannot be asked, or refuses what it is asked. `reason` is a name of `mmproto.kafka.troubles`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Remedy(StrEnum):
    """Who mends a difference."""

    CREATE = "create"
    SET = "set"
    ADD_PARTITIONS = "add partitions"
    BY_HAND = "by hand"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`partitions`: of the topics that grow with the installation. `replication_factor` 0: three, or as many
    as there are brokers."""

    partitions: int
    replication_factor: int = 0

    def replicas(self, brokers: int) -> int:
        return self.replication_factor or max(1, min(_REPLICAS, brokers))


@dataclass(frozen=True, slots=True)
class Found:
    """One topic of the cluster. `settings` are the ones in force, by the brokers' names."""

    partitions: int
    replication_factor: int
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """`found` "" where there is nothing."""

    topic: str
    what: str
    found: str
    wanted: str
    remedy: Remedy


@dataclass(frozen=True, slots=True)
class Cluster:
    """What was found: how many brokers, and those of our topics that are there."""

    brokers: int
    topics: Mapping[str, Found]


def differences(cluster: Cluster, wanted: Wanted, topics: Sequence[Topic] = TOPICS) -> list[Difference]:
    """Everything in which the cluster is not what it should be, topic by topic."""
    result: list[Difference] = []
    for topic in topics:
        found = cluster.topics.get(topic.name)
        if found is None:
            described = f"{_partitions(topic, wanted)} partitions"
            result.append(Difference(topic.name, "topic", "", described, Remedy.CREATE))
            continue
        result += _of_topic(topic, found, wanted, cluster.brokers)
    return result


def _of_topic(topic: Topic, found: Found, wanted: Wanted, brokers: int) -> list[Difference]:
    result: list[Difference] = []
    partitions, replicas = _partitions(topic, wanted), wanted.replicas(brokers)
    if found.partitions != partitions:
        remedy = Remedy.ADD_PARTITIONS if found.partitions < partitions else Remedy.BY_HAND
        result.append(Difference(topic.name, "partitions", str(found.partitions), str(partitions), remedy))
    if found.replication_factor != replicas:
        result.append(
            Difference(topic.name, "replicas", str(found.replication_factor), str(replicas), Remedy.BY_HAND)
        )
    for name, value in _settings(topic, replicas).items():
        present = found.settings.get(name, "")
        if present != value:
            result.append(Difference(topic.name, name, present, value, Remedy.SET))
    return result


def _partitions(topic: Topic, wanted: Wanted) -> int:
    return wanted.partitions if topic.partitioned else 1


def _settings(topic: Topic, replicas: int) -> dict[str, str]:
    """With three replicas a write needs two: one broker may be away, and nothing is on a single one."""
    return {**topic.settings, MIN_INSYNC: str(2 if replicas >= _REPLICAS else 1)}


class Administration:
    """Asks and changes one cluster. `within_s` bounds each request."""

    def __init__(self, settings: KafkaSettings, *, within_s: float = 6.0) -> None:
        self._settings = settings
        self._within_s = within_s
        self._heard = Heard()
        properties = {**connection_properties(settings, "modelmeter-topics"), "error_cb": self._heard}
        with settings_taken(settings):
            self._admin = AdminClient(properties)

    def look(self, topics: Sequence[Topic] = TOPICS) -> Cluster:
        """What there is now. Raises NotDone."""
        self._heard.forget()
        try:
            listed = self._admin.list_topics(timeout=self._within_s)
        except KafkaException as error:
            raise self._unreachable(error) from None
        present = [topic.name for topic in topics if topic.name in listed.topics]
        settings = self._described(present)
        found = {}
        for name in present:
            metadata = listed.topics[name]
            if metadata.error is not None:
                raise self._unreachable(KafkaException(metadata.error))
            replicas = [len(partition.replicas) for partition in metadata.partitions.values()]
            found[name] = Found(len(replicas), min(replicas, default=0), settings[name])
        return Cluster(len(listed.brokers), found)

    def mend(
        self, wanted: Wanted, *, add_partitions: bool = False, topics: Sequence[Topic] = TOPICS
    ) -> tuple[list[Difference], Cluster]:
        """Does what may be done about the differences: what it has mended, and what there is now.

        Raises NotDone, also where a broker refuses a change.
        """
        cluster = self.look(topics)
        replicas = wanted.replicas(cluster.brokers)
        by_name = {topic.name: topic for topic in topics}
        new: list[NewTopic] = []
        more: list[NewPartitions] = []
        changed: dict[str, ConfigResource] = {}
        done: list[Difference] = []
        for each in differences(cluster, wanted, topics):
            topic = by_name[each.topic]
            count = _partitions(topic, wanted)
            match each.remedy:
                case Remedy.CREATE:
                    new.append(NewTopic(topic.name, count, replicas, config=_settings(topic, replicas)))
                case Remedy.SET:
                    entry = ConfigEntry(each.what, each.wanted, incremental_operation=AlterConfigOpType.SET)
                    resource = changed.setdefault(topic.name, ConfigResource(ResourceType.TOPIC, topic.name))
                    resource.add_incremental_config(entry)
                case Remedy.ADD_PARTITIONS if add_partitions:
                    more.append(NewPartitions(topic.name, count))
                case _:
                    continue
            done.append(each)
        if new:
            self._settled(self._admin.create_topics(new, operation_timeout=self._within_s))
        if more:
            self._settled(self._admin.create_partitions(more, operation_timeout=self._within_s))
        if changed:
            self._settled(self._admin.incremental_alter_configs(list(changed.values())))
        return done, self._until_seen(done, wanted, topics)

    def _until_seen(self, done: Sequence[Difference], wanted: Wanted, topics: Sequence[Topic]) -> Cluster:
        """The cluster once the brokers tell of the changes, which they hear of one by one."""
        mended = {(each.topic, each.what) for each in done}
        until = time.monotonic() + self._within_s
        while True:
            cluster = self.look(topics)
            left = {(each.topic, each.what) for each in differences(cluster, wanted, topics)}
            if not mended & left or time.monotonic() > until:
                return cluster
            time.sleep(0.1)

    def _described(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        asked = self._admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names])
        return {
            resource.name: {name: str(entry.value) for name, entry in self._result(future).items()}
            for resource, future in asked.items()
        }

    def _settled(self, futures: Mapping[Any, Future[Any]]) -> None:
        for future in futures.values():
            self._result(future)

    def _result(self, future: Future[T]) -> T:
        try:
            return future.result(self._within_s * 2)
        except KafkaException as error:
            raise self._unreachable(error) from None
        except TimeoutError:
            raise NotDone("timeout", f"no answer of {self._settings.brokers} in time") from None

    def _unreachable(self, error: KafkaException) -> NotDone:
        self._admin.poll(0)  # hears why
        found = trouble(error.args[0], self._heard, brokers=self._settings.brokers, topic="modelmeter.*")
        return NotDone(found.reason, found.message)
