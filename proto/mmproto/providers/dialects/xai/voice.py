"""xAI's speech APIs: characters spoken, seconds heard. Neither names a model."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.dialect import REQUEST_TREE
from mmproto.providers.dialects.openai.audio import OpenAISpeech, OpenAITranscription
from mmproto.providers.route import Route


class XaiSpeech(OpenAISpeech):
    """POST /v1/tts"""

    flavour: ClassVar[str] = "x_ai"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "text": VALUE, "voice_id": PRESENT}

    def read_request(self, document: Any) -> None:
        """As OpenAI's, with another name for what is to be spoken."""
        if isinstance(document, dict):
            super().read_request({**document, "input": document.get("text")})


class XaiTranscription(OpenAITranscription):
    """POST /v1/stt"""

    flavour: ClassVar[str] = "x_ai"


_XAI: Final = frozenset({"x_ai"})
ROUTES: Final = (
    Route(r".*/v1/tts", XaiSpeech, providers=_XAI),
    Route(r".*/v1/stt", XaiTranscription, providers=_XAI),
)
