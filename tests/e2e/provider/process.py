"""The provider as a process of its own, for a test or the demo to start and stop."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.provider.journal import Served, read_journal

ROOT = Path(__file__).resolve().parents[3]
READY = "listening on "


class ProviderFailed(RuntimeError):
    """It did not come up; the text is what it said."""


@dataclass(slots=True)
class ProviderProcess:
    """`with ProviderProcess.start(folder) as provider: ...`"""

    folder: Path
    url: str  # https://127.0.0.1:PORT
    _process: subprocess.Popen[str]

    @classmethod
    def start(cls, folder: Path, port: int = 0) -> Self:
        """Start it and wait until it listens. Raises ProviderFailed."""
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "provider.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.provider", "--dir", str(folder), "--port", str(port)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith(READY):
            process.wait()
            process.stdout.close()
            raise ProviderFailed(log.read_text().strip() or "the local provider ended without a word")
        return cls(folder, line.removeprefix(READY).strip(), process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def journal(self) -> list[Served]:
        """Every request answered so far, in order."""
        return read_journal(self.folder / "journal.jsonl")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
