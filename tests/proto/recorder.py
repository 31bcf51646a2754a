"""A relay on this machine that keeps what a client and a server say to each other, in its order."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmproto.reader import Direction

_TIMEOUT_S = 30.0


class Recorder:
    """`connections`: the steps of each connection as its client sees them."""

    def __init__(self, port: int) -> None:
        self.connections: list[list[tuple[Direction, bytes]]] = []
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_TIMEOUT_S)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            steps: list[tuple[Direction, bytes]] = []
            self.connections.append(steps)
            server = socket.create_connection(("127.0.0.1", self._upstream), timeout=_TIMEOUT_S)
            thread = threading.Thread(target=self._relay, args=(client, server, steps))
            thread.start()
            self._threads.append(thread)

    @staticmethod
    def _relay(client: socket.socket, server: socket.socket, steps: list[tuple[Direction, bytes]]) -> None:
        with client, server, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, (server, Direction.WRITE))
            selector.register(server, selectors.EVENT_READ, (client, Direction.READ))
            while ready := selector.select(_TIMEOUT_S):
                for key, _ in ready:
                    other, direction = key.data
                    try:
                        data = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                        if not data:
                            return
                        steps.append((direction, data))
                        other.sendall(data)
                    except OSError:
                        return

    def close(self) -> None:
        """Takes no more connections, and waits for those that there are."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(_TIMEOUT_S)


@contextmanager
def recording(port: int) -> Iterator[Recorder]:
    """A recorder in front of the server at `port`."""
    recorder = Recorder(port)
    try:
        yield recorder
    finally:
        recorder.close()


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that gives each connection to `handle`."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            connection.settimeout(_TIMEOUT_S)
            threads.append(threading.Thread(target=handle, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in [accepting, *threads]:
            thread.join(_TIMEOUT_S)
