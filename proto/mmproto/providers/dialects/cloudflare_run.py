"""Cloudflare Workers AI by its own API: the model in the path, the answer inside `result`.

Text models report OpenAI's usage object, in a stream on the last event; embeddings report none. What makes
images or sound answers with bytes. Behind Cloudflare's gateway the path is another, the bodies are the same.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.facts import Measured
from mmproto.providers.route import Route

_RESULT: Final[Tree] = {"response": PRESENT, "usage": VALUE}
_TREE: Final[Tree] = {
    **_RESULT,
    "result": _RESULT,
    "success": VALUE,
    "errors": {EVERY: {"code": VALUE}},
    "error": VALUE,
}


class CloudflareRun(Dialect):
    """POST .../ai/run/@cf/..."""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "cloudflare"
    answers_bytes: ClassVar[bool] = True
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "text": PRESENT}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: Any = None

    def read_response(self, document: Any) -> None:
        """Takes a result, or errors."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        result = document.get("result")
        if isinstance(result, dict):
            self._usage = result.get("usage") or self._usage
        facts.response_shaped = facts.terminated = "success" in document
        errors = document.get("errors")
        first = errors[0] if isinstance(errors, list) and errors else None
        if document.get("error") or (first and document.get("success") is False):
            self.take_error(document.get("error") or first)

    def tells(self, data: bytes) -> bool:
        """The usage and errors; all others are deltas."""
        return b'"usage"' in data or b'"error' in data

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes an event of a stream, which has no `result` around it."""
        self._usage = document.get("usage") or self._usage
        self.facts.response_shaped = True
        if document.get("error") or document.get("errors"):
            self.read_response(document)

    def measured(self, *, complete: bool) -> Measured:
        """The last usage."""
        return openai_usage.measure(self._usage, self.facts, self.quirks)


class CloudflareEmbeddings(CloudflareRun):
    """POST .../ai/run/ of a model that embeds"""

    operation: ClassVar[str] = "embeddings"

    def measured(self, *, complete: bool) -> Measured:
        """The input, where it is reported."""
        return openai_usage.measure(self._usage, self.facts, self.quirks, has_output=False)


_PREFIX: Final = r".*/(ai/run|workers-ai)/"
_CLOUDFLARE: Final = frozenset({"cloudflare"})
ROUTES: Final = (
    Route(
        _PREFIX + r"(?P<model>@[^/]+/[^/]+/[^/]*(bge|embed)[^/]*)",
        CloudflareEmbeddings,
        providers=_CLOUDFLARE,
    ),
    Route(_PREFIX + r"(?P<model>@[^/]+/[^/]+/[^/]+)", CloudflareRun, providers=_CLOUDFLARE),
)
