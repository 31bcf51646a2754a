"""Records a second from a spool into Kafka: what one sensor or router can get rid of.

    python -m tests.bench.delivery_bench [--records 100000] [--batch 2000] [--partitions 12]

Starts a broker, fills a spool with small calls of forty tenants, and empties it with the daemons' own sender
and client. Prints: appended a second (durable, in batches of 100), delivered a second and this process's CPU
time for each, of which librdkafka's threads compress, and the bytes of a record.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from mmlocal.services.kafka import Kafka
from mmproto.delivery import Sender, Spool, call_record
from mmproto.kafka.producer import KafkaClient
from mmproto.kafka.settings import KafkaSettings
from mmproto.kafka.topics import CALLS
from mmproto.v1.call_pb2 import OBSERVER_SENSOR, Call
from tests.services.kafka import create_topic, topic_length

_APPENDED_AT_ONCE = 100


def _record(number: int) -> bytes:
    call = Call(
        id=f"node/boot/{number}",
        provider="openai",
        operation="chat",
        request_model="gpt-4o-mini",
        response_model="gpt-4o-mini-2024-07-18",
        response_id=f"chatcmpl-{number}",
        host="api.openai.com",
        http_status=200,
        billable=True,
        started_at_unix_ns=1_800_000_000_000_000_000 + number,
        duration_s=1.25,
        tenant=f"tenant-{number % 40}",
        team="search",
        application="answers",
        node="node-1",
        observer=OBSERVER_SENSOR,
    )
    call.process.pid = 4242
    call.process.exe = "/usr/bin/python3.11"
    return call_record(call)


def measure(folder: Path, count: int, batch: int, partitions: int) -> None:
    records = [_record(number) for number in range(count)]
    broker = Kafka(folder / "kafka", quick=False)
    broker.start()
    try:
        create_topic(broker.address, CALLS, partitions)
        spool = Spool(folder / "spool.sqlite", 1 << 32)
        began = time.perf_counter()
        for number in range(0, count, _APPENDED_AT_ONCE):
            spool.append(records[number : number + _APPENDED_AT_ONCE])
        appended_s = time.perf_counter() - began
        client = KafkaClient(KafkaSettings(brokers=broker.address), "node-1")
        sender = Sender(spool, client, batch_records=batch)
        began, cpu = time.perf_counter(), time.process_time()
        while sender.step() == 0:
            pass
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        spool.close()
        stands = topic_length(broker.address, CALLS)
        print(f"{len(records[0])} bytes a record, {partitions} partitions, {batch} records a post")
        print(f"appended   {count / appended_s:9,.0f} a second")
        print(f"delivered  {count / seconds:9,.0f} a second, {cpu / count * 1e6:.1f} us of CPU each")
        if stands != count or sender.statistics().delivered != count:
            raise SystemExit(f"{count} were sent and {stands} stand in the topic: {sender.statistics()}")
    finally:
        broker.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=2_000)
    parser.add_argument("--partitions", type=int, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.records, options.batch, options.partitions)


if __name__ == "__main__":
    main()
