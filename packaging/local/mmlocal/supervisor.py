"""Starts services in order, waits until each is ready, stops all when one ends or a person asks."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from mmlocal.process import Child, Say, Service, ServiceFailed
from mmlocal.servers import Server, ServerChild

READY_WITHIN_S = 90.0
STOP_WITHIN_S = 20.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class AlreadyRunning(RuntimeError):
    """Another supervisor has this state folder."""


class Stopped(Exception):
    """A person asked for the end before everything was up."""


@contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Holds the state folder for this supervisor. Raises AlreadyRunning."""
    path = state / "up.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise AlreadyRunning(
                f"{state} is in use by process {file.read().strip()}: "
                "stop that one, or give another folder with STATE=/path"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class Running(Protocol):
    """What the supervisor needs of whatever runs: a daemon or a server."""

    address: str

    @property
    def ended(self) -> asyncio.Future[int]: ...

    def obituary(self) -> str: ...

    async def stop(self, patience_s: float) -> None: ...


class Supervisor:
    """`async with`: leaving it stops what was started, in reverse order."""

    def __init__(self, state: Path, say: Say) -> None:
        self.children: dict[str, Running] = {}
        self._logs = state / "log"
        self._say = say
        self._asked = asyncio.Event()

    async def __aenter__(self) -> Supervisor:
        self._logs.mkdir(parents=True, exist_ok=True)
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._asked.set)
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in reversed(self.children.values()):
            await child.stop(STOP_WITHIN_S)

    async def start(self, services: Iterable[Service]) -> None:
        """Start all of them at once and wait for each. Raises ServiceFailed, Stopped."""
        new = []
        for service in services:
            child = await Child.start(service, self._logs, self._say)
            self.children[service.name] = child
            new.append(child)
        await self._unless_asked(child.until_ready(READY_WITHIN_S) for child in new)

    async def start_servers(self, servers: Mapping[str, Server]) -> None:
        """The same for servers, by name. Raises ServiceFailed, Stopped."""
        new = {name: ServerChild(name, server) for name, server in servers.items()}
        self.children |= new
        await self._unless_asked(child.start() for child in new.values())

    async def once(self, service: Service) -> None:
        """Run a command to its end, which must be a good one. Raises ServiceFailed, Stopped."""
        child = await Child.start(service, self._logs, self._say)
        self.children[service.name] = child

        async def ended_well() -> None:
            if await child.ended:
                raise ServiceFailed(child.obituary())

        await self._unless_asked([ended_well()])
        del self.children[service.name]

    async def _unless_asked(self, all_of: Iterable[Awaitable[None]]) -> None:
        """Wait for all of them. Raises Stopped where a person asks for the end before."""
        ready = asyncio.gather(*all_of)
        asked = asyncio.create_task(self._asked.wait())
        try:
            either: set[asyncio.Future[Any]] = {ready, asked}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                ready.cancel()
                raise Stopped
            ready.result()
        finally:
            asked.cancel()

    async def run(self) -> None:
        """Until a person asks for the end. Raises ServiceFailed if a service ends before that."""
        asked = asyncio.create_task(self._asked.wait())
        everyone: dict[asyncio.Future[Any], Running] = {
            child.ended: child for child in self.children.values()
        }
        await asyncio.wait({asked, *everyone}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not self._asked.is_set():
            raise ServiceFailed(next(child.obituary() for task, child in everyone.items() if task.done()))
