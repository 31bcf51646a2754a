"""Who gets in: the first decision about every request, before its body is looked at.

The router's own pages, then the path, then the key, then budgets that are used up already. What passes
becomes a `Relay`; what does not is answered here, and nothing is sent upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from mmrouter.dialects import Dialect, Refusal, Route, dialect_of, error_response, route_of
from mmrouter.keys import KeyRing
from mmrouter.server.client import ClientConnection, ClientLimits, Handler
from mmrouter.server.pages import PREFIX, Pages
from mmrouter.server.relay import Desk, Relay, Upstream, refuse
from mmrouter.server.wire import Request

# The rest of a small request is awaited before it is refused, so that its connection can be kept.
_AWAITED_BYTES = 64 * 1024


class FrontDoor:
    """The server that connections belong to: all of them, their limits, and what answers a request."""

    def __init__(
        self,
        desk: Desk,
        *,
        keys: KeyRing,
        upstreams: Mapping[Dialect, Upstream],
        limits: ClientLimits,
        max_connections: int,
        pages: Pages,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self.limits = limits
        self.connections: set[ClientConnection] = set()
        self.draining = False
        self._desk = desk
        self._keys = keys
        self._upstreams = upstreams
        self._max_connections = max_connections
        self._pages = pages
        self.clock = clock
        self._new_id = new_id

    def opened(self, connection: ClientConnection) -> bool:
        self.connections.add(connection)
        self._desk.counts.connections += 1
        if len(self.connections) > self._max_connections:
            self.rejected("too_many_connections")
            return False
        return True

    def closed(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)

    def rejected(self, reason: str) -> None:
        self._desk.counts.rejected[reason] += 1

    def sweep(self) -> None:
        """Hold every connection against its deadline: clients' and providers'."""
        now = self.clock()
        for connection in [c for c in self.connections if 0.0 < c.deadline < now]:
            connection.expire()
        for upstream in self._upstreams.values():
            upstream.pool.sweep(now)

    def shut_down(self) -> None:
        """Take no further request; those being answered are finished."""
        self.draining = True
        for connection in list(self.connections):
            connection.shut_down()

    def handler(self, connection: ClientConnection, request: Request) -> Handler:
        path = request.target.partition("?")[0]
        if path.startswith(PREFIX):
            self._desk.counts.answered += 1
            return Ready(connection, request, self._pages.answer(request.method, path))
        anthropic = request.header(b"anthropic-version") is not None
        route = route_of(path, anthropic)
        if route is None:
            dialect = dialect_of(path, anthropic)
            message = (
                f"the router has no path {_shown(path)}; it serves the OpenAI and Anthropic APIs under /v1/"
            )
            return self._no(connection, request, dialect, Refusal.NO_ROUTE, message)
        if request.method != route.method:
            message = f"{path} takes {route.method}, not {request.method}"
            return self._no(connection, request, route.dialect, Refusal.METHOD, message)
        return self._for_key(connection, request, route)

    def _for_key(self, connection: ClientConnection, request: Request, route: Route) -> Handler:
        dialect = route.dialect
        key = self._keys.find(request.header(b"authorization"), request.header(b"x-api-key"))
        if key is None:
            message = (
                "no valid ModelMeter key: send a virtual key (mmk-...) as 'Authorization: Bearer' or "
                "'x-api-key'; your platform team hands them out"
            )
            return self._no(connection, request, dialect, Refusal.NO_KEY, message)
        refused = self._desk.gate.early(key, route)
        if refused is not None:
            return Ready(connection, request, lambda close: refuse(self._desk, route, key, refused, close))
        upstream = self._upstreams.get(dialect)
        if upstream is None:
            message = (
                f"this router has no upstream for the {dialect.value} API; an operator must configure one"
            )
            return self._no(connection, request, dialect, Refusal.NO_UPSTREAM, message)
        call_id = self._new_id()
        return Relay(
            self._desk, connection, request, route=route, key=key, upstream=upstream, call_id=call_id
        )

    def _no(
        self, connection: ClientConnection, request: Request, dialect: Dialect, refusal: Refusal, message: str
    ) -> Handler:
        self._desk.counts.refused[refusal.code] += 1

        def answer(close: bool) -> bytes:
            return error_response(dialect, refusal, message, close=close, should_retry=False)

        return Ready(connection, request, answer)


class Ready:
    """An answer that is known before the body. `answer` gives its bytes, told if the connection closes."""

    def __init__(
        self, connection: ClientConnection, request: Request, answer: Callable[[bool], bytes]
    ) -> None:
        self._connection = connection
        self._request = request
        self._answer = answer
        self._answered = False

    @property
    def answering(self) -> bool:
        return self._answered

    def start(self) -> None:
        request = self._request
        long = request.chunked or (request.content_length or 0) > _AWAITED_BYTES
        if not self._connection.body_complete and (long or request.expects_continue):
            self._reply()

    def body(self, data: bytes) -> None:
        pass

    def body_end(self) -> None:
        if not self._answered:
            self._reply()

    def client_writable(self, writable: bool) -> None:
        pass

    def gone(self, reason: str) -> None:
        self._answered = True

    def _reply(self) -> None:
        self._answered = True
        keep = self._request.keep_alive and self._connection.body_complete
        self._connection.write(self._answer(not keep))
        self._connection.finished(keep)


def _shown(path: str) -> str:
    return urlsplit(path).path[:80]
