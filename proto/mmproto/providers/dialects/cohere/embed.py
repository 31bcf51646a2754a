"""Cohere embeddings, classification and transcription, and what only counts tokens.

An embedding is billed by input tokens, and images by tokens or by the piece. A classification is billed by
the input, which has no bucket, a transcription by the length of its sound, which the answer does not say:
there is nothing to count in either.

Source: the API reference, versions 1 and 2.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.dialects.cohere import usage as cohere_usage
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import TOKEN_COUNTING
from mmproto.providers.route import Route

_TREE: Final[Tree] = {
    "id": VALUE,
    "meta": VALUE,
    "usage": VALUE,
    "response_type": VALUE,
    "embeddings": PRESENT,
    "classifications": PRESENT,
    "tokens": PRESENT,
    "text": PRESENT,
    "error": VALUE,
}
_SHAPES: Final = ("embeddings", "classifications")


class CohereEmbed(Dialect):
    """POST .../v1/embed and .../v2/embed"""

    operation: ClassVar[str] = "embeddings"
    flavour: ClassVar[str] = "cohere"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "texts": PRESENT, "inputs": PRESENT, "images": PRESENT}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: Any = None

    def read_request(self, document: Any) -> None:
        """As every request, but many APIs take `inputs`: the answer has to show what this is."""
        super().read_request(document)
        self.facts.request_shaped = False

    def read_response(self, document: Any) -> None:
        """Takes an answer or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        self._usage = document.get("usage") or document.get("meta")
        facts.response_id = text(document.get("id"))
        facts.response_shaped = any(name in document for name in _SHAPES) and isinstance(self._usage, dict)
        if document.get("error"):
            self.take_error(document["error"])

    def measured(self, *, complete: bool) -> Measured:
        """What is billed, where there is a bucket for it."""
        return cohere_usage.measure(self._usage, self.facts, has_output=False)


class CohereClassify(CohereEmbed):
    """POST .../v1/classify"""

    operation: ClassVar[str] = "classify"


class CohereTranscription(CohereEmbed):
    """POST .../v2/audio/transcriptions"""

    operation: ClassVar[str] = "transcription"


class CohereTokenize(CohereEmbed):
    """POST .../v1/tokenize and .../v1/detokenize"""

    operation: ClassVar[str] = "tokenize"


_COHERE: Final = frozenset({"cohere"})
ROUTES: Final = (
    Route(r".*/v[12]/embed", CohereEmbed),
    Route(r"/embed", CohereEmbed, providers=_COHERE),
    Route(r"(.*/v1)?/classify", CohereClassify, providers=_COHERE),
    Route(r".*/audio/transcriptions", CohereTranscription, providers=_COHERE),
    Route(r"(.*/v[12])?/(de)?tokenize", CohereTokenize, providers=_COHERE, free=TOKEN_COUNTING),
)
