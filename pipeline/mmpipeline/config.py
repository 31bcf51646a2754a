"""Settings of the pipeline: pipeline.yaml, its `.d` folder, MODELMETER_* variables and flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmproto.settings import STATE_DIR, configuration_files, read, setting

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
class Warehouse:
    """How rows go to the warehouse."""

    gather: float = setting(
        1.0, about="how long rows gather before an insert", unit="seconds", minimum=0.0, maximum=60.0
    )
    batch_rows: int = setting(10_000, about="rows of one insert at most", minimum=1, maximum=100_000)


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """Everything that can be set."""

    state_dir: Path = setting(STATE_DIR, about="folder of all state; shared with sensor and router")
    listen: Listen = setting(factory=Listen, about="where to listen")
    rating: Rating = setting(factory=Rating, about="prices")
    warehouse: Warehouse = setting(factory=Warehouse, about="the warehouse")
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
