"""The sensor's settings: the schema that files, environment and flags are held against.

`/etc/modelmeter/sensor.yaml`, then `sensor.d/*.yaml`, then MODELMETER_<SECTION>_<KEY> (or
MODELMETER_SENSOR_<SECTION>_<KEY>, which wins), then flags. docs/reference/sensor.md is held against this.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mmproto.delivery import TOKEN_FILE
from mmproto.kafka.settings import KafkaSettings, check_brokers
from mmproto.settings import STATE_DIR, Loaded, configuration_files, read, setting
from mmsensor.attribution.rules import Rule

DEFAULT_INGEST_URL = "http://127.0.0.1:8780"
KAFKA_SCHEME = "kafka://"


@dataclass(frozen=True, slots=True)
class IngestSettings:
    url: str = setting(
        "",
        about="Base URL of the pipeline. Empty: the one that a pipeline with the same state folder wrote "
        f"to `pipeline/address`, else {DEFAULT_INGEST_URL}.",
    )
    token_file: Path | None = setting(
        None,
        about="File with the bearer token. Default: `ingest.token` in the state folder, made if missing.",
    )
    timeout_s: float = setting(
        10.0, about="Longest wait for one answer of the pipeline.", unit="seconds", minimum=0.1, maximum=300
    )
    flush_s: float = setting(
        5.0,
        about="When stopping, try this long to deliver what is left.",
        unit="seconds",
        minimum=0,
        maximum=300,
    )


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    path: Path | None = setting(
        None, about="The spool file. Default: `sensor/spool.sqlite` in the state folder."
    )
    max_bytes: int = setting(
        256 << 20,
        about="Room for undelivered calls. When it is used up, new calls are dropped and counted.",
        unit="bytes",
        minimum=64 << 10,
    )


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    ring_bytes: int = setting(
        4 << 20,
        about="Size of the ring between kernel and sensor, a power of two. It counts twice as the sensor's "
        "memory, being mapped twice.",
        unit="bytes",
        minimum=256 << 10,
        maximum=1 << 30,
    )
    loader: Literal["auto", "libbpf", "bcc"] = setting(
        "auto",
        about="What brings the probes into the kernel: libbpf needs the kernel's BTF, bcc the package "
        "python3-bpfcc and the kernel's headers. auto: libbpf where there is BTF, else bcc.",
    )
    wake_bytes: int = setting(
        256 << 10,
        about="Wake the sensor when so much waits in the ring: fewer wake-ups cost less, a full ring loses. "
        "The first bytes of a connection wake it at once.",
        unit="bytes",
        minimum=0,
    )
    look_s: float = setting(
        0.05,
        about="Take what waits in the ring at least this often.",
        unit="seconds",
        minimum=0.001,
        maximum=1,
    )
    peer_addresses: bool = setting(
        True,
        about="Learn the address at the other end from the socket (Linux 6.3); costs every socket call of "
        "the machine about 0.25 us.",
    )
    undecided_bytes: int = setting(
        1 << 20,
        about="Copy so much of a connection before it is known to speak to an LLM, count the rest as lost: "
        "a bulk transfer shall not fill the ring. 0: without limit.",
        unit="bytes",
        minimum=0,
    )
    exclude: tuple[str, ...] = setting(
        (),
        about="Patterns of paths, such as `/opt/app/*`, of files that are never probed: for programs that "
        "return probes would kill, as docs/coverage.md says of which.",
    )
    hold_first_exec: bool = setting(
        False,
        about="Stop a process that runs code of a file never seen before until the file is examined, so that "
        "not even the first call of a process of milliseconds is missed (Linux 6.1, CAP_KILL).",
    )
    hold_s: float = setting(
        0.5, about="Nobody is stopped for longer than this.", unit="seconds", minimum=0.01, maximum=10
    )
    reconcile_s: float = setting(
        15.0,
        about="Compare all of /proc with what is attached this often.",
        unit="seconds",
        minimum=1,
        maximum=3600,
    )
    idle_s: float = setting(
        3600.0, about="Forget a connection that moved nothing for so long.", unit="seconds", minimum=1
    )
    max_connections: int = setting(
        2048,
        about="Follow this many connections at once; beyond it the most silent one is given up and counted.",
        minimum=1,
        maximum=1_000_000,
    )

    def __post_init__(self) -> None:
        if self.ring_bytes & (self.ring_bytes - 1):
            raise ValueError(
                f"ring_bytes must be a power of two, such as 8MiB or 16MiB, not {self.ring_bytes}"
            )


@dataclass(frozen=True, slots=True)
class EmitSettings:
    batch_records: int = setting(
        256, about="Hand calls to the sink when so many wait.", minimum=1, maximum=10_000
    )
    batch_s: float = setting(
        0.05,
        about="Hand calls to the sink when the oldest waits this long.",
        unit="seconds",
        minimum=0,
        maximum=10,
    )


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    listen: str = setting(
        "127.0.0.1:8785",
        about="Address of /metrics, /livez and /readyz, `host:port`; port 0 takes a free one, empty none.",
    )

    def __post_init__(self) -> None:
        if self.listen:
            split_address(self.listen)


@dataclass(frozen=True, slots=True)
class AttributionSettings:
    rules: tuple[Rule, ...] = setting(
        (), about="Ordered rules `match:` to `set:`; the first that gives a value wins, for each field."
    )


@dataclass(frozen=True, slots=True)
class SensorSettings:
    state_dir: Path = setting(STATE_DIR, about="Folder of everything that outlives the process.")
    node: str = setting("", about="Name of this machine in every call. Default: its host name.")
    sink: str = setting(
        "ingest",
        about="`ingest` over HTTP; `kafka`, or `kafka://HOST:PORT` with more brokers after commas; or "
        "`jsonl:PATH` for a file of JSON lines (`jsonl:-` prints them).",
    )
    hosts: Mapping[str, str] = setting(
        factory=dict,
        about="Further LLM hosts, `host`, `host:port` or `*.suffix`, and the provider whose API they speak.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", about="What is written to standard error."
    )
    ingest: IngestSettings = setting(factory=IngestSettings, about="delivery to the pipeline")
    kafka: KafkaSettings = setting(factory=KafkaSettings, about="delivery over Kafka")
    spool: SpoolSettings = setting(factory=SpoolSettings, about="the durable queue")
    capture: CaptureSettings = setting(factory=CaptureSettings, about="the kernel side")
    emit: EmitSettings = setting(factory=EmitSettings, about="batching")
    metrics: MetricsSettings = setting(factory=MetricsSettings, about="Prometheus metrics")
    attribution: AttributionSettings = setting(factory=AttributionSettings, about="who pays")

    def __post_init__(self) -> None:
        if self.sink == "kafka" and not self.kafka.brokers:
            raise ValueError("sink: 'kafka' needs kafka.brokers; or name them here, kafka://HOST:PORT")
        if self.sink.startswith(KAFKA_SCHEME):
            check_brokers(self.sink.removeprefix(KAFKA_SCHEME))
        elif self.sink not in ("ingest", "kafka") and not (self.jsonl and len(self.sink) > 6):
            known = "'ingest', 'kafka', 'kafka://HOST:PORT' or 'jsonl:PATH'"
            raise ValueError(f"sink: {known} is expected, found '{self.sink}'")

    @property
    def jsonl(self) -> bool:
        """Whether calls go to a file: there is no spool then."""
        return self.sink.startswith("jsonl:")

    @property
    def to_kafka(self) -> KafkaSettings | None:
        """How calls go over Kafka; None where they go elsewhere. Brokers in `sink` win."""
        if self.sink == "kafka":
            return self.kafka
        if self.sink.startswith(KAFKA_SCHEME):
            return replace(self.kafka, brokers=self.sink.removeprefix(KAFKA_SCHEME))
        return None

    @property
    def folder(self) -> Path:
        return self.state_dir / "sensor"

    @property
    def control_socket(self) -> Path:
        return self.folder / "sensor.sock"

    @property
    def token_file(self) -> Path:
        return self.ingest.token_file or self.state_dir / TOKEN_FILE

    @property
    def spool_file(self) -> Path:
        return self.spool.path or self.folder / "spool.sqlite"

    @property
    def node_name(self) -> str:
        return self.node or socket.gethostname()

    def ingest_url(self) -> str:
        """Where the pipeline is now: it may have been started after us, on a port of its own choice."""
        if self.ingest.url:
            return self.ingest.url
        try:
            return (self.state_dir / "pipeline" / "address").read_text().strip() or DEFAULT_INGEST_URL
        except OSError:
            return DEFAULT_INGEST_URL


def load_settings(
    config: Path | None, flags: Mapping[str, object], env: Mapping[str, str] | None = None
) -> Loaded[SensorSettings]:
    """The sensor's settings and their origins. Raises ConfigurationError."""
    environment = os.environ if env is None else env
    return read(SensorSettings, configuration_files("sensor", config), environment, flags, product="sensor")


def split_address(listen: str) -> tuple[str, int]:
    """`host:port` (or `[v6]:port`) as its parts. Raises ValueError."""
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"listen: host:port is expected, e.g. 127.0.0.1:8785, found '{listen}'")
    return host.strip("[]"), int(port)
