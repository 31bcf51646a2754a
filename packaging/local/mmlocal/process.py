"""One child process: its output kept in a log, its readiness and its end seen."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

READY = re.compile(r"listening on (https?://\S+)")
IMPORTANT = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b")
LAST_LINES = 12
LINE_LIMIT = 1 << 20  # bytes; a longer line ends the reading of that process, not the process
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Service:
    """What to run. One that `announces` prints `listening on URL` when it is ready."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    announces: bool = True


class ServiceFailed(RuntimeError):
    """A service did not come up or went away; the text says which, how, and its last words."""


class Child:
    """A running service. `address` is set when `ready` is done; `ended` is done when the process is gone."""

    def __init__(self, service: Service, process: asyncio.subprocess.Process, log: Path, say: Say) -> None:
        self.service = service
        self.address = ""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.create_task(self._watch(), name=service.name)
        self._process = process
        self._log = log
        self._say = say
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    @classmethod
    async def start(cls, service: Service, logs: Path, say: Say) -> Child:
        """Start it in a session of its own: Ctrl-C reaches the supervisor alone, which decides the order."""
        try:
            process = await asyncio.create_subprocess_exec(
                *service.command,
                env={**os.environ, **service.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=LINE_LIMIT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise ServiceFailed(f"{service.name} cannot be started: {error}") from error
        return cls(service, process, logs / f"{service.name}.log", say)

    async def _watch(self) -> int:
        output = cast("asyncio.StreamReader", self._process.stdout)  # started with a pipe
        with self._log.open("a", encoding="utf-8") as log:
            async for raw in output:
                line = raw.decode("utf-8", "replace").rstrip()
                log.write(line + "\n")
                log.flush()
                self._last.append(line)
                self._read(line)
        return await self._process.wait()

    def _read(self, line: str) -> None:
        announced = READY.search(line)
        if announced and not self.address:
            self.address = announced[1]
            if not self.ready.done():
                self.ready.set_result(None)
        elif IMPORTANT.search(line):
            self._say(f"{self.service.name}: {line}")

    async def until_ready(self, timeout_s: float) -> None:
        """Returns once it has announced itself. Raises ServiceFailed if it ends or is silent instead."""
        if not self.service.announces:
            return
        either: set[asyncio.Future[Any]] = {self.ready, self.ended}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():
            raise ServiceFailed(self.obituary())
        if not self.ready.done():
            raise ServiceFailed(
                f"{self.service.name} is not ready after {timeout_s:.0f} s; its log: {self._log}"
            )

    def obituary(self) -> str:
        """How it ended, with its last words."""
        code = self.ended.result()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        words = "".join(f"\n    {line}" for line in self._last if line)
        return f"{self.service.name} {how} (log: {self._log}){words}"

    async def stop(self, patience_s: float) -> None:
        """SIGTERM, and SIGKILL for one that does not listen. Returns when it is gone."""
        if self._process.returncode is None:
            self._signal(signal.SIGTERM)
        await asyncio.wait({self.ended}, timeout=patience_s)
        if not self.ended.done():
            self._say(f"{self.service.name} did not stop within {patience_s:.0f} s: killed")
            self._signal(signal.SIGKILL)
            await self.ended

    def _signal(self, number: signal.Signals) -> None:
        """To the service and whatever it has started: its session is its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _die_with_parent() -> None:
    """In the child: should the supervisor be killed, the kernel asks this process to end too."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
