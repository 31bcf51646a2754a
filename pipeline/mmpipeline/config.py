"""Settings of the pipeline: pipeline.yaml, its `.d` folder, MODELMETER_* variables and flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmproto.kafka.settings import KafkaSettings
from mmproto.settings import STATE_DIR, Secret, configuration_files, read, setting

PRODUCT = "pipeline"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the API, the dashboards and ingest are served."""

    host: str = setting("127.0.0.1", about="address to listen on")
    port: int = setting(8780, about="port to listen on; 0 takes a free one", minimum=0, maximum=65535)


@dataclass(frozen=True, slots=True)
class Rating:
    """Prices."""

    overrides: Path | None = setting(None, about="YAML file of negotiated rates; none by default")


@dataclass(frozen=True, slots=True)
class Control:
    """Where budgets, prices and the ledger are kept."""

    url: Secret = setting(
        Secret(""),
        about="postgresql://USER@HOST/DATABASE of the ordinary role; empty: SQLite in the state folder",
    )
    owner_url: Secret = setting(
        Secret(""), about="the same as the role that owns the tables, for `mmpipeline ledger migrate` alone"
    )


@dataclass(frozen=True, slots=True)
class Ledger:
    """How long the ledger keeps what grows with the calls."""

    keep_ids_days: int = setting(
        62, about="how long a call that comes again is known; older ones are refused", minimum=2, maximum=4000
    )
    keep_charges_days: int = setting(
        400, about="how long single charges are kept; what was spent stays", minimum=2, maximum=4000
    )


@dataclass(frozen=True, slots=True)
class Worker:
    """`mmpipeline work` and `mmpipeline sink`."""

    batch_calls: int = setting(10_000, about="calls of one transaction at most", minimum=1, maximum=100_000)
    dead_letters: int = setting(
        1_000, about="messages put aside as unreadable before the worker stops", minimum=0, maximum=1_000_000
    )
    metrics_listen: str = setting(
        "127.0.0.1:9466", about="where Prometheus metrics are served; empty: nowhere"
    )


@dataclass(frozen=True, slots=True)
class Warehouse:
    """Where calls are kept for analysis, and how they get there."""

    url: Secret = setting(
        Secret(""),
        about="http(s)://USER:PASSWORD@HOST:8123/DATABASE of ClickHouse; empty: chDB in the state folder",
    )
    cluster: str = setting("", about="name of the ClickHouse cluster; empty: a single server")
    keep_days: int = setting(0, about="how long calls are kept; 0: for ever", minimum=0, maximum=40_000)
    keep_days_by_tenant: Mapping[str, int] = setting(
        factory=dict, about="the same for single tenants, by name"
    )
    gather: float = setting(
        1.0, about="how long rows gather before an insert", unit="seconds", minimum=0.0, maximum=60.0
    )
    batch_rows: int = setting(10_000, about="rows of one insert at most", minimum=1, maximum=100_000)


@dataclass(frozen=True, slots=True)
class Topics:
    """How large `mmpipeline topics apply` makes Kafka's topics."""

    partitions: int = setting(
        12,
        about="of the topics that carry calls: as many workers can share them, and more can only be added",
        minimum=1,
        maximum=10_000,
    )
    replication_factor: int = setting(
        0,
        about="brokers that hold each partition; 0: three, or as many as there are",
        minimum=0,
        maximum=99,
    )


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """Everything that can be set."""

    state_dir: Path = setting(STATE_DIR, about="folder of all state; shared with sensor and router")
    listen: Listen = setting(factory=Listen, about="where to listen")
    rating: Rating = setting(factory=Rating, about="prices")
    control: Control = setting(factory=Control, about="budgets, prices and the ledger")
    ledger: Ledger = setting(factory=Ledger, about="the ledger's age")
    warehouse: Warehouse = setting(factory=Warehouse, about="the warehouse")
    kafka: KafkaSettings = setting(factory=KafkaSettings, about="the way between the processes")
    topics: Topics = setting(factory=Topics, about="the topics of Kafka")
    worker: Worker = setting(factory=Worker, about="the processes that read Kafka")
    log_level: str = setting("INFO", about="DEBUG, INFO, WARNING or ERROR")

    def __post_init__(self) -> None:
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise ValueError(f"log_level '{self.log_level}' is none of DEBUG, INFO, WARNING, ERROR")

    @property
    def token_file(self) -> Path:
        return self.state_dir / "ingest.token"

    @property
    def folder(self) -> Path:
        return self.state_dir / PRODUCT

    @property
    def control_file(self) -> Path:
        return self.folder / "control.sqlite"

    @property
    def control_url(self) -> str:
        """Where the control store is: PostgreSQL as set, or else the file."""
        return self.control.url.reveal() or f"sqlite:///{self.control_file.absolute()}"

    @property
    def distributed(self) -> bool:
        """Whether calls come by Kafka and are charged by `mmpipeline work`."""
        return bool(self.kafka.brokers and self.control.url)

    @property
    def warehouse_folder(self) -> Path:
        return self.folder / "warehouse"

    @property
    def address_file(self) -> Path:
        return self.folder / "address"


def read_settings(
    config: Path | None, env: Mapping[str, str], flags: Mapping[str, object]
) -> PipelineSettings:
    """The settings of this machine. Raises mmproto.settings.ConfigurationError."""
    return read(PipelineSettings, configuration_files(PRODUCT, config), env, flags, PRODUCT).settings
