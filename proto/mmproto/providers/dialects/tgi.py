"""Text generation as local servers offer it under `/generate`: Hugging Face's TGI, SGLang, vLLM, Triton.

TGI counts in response headers (`x-prompt-tokens`, `x-generated-tokens`) and, where the request asks for
`details`, in the body; its stream's last event has `details` always, with `input_length`. SGLang has
`meta_info`, in each event of a stream as a running sum. vLLM's and Triton's answers are text alone.

The inference API of Hugging Face speaks the same under `/models/{model}`, and answers other tasks there
without counting anything: an array of results, an embedding, sound or an image.

Sources: TGI's `server.rs` and OpenAPI document; SGLang's and Triton's documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, MAX_ITEMS, PRESENT, VALUE, Tree
from mmproto.providers.counts import Counts, divide
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route

_DETAILS: Final[Tree] = {
    "finish_reason": VALUE,
    "generated_tokens": VALUE,
    "input_length": VALUE,
    "prefill": {EVERY: PRESENT},
}
_ANSWER: Final[Tree] = {
    "generated_text": PRESENT,
    "details": _DETAILS,
    "meta_info": VALUE,
    "text_output": PRESENT,
    "model_name": VALUE,
    "error": VALUE,
    "error_type": VALUE,
}
_TREE: Final[Tree] = {**_ANSWER, EVERY: _ANSWER}
_SHAPES: Final = ("generated_text", "meta_info", "text_output")


class Generate(Dialect):
    """POST /generate and /generate_stream"""

    operation: ClassVar[str] = "text_completion"
    flavour: ClassVar[str] = "huggingface"
    takes_bytes: ClassVar[bool] = True
    answers_bytes: ClassVar[bool] = True
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "inputs": PRESENT}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _ANSWER

    _prompt: int | None = None
    _cached: int | None = None
    _generated: int | None = None
    _headers: tuple[str | None, str | None] = (None, None)

    def read_request(self, document: Any) -> None:
        """As every request; many APIs have such a path, so the answer has to show what this is."""
        super().read_request(document)
        self.facts.request_shaped = False

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """TGI counts in headers."""
        super().read_response_head(status, headers)
        if 200 <= status < 300:
            self._headers = headers.get("x-prompt-tokens"), headers.get("x-generated-tokens")
            self.facts.response_shaped = self._headers != (None, None)

    def read_response(self, document: Any) -> None:
        """Takes an answer, a list of them, or an error."""
        for answer in document if isinstance(document, list) else (document,):
            if isinstance(answer, dict):
                self.take_event("", answer)
        self.facts.terminated = True

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes an event of a stream, or a whole answer."""
        facts, counts = self.facts, Counts(self.facts)
        facts.response_shaped = facts.response_shaped or any(name in document for name in _SHAPES)
        facts.response_model = text(document.get("model_name")) or facts.response_model
        details, info = document.get("details"), document.get("meta_info")
        if isinstance(details, dict):
            prefill = details.get("prefill")
            self._prompt = counts.get(details, "input_length")
            if self._prompt is None and isinstance(prefill, list) and 0 < len(prefill) < MAX_ITEMS:
                self._prompt = len(prefill)  # a list that may have been cut counts nothing
            self._generated = counts.get(details, "generated_tokens")
            self._finish(details.get("finish_reason"))
        if isinstance(info, dict):
            facts.response_id = text(info.get("id"))
            self._prompt = counts.get(info, "prompt_tokens")
            self._cached = counts.get(info, "cached_tokens")
            self._generated = counts.get(info, "completion_tokens")
            reason = info.get("finish_reason")
            self._finish(reason.get("type") if isinstance(reason, dict) else reason)
        if document.get("error"):
            self.take_error(document["error"], document.get("error_type"))
            facts.terminated = True

    def _finish(self, reason: Any) -> None:
        if reason := text(reason):
            self.facts.finish_reasons = [reason]
            self.facts.terminated = True

    def tells(self, data: bytes) -> bool:
        """The last event, and those with counts."""
        return b'"meta_info"' in data or b'"finish_reason"' in data or b'"error"' in data

    def measured(self, *, complete: bool) -> Measured:
        """What the body counts, else the headers; of a sum that was still running, the input alone."""
        counts = Counts(self.facts)
        prompt, generated = self._prompt, self._generated
        if prompt is None:
            prompt = counts.of_text(self._headers[0])
        if generated is None:
            generated = counts.of_text(self._headers[1])
        tokens: dict[str, int] = {}
        if prompt is not None:
            divide(counts, tokens, "input", prompt, {"input_cache_read": self._cached})
        if generated is not None and self.facts.terminated:
            tokens["output"] = generated
        if not tokens:
            return Measured()
        return Measured(tokens, {}, counts.quality(whole="input" in tokens and "output" in tokens))


_HUGGING_FACE: Final = frozenset({"huggingface"})
ROUTES: Final = (
    Route(r".*/v2/models/(?P<model>[^/]+)(/versions/[^/]+)?/generate(_stream)?", Generate),
    Route(r"(.*/)?generate(_stream)?", Generate),
    Route(
        r"(/hf-inference)?/(models|pipeline/[^/]+)/(?P<model>[^/]+(/[^/]+)?)(/pipeline/[^/]+)?",
        Generate,
        providers=_HUGGING_FACE,
    ),
    Route(r"", Generate, providers=_HUGGING_FACE),
)
