"""A server of `services/` under the supervisor: started, watched and stopped beside the daemons.

Starting and stopping one takes seconds and blocks, so each has a thread of its own; that thread must last
as long as the server, which the kernel ends with the thread that started it.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from mmlocal.process import ServiceFailed


class Server(Protocol):
    """What the classes of `services/` have in common."""

    @property
    def pid(self) -> int | None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class ServerChild:
    """A server that runs. `ended` is done when its process is gone."""

    address = ""

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._server = server
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._watched = -1

    async def start(self) -> None:
        """Returns when it takes requests. Raises ServiceFailed."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._server.start)
        except RuntimeError as error:
            raise ServiceFailed(str(error)) from error
        if pid := self._server.pid:
            self._watched = os.pidfd_open(pid)
            loop.add_reader(self._watched, self._gone)

    def _gone(self) -> None:
        self._unwatch()
        if not self.ended.done():
            self.ended.set_result(0)

    def _unwatch(self) -> None:
        if self._watched >= 0:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1

    def obituary(self) -> str:
        """Only that it is gone: its log, which it names when it starts, knows more."""
        return f"{self.name} ended by itself"

    async def stop(self, patience_s: float) -> None:
        """What it was asked before is finished; it knows itself how long that may take."""
        self._unwatch()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._server.stop)
        self._thread.shutdown()
