"""SageMaker endpoints: any model behind one path, which may speak OpenAI's dialect or Hugging Face's TGI.

What answers with generated text, choices or a usage is taken for a call; classifiers and other models are
not ours. The endpoint's machines are what is paid for; tokens are counted where the model tells them, and
TGI tells only those that it generated. Streams are AWS frames of raw bytes, which are the model's own
stream: server-sent events, or lines of JSON, cut anywhere.

Source: docs.aws.amazon.com/sagemaker/latest/APIReference/API_Operations_Amazon_SageMaker_Runtime.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.documents import DocumentReader
from mmproto.framing.events import Event, EventFraming
from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.framing.payload import Style
from mmproto.framing.sse import EventReader
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import REQUEST_TREE, Asked
from mmproto.providers.dialects.openai.chat import OpenAIChat
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import NOT_LLM
from mmproto.providers.route import POST, Route
from mmproto.v1.usage_pb2 import QUALITY_PARTIAL

_PART: Final = "PayloadPart"
_DETAILS: Final[Tree] = {"finish_reason": VALUE, "generated_tokens": VALUE}
_TGI: Final[Tree] = {"generated_text": PRESENT, "token": PRESENT, "details": _DETAILS}
_GENERATED: Final = ("generated_text", "token", "generation", "generations", "outputs", "completions")


class SageMaker(OpenAIChat):
    """POST .../endpoints/NAME/invocations and /invocations-response-stream"""

    flavour: ClassVar[str] = "aws.sagemaker"
    style: ClassVar[Style] = Style.FRAMES
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "inputs": PRESENT, "text_inputs": PRESENT}
    response_tree: ClassVar[Tree] = {
        **OpenAIChat.response_tree,
        **_TGI,
        **dict.fromkeys(_GENERATED[2:], PRESENT),
        EVERY: _TGI,
    }
    event_tree: ClassVar[Tree] = response_tree

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        streams = asked.path.endswith("-stream")
        self.facts.stream_requested = streams
        self.facts.streamed = streams or None
        self._generated: int | None = None
        self._served = False
        self._inner: EventFraming | None = None
        self._first = b""

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Takes errors, which have a header of their own."""
        super().read_response_head(status, headers)
        self._served = 200 <= status < 300
        if name := headers.get("x-amzn-errortype"):
            self.facts.error_type = text(name.partition(":")[0])

    def read_response(self, document: Any) -> None:
        """Takes an answer; TGI's is a list of one."""
        answers = document if isinstance(document, list) else [document]
        for answer in answers:
            if isinstance(answer, dict):
                self.take_event("", answer)
        self.facts.terminated = self._usage_is_final = True

    def read_event(self, event: Event) -> None:
        """Takes a frame: some bytes of the model's own stream."""
        if event.name != _PART:
            super().read_event(event)
            return
        data = event.data
        if self._inner is None:
            self._first = (self._first + data).lstrip()
            if not self._first:
                return
            self._inner = DocumentReader() if self._first[:1] in b"{[" else EventReader()
            data, self._first = self._first, b""
        for one in self._inner.feed(data):
            super().read_event(one)

    def close(self, *, complete: bool) -> None:
        """Reads what is left; what shows nothing of a language model is none."""
        if self._inner is not None:
            for one in self._inner.finish():
                super().read_event(one)
        super().close(complete=complete)
        if complete and self._inner is not None:
            self.facts.terminated = True  # raw streams have no end of their own
        if self._served and not self.facts.response_shaped:
            self.facts.free = NOT_LLM

    def tells(self, data: bytes) -> bool:
        """As OpenAI's, and TGI's last event, which has details."""
        return not self.facts.response_shaped or b'"generated_tokens"' in data or super().tells(data)

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a chunk or an answer of either dialect."""
        super().take_event(name, document)
        facts = self.facts
        if isinstance(document.get("usage"), dict) or any(mark in document for mark in _GENERATED):
            facts.response_shaped = True
        details = document.get("details")
        if isinstance(details, dict):
            self._generated = Counts(facts).get(details, "generated_tokens")
            if reason := text(details.get("finish_reason")):
                facts.finish_reasons = [reason]

    def measured(self, *, complete: bool) -> Measured:
        """The usage, or what TGI says it generated."""
        measured = super().measured(complete=complete)
        if measured.tokens or self._generated is None:
            return measured
        return Measured({"output": self._generated}, {}, QUALITY_PARTIAL)


ROUTES: Final = (
    Route(
        r".*/endpoints/[^/]+/invocations(?:-response-stream)?",
        SageMaker,
        POST,
        frozenset({"aws.sagemaker"}),
    ),
)
