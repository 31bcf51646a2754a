"""The id of a call: the same wherever and however often the call is seen, different for every other call.

The router sees a call in plain text, the sensor sees it again on the router's own TLS socket, a client
resends a batch: all must arrive at one id without talking to each other. So the id is a UUIDv5 of what the
provider itself said, in order of trust:

1. the id in the response body, where it is strong;
2. a request-id header of the response, where it is strong;
3. `x-modelmeter-call-id`, which the router puts on what it sends upstream (clients' own are stripped);
4. the observer's own coordinates (`fallback_id`): node, boot, connection, byte offset, or the digest of an
   archive's entry. Stable under resend by the same observer, no more.

With it goes the flavour of the API (`openai`, `anthropic`) and not the provider's name: the router knows a
gateway by its configuration, the sensor beside it may know the same host only by the API that it speaks, and
the two must agree.

Strong means random: local servers answer every request with `chatcmpl-123` or count from 0, and two calls
with one id would be charged once.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable
from typing import Final

CALL_ID_HEADER: Final = "x-modelmeter-call-id"

_NAMESPACE: Final = uuid.UUID("6d0d1c53-6a3c-5f0e-9a55-4d6f64656c4d")
_NAMESPACE_BYTES: Final = _NAMESPACE.bytes
# The bits that say "version 5, variant of RFC 9562", and all the others.
_MARKS: Final = 5 << 76 | 2 << 62
_HASHED: Final = ~(0xF << 76 | 3 << 62)
_REQUEST_ID_HEADERS: Final = ("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid")
_PREFIX: Final = re.compile(r"^[A-Za-z]+[-_]")
_MIN_RANDOM: Final = 16
_MIN_DISTINCT: Final = 6


def call_id(
    flavour: str,
    response_id: str,
    response_headers: Iterable[tuple[str, str]],
    request_headers: Iterable[tuple[str, str]],
    fallback_id: str,
) -> str:
    """The id of the call as text of a UUID. Header names are lower-case."""
    if is_strong(response_id):
        return _derived("response", flavour, response_id)
    found = {name: value for name, value in response_headers if name in _REQUEST_ID_HEADERS}
    for name in _REQUEST_ID_HEADERS:
        if is_strong(found.get(name, "")):
            return _derived("request", flavour, found[name])
    for name, value in request_headers:
        if name == CALL_ID_HEADER and is_strong(value):
            return _derived("router", "", value)
    return _derived("observer", "", fallback_id)


def is_strong(identifier: str) -> bool:
    """Whether an id is long and varied enough to be unique, a prefix such as `chatcmpl-` aside."""
    random = _PREFIX.sub("", identifier)
    return len(random) >= _MIN_RANDOM and len(set(random)) >= _MIN_DISTINCT


def _derived(kind: str, flavour: str, identifier: str) -> str:
    """A UUIDv5, written out: one is made for every call, and `uuid.uuid5` takes three times as long."""
    # A JSON text may hold a lone surrogate, which UTF-8 has no bytes for.
    name = f"{kind}\n{flavour}\n{identifier}".encode("utf-8", "replace")
    digest = hashlib.sha1(_NAMESPACE_BYTES + name, usedforsecurity=False).digest()
    text = f"{int.from_bytes(digest[:16]) & _HASHED | _MARKS:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
