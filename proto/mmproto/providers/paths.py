"""Which request is which operation: the routes of all dialects in one table, and what else there is to know.

Paths are matched at their end, because gateways and compatible servers put anything before them. At a host
that no table knows the path alone proves nothing (there are other APIs with `/v1/messages`): there
`Match.known_host` is false, and the exchange must look like the dialect in its bodies as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from mmproto.providers import hosts, reasons
from mmproto.providers.catalogue import DIALECTS
from mmproto.providers.dialect import Dialect
from mmproto.providers.route import Route

NOT_LLM: Final = reasons.NOT_LLM
NOT_AN_OPERATION: Final = "not_an_operation"
DIALECT_NOT_SUPPORTED: Final = "dialect_not_supported"

_ROUTES: Final[tuple[Route, ...]] = tuple(
    sorted((route for dialect in DIALECTS for route in dialect.ROUTES), key=lambda route: not route.providers)
)
_COMPILED: Final = tuple((re.compile(route.path), route) for route in _ROUTES)
# Operations of LLM APIs whose dialects are not read here: a call that is not measured, which has to show.
_OTHER_OPERATIONS: Final = re.compile(
    r".*(:(stream)?(generate|rawpredict|predict|batchembed|embed|batchgenerate|raw)\w*"
    r"|/(converse|converse-stream|invoke|invoke-with-response-stream|invocations)"
    r"|/images/(generations|edits|variations)|/audio/(transcriptions|translations|speech)"
    r"|/(complete|generate|generation|text|chat|embed|rerank|ocr|interactions|realtime|stt|tts|predictions|listen|speak)"
    r"|/api/embeddings|/threads/runs|/threads/[^/]+/runs|/videos(/generations)?|/services/aigc/.*"
    r"|/images|/fal-ai/.*|/workflows/.*|/[^/]*(text|image|audio|video|speech)[_-]to[_-]\w+)",
    re.IGNORECASE,
)
# Paths that no other API has: behind a gateway of unknown name they still show whose dialect is spoken.
_FOREIGN_SHAPES: Final = (
    (re.compile(r".*/models/[^/]+:(stream)?generateContent", re.IGNORECASE), "gcp.gemini"),
    (re.compile(r".*/model/[^/]+/(converse|invoke)(-stream|-with-response-stream)?"), "aws.bedrock"),
)
# Where an operation is only described, counted or prepared.
_PREPARATIONS: Final = re.compile(
    r".*(/count[_-]tokens|/input_tokens|:countTokens|/tokenize|/batches|/apply)", re.IGNORECASE
)
_SLASHES: Final = re.compile(r"//+")
_MAX_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class Match:
    """What a request is, judged by its method, host and path."""

    provider: str = ""
    dialect: type[Dialect] | None = None
    reason: str = ""  # where there is no dialect: why
    known_host: bool = False
    quirks: frozenset[hosts.Quirk] = frozenset()
    path: str = ""
    names: Mapping[str, str] = field(default_factory=dict)  # groups of the route, percent-decoded
    free: str = ""

    @property
    def is_loss(self) -> bool:
        """Whether this is an LLM operation that cannot be read."""
        return self.reason.startswith(DIALECT_NOT_SUPPORTED)


def match(method: str, host: str, target: str, extra_hosts: Mapping[str, str]) -> Match:
    """Classifies a request. `host` may carry a port; `extra_hosts` is `ReadingRules.hosts`."""
    host = host.lower()
    configured = _configured(host, hosts.without_port(host), extra_hosts) if extra_hosts else ""
    path = _path(target)
    # A path may be as long as a head, and a thousand of those are not remembered.
    found = _match if len(host) + len(path) <= _MAX_REMEMBERED else _match.__wrapped__
    return found(method, host, path, configured)


def provider_of(host: str, extra_hosts: Mapping[str, str]) -> str:
    """The provider that answers at `host[:port]`, "" where no table knows it."""
    bare = hosts.without_port(host)
    known = hosts.find(bare)
    return _configured(host.lower(), bare, extra_hosts) or (known.provider if known else "")


def query_of(target: str) -> str:
    """The query of a request target, undecoded."""
    return target.partition("?")[2].partition("#")[0]


@lru_cache(maxsize=1024)
def _match(method: str, host: str, path: str, configured: str) -> Match:
    known = hosts.find(hosts.without_port(host))
    quirks = known.quirks if known else hosts.quirks_of(configured)
    provider = configured or (hosts.provider_at(known, path) if known else hosts.provider_by_port(host))
    for pattern, route in _COMPILED:
        if method not in route.methods or (route.providers and provider not in route.providers):
            continue
        if (found := pattern.fullmatch(path)) is not None:
            return Match(
                provider=provider or route.dialect.flavour,
                dialect=route.dialect,
                known_host=bool(provider),
                quirks=quirks,
                path=path,
                names={name: unquote(value) for name, value in found.groupdict().items() if value},
                free=route.free,
            )
    return Match(provider=provider, reason=_reason(method, path, provider), known_host=bool(provider))


def _reason(method: str, path: str, provider: str) -> str:
    if not provider and method == "POST":
        provider = next((name for shape, name in _FOREIGN_SHAPES if shape.fullmatch(path)), "")
    if not provider:
        return NOT_LLM
    lost = method == "POST" and not _PREPARATIONS.fullmatch(path) and _OTHER_OPERATIONS.fullmatch(path)
    if lost or path.endswith("/realtime"):
        return f"{DIALECT_NOT_SUPPORTED}:{provider}"
    return NOT_LLM if provider in hosts.MIXED_HOSTS else NOT_AN_OPERATION


def _path(target: str) -> str:
    """The path of a request target in origin or absolute form."""
    if target[:4].lower() == "http":
        _, _, rest = target.partition("://")
        target = "/" + rest.partition("/")[2]
    path = target.partition("?")[0].partition("#")[0]
    return (_SLASHES.sub("/", path) if "//" in path else path).rstrip("/")


def _configured(host: str, bare: str, extra_hosts: Mapping[str, str]) -> str:
    for name in (host, bare):
        if name in extra_hosts:
            return extra_hosts[name]
    for pattern, provider in extra_hosts.items():
        if pattern.startswith("*.") and bare.endswith(pattern[1:]):
            return provider
    return ""
