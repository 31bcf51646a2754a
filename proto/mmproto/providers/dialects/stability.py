"""Stability AI: images by the piece, in bytes, in base64, or in a list of artifacts.

Its prices are credits by model and not by token; a picture that is delivered is one image. Videos and
upscaling that take long are begun here and looked at later, for nothing.

Source: Stability's API reference (`v1` and `v2beta`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT

_TREE: Final[Tree] = {
    "id": VALUE,
    "name": VALUE,
    "finish_reason": VALUE,
    "image": PRESENT,
    "artifacts": {EVERY: {"finishReason": VALUE}},
    "errors": PRESENT,
}
_IMAGES: Final = "image/"


class StabilityImage(Dialect):
    """POST /v2beta/stable-image/... and /v1/generation/{engine}/..."""

    operation: ClassVar[str] = "image_generation"
    flavour: ClassVar[str] = "stability"
    answers_bytes: ClassVar[bool] = True
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "text_prompts": PRESENT}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _images: int | None = None

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """An answer in bytes is one image."""
        super().read_response_head(status, headers)
        if status == 200 and headers.get("content-type", "").startswith(_IMAGES):
            self._images = 1

    def read_response(self, document: Any) -> None:
        """Takes an image, several of them, or an error."""
        if not isinstance(document, dict):
            return
        self.facts.terminated = True
        if "artifacts" in document:
            self._images = len(document["artifacts"] or ())
        elif "image" in document:
            self._images = 1
        if "errors" in document:
            self.take_error(None, document.get("name"))
        if reason := text(document.get("finish_reason")):
            self.facts.finish_reasons = [reason]

    def measured(self, *, complete: bool) -> Measured:
        """Images."""
        if self._images is None:
            return Measured()
        return Measured({}, {"images": float(self._images)}, QUALITY_EXACT)


_STABILITY: Final = frozenset({"stability"})
ROUTES: Final = (
    Route(r"/v1/generation/(?P<model>[^/]+)/[^/]+(/[^/]+)?", StabilityImage, providers=_STABILITY),
    Route(
        r"/v2beta/(stable-image/[^/]+/(?P<model>[^/]+)|image-to-video|3d/.*|audio/.*)",
        StabilityImage,
        providers=_STABILITY,
    ),
)
