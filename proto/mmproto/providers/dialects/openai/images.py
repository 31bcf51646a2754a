"""OpenAI's images and those of its copies: tokens where the model is priced by them, else a number of images.

The `gpt-image` family reports tokens: text and images in, images out. Everything older or other (dall-e, Grok
Imagine, FLUX at whoever serves it) is priced by the image, and what was delivered is counted. A stream brings
previews as `partial_image` events and the usage on `image_generation.completed` or `image_edit.completed`.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT

_TREE: Final[Tree] = {
    "id": VALUE,
    "type": VALUE,
    "model": VALUE,
    "data": {EVERY: {"url": PRESENT, "b64_json": PRESENT}},
    "usage": VALUE,
    "error": VALUE,
    "code": VALUE,
}
# Priced by tokens: without a report of them a number of images says nothing about the price.
_BY_TOKENS: Final = re.compile(r"(.*/)?(gpt|chatgpt)-image.*|.*gemini.*")


class OpenAIImages(Dialect):
    """POST .../images/generations, .../images/edits, .../images/variations"""

    operation: ClassVar[str] = "image_generation"
    flavour: ClassVar[str] = "openai"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "image": PRESENT, "images": PRESENT}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: Any = None
    _images: int = 0

    def read_request(self, document: Any) -> None:
        """Takes a request, often a form; what shows it is a prompt or an image."""
        super().read_request(document)
        if isinstance(document, dict):
            facts = self.facts
            facts.request_shaped = facts.request_shaped or "image" in document or "images" in document

    def read_response(self, document: Any) -> None:
        """Takes images or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        facts.response_id = text(document.get("id"))
        facts.response_model = text(document.get("model")) or facts.response_model
        self._usage = document.get("usage")
        images = document.get("data")
        if isinstance(images, list):
            facts.response_shaped = True
            self._images = sum(1 for image in images if isinstance(image, dict) and image)
        if document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def tells(self, data: bytes) -> bool:
        """All but the previews."""
        return b"partial_image" not in data or b'"usage"' in data or b'"error"' in data

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes an event of a stream of images."""
        facts = self.facts
        kind = text(document.get("type")) or name
        facts.response_model = text(document.get("model")) or facts.response_model
        self._usage = document.get("usage") or self._usage
        if kind.endswith(".partial_succeeded"):  # Volcengine: one of several images
            self._images += 1
        elif kind.endswith(".completed"):
            facts.response_shaped = facts.terminated = True
            self._images = self._images or 1
        elif document.get("error"):
            self.take_error(document["error"], document.get("code"))
            facts.terminated = True

    def measured(self, *, complete: bool) -> Measured:
        """Tokens where they are reported, images where those are what is paid for."""
        measured = openai_usage.measure_images(self._usage, self.facts)
        by_tokens = _BY_TOKENS.fullmatch(self.facts.response_model or self.facts.request_model)
        if measured.tokens or by_tokens or not self._images:
            return measured
        return Measured({}, {"images": float(self._images)}, QUALITY_EXACT)


ROUTES: Final = (
    Route(r".*/deployments/(?P<deployment>[^/]+)/images/(generations|edits)", OpenAIImages),
    Route(r".*/images/(generations|edits|variations)", OpenAIImages),
)
