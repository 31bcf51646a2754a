"""A loopback port that stays ours while nothing listens on it.

A broker that is killed must come back on its port. Until then the kernel could lend the port to any program
that connects somewhere, to the very client that tries to reach the broker among them: such a connection
reaches itself. A socket that is bound to the port and never listens keeps it from being lent; a server that
sets SO_REUSEADDR, as all do, may listen there all the same.
"""

from __future__ import annotations

import socket


class LoopbackPort:
    """A port of 127.0.0.1 from the kernel, or `number`. Raises OSError where that one is taken."""

    def __init__(self, number: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if number:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._socket.bind(("127.0.0.1", number))
            else:
                # Not shared while it is being chosen: it must be nobody's.
                self._socket.bind(("127.0.0.1", 0))
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError:
            self._socket.close()
            raise
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()
