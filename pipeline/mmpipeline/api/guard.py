"""What stands in front of every answer: which names this server answers to, and the browser's rules.

Reads are open to whoever can connect, which in the embedded default is this machine. A web page of
somebody else could still reach it through DNS rebinding: its own name, resolved to 127.0.0.1, makes us
"same origin". So a request is answered where its Host is an address (rebinding needs a name), localhost,
this machine's own name, or a name that was configured; requests that bring a token are not a browser's.

Writes need a bearer token, which no browser adds by itself, so there is nothing to forge.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmpipeline.api.problems import response

# Everything comes from this server; nothing inline; data of other origins can neither load nor frame us.
_CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

_HEADERS: Final = (
    (b"content-security-policy", _CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_NOT_STORED: Final = (b"cache-control", b"no-store")


class Guard:
    """ASGI middleware: checks Host, adds the headers. Plain, because ingest passes through it as well."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        own = socket.gethostname().lower()
        self._hosts = {"localhost", own, own.partition(".")[0], *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if b"authorization" not in headers and not self._is_ours(headers.get(b"host", b"").decode("latin-1")):
            refusal = response(
                421,
                "this server does not answer to that host name; use its address, localhost or its own name",
            )
            await refusal(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message["headers"] = [*message.get("headers", ()), *_HEADERS]
                if not any(name == b"cache-control" for name, _ in given):
                    given.append(_NOT_STORED)
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _is_ours(self, host: str) -> bool:
        name = host.lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") <= 1:
            name = name.partition(":")[0]
        if name in self._hosts or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
