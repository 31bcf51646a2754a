"""The secret that a request was made with: what is hashed to tell keys apart, and never handed on.

A bearer token is hashed without its scheme, so that one key is one hash in whichever header it is sent. A
request to AWS is signed anew each time: the id of the access key in the signature tells who signed. Google
and Azure take the key as a parameter of the query, too, and browsers, which cannot send headers with a
WebSocket, name it among its subprotocols: `openai-insecure-api-key.KEY` (OpenAI), `token, KEY` (Deepgram).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

# Headers that hold secrets: hashed or ignored, never handed on, whatever the configuration asks for.
CREDENTIAL_HEADERS: Final = frozenset(
    {
        "authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "x-goog-iam-authorization-token",
        "x-amz-security-token",
        "ocp-apim-subscription-key",
        "xi-api-key",
        "x-auth-token",
        "x-access-token",
        # Of gateways.
        "x-litellm-api-key",
        "x-portkey-api-key",
        "cf-aig-authorization",
        "helicone-auth",
        "proxy-authorization",
        "sec-websocket-protocol",
        "cookie",
        "set-cookie",
    }
)
_KEY_HEADERS: Final = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "ocp-apim-subscription-key")
_SIGNED: Final = re.compile(r"AWS4-\S+ .*?Credential=([^/,\s]+)")
_SUBPROTOCOL: Final = re.compile(r"openai-insecure-api-key\.([^\s,]+)|^\s*(?:token|bearer)\s*,\s*([^\s,]+)")
_QUERY_KEY: Final = re.compile(r"(?:^|&)(?:key|api-key|access_token)=([^&]+)")


def api_key(headers: Mapping[str, str], query: str) -> str:
    """The key of a request with these headers (names in lower case) and this query, "" where it has none."""
    for name in _KEY_HEADERS:
        value = headers.get(name)
        if value:
            return _of_authorization(value) if name == "authorization" else value
    if (named := _SUBPROTOCOL.search(headers.get("sec-websocket-protocol", ""))) is not None:
        return named[1] or named[2]
    found = _QUERY_KEY.search(query)
    return unquote(found[1]) if found else ""


def _of_authorization(value: str) -> str:
    scheme, _, token = value.partition(" ")
    if scheme.lower() in ("bearer", "token"):
        return token.strip()
    signed = _SIGNED.match(value)
    return signed[1] if signed else value
