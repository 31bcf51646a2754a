"""What a request says about its cost before it is sent: model, length of input, limit of output.

The numbers come from a caller and are only ever used as an upper bound, so nonsense in them (a negative
limit, a string, 10^300 tokens) is replaced by the bound that holds without them.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any

import orjson

# Input that is not in the request: an earlier response, a stored prompt or file, a picture behind an
# address. Keys inside prompt text have their quotes escaped and do not match.
_BY_REFERENCE = re.compile(
    rb'"(?:previous_response_id|conversation|file_id|vector_store_ids|prompt_id|container)"\s*:\s*["{\[]'
    rb'|"(?:url|image_url|file_url)"\s*:\s*"http'
    rb'|"prompt"\s*:\s*\{'
)
# The names in that pattern. Bytes are found many times faster than a pattern is searched, and most requests
# have none of them.
_REFERENCE_NAMES = (
    b'"previous_response_id"',
    b'"conversation"',
    b'"file_id"',
    b'"vector_store_ids"',
    b'"prompt_id"',
    b'"container"',
    b'"url"',
    b'"image_url"',
    b'"file_url"',
    b'"prompt"',
)
_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_MULTIPLIERS = ("n", "best_of")
_MOST_CHOICES = 128


class Unreadable(Exception):
    """The body cannot be read as a request of an LLM API. str() says why, for its sender."""


@dataclass(frozen=True, slots=True)
class Facts:
    """`model` None: not known, the body was too large to be held. `max_output` None: no limit given."""

    model: str | None
    tier: str
    max_output: int | None
    choices: int
    body_bytes: int
    by_reference: bool
    audio: bool


def facts_of_large(body_bytes: int) -> Facts:
    """What is known of a request that is too large to be held: its size."""
    return Facts(None, "", None, 1, body_bytes, by_reference=True, audio=False)


def read_document(body: bytes, content_encoding: bytes, limit: int) -> tuple[bytes, dict[str, Any]]:
    """A whole body as text and as document. Raises Unreadable. `limit` bounds what decompression may give."""
    text = _decoded(body, content_encoding, limit)
    try:
        form = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Unreadable("the request body is not valid JSON") from None
    if not isinstance(form, dict):
        raise Unreadable("the request body is not a JSON object")
    return text, form


def facts_of(text: bytes, form: dict[str, Any]) -> Facts:
    """The facts of a whole body as text and as document. Raises Unreadable."""
    model = form.get("model")
    if not isinstance(model, str) or not model:
        raise Unreadable("the request body names no model")
    tier = form.get("service_tier")
    choices = 1
    for name in _MULTIPLIERS:
        if name in form:
            choices = max(choices, min(_count(form[name]) or 1, _MOST_CHOICES))
    prompts = form.get("prompt")
    if isinstance(prompts, list) and prompts and isinstance(prompts[0], str | list):
        choices *= len(prompts)  # one completion for each prompt
    limits = [count for name in _LIMITS if (count := _count(form.get(name))) is not None]
    return Facts(
        model=model,
        tier=tier if isinstance(tier, str) else "",
        max_output=max(limits) if limits else None,
        choices=choices,
        body_bytes=len(text),
        by_reference=_is_by_reference(text),
        audio=b'"input_audio"' in text or b'"audio"' in text,
    )


def _is_by_reference(text: bytes) -> bool:
    for name in _REFERENCE_NAMES:
        if name in text:
            return _BY_REFERENCE.search(text) is not None
    return False


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _decoded(body: bytes, content_encoding: bytes, limit: int) -> bytes:
    encoding = content_encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise Unreadable(
            "a budget applies to this key, and the body's content-encoding cannot be read; use gzip"
        )
    inflate = zlib.decompressobj(wbits=47 if encoding == b"gzip" else 15)
    try:
        text = inflate.decompress(body, limit + 1)
    except zlib.error:
        raise Unreadable("the request body is not what its content-encoding says") from None
    if len(text) > limit or not inflate.eof:
        raise Unreadable(f"the request body does not decompress to {limit} bytes or less")
    return text
