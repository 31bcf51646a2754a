"""llama.cpp's own completions: counts on the answer itself, not in a usage.

`tokens_evaluated` is the whole prompt, of which `timings.cache_n` tokens were in the cache already, and
`tokens_predicted` what was generated. A stream is server-sent events of which the last has `stop: true` and
the counts; those before it count what has been generated so far.

The `/v1` paths of the same server are OpenAI's dialect.

Source: the server's README in the llama.cpp repository.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import VALUE, Tree
from mmproto.providers.counts import Counts, divide
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import TOKEN_COUNTING
from mmproto.providers.route import Route

_TREE: Final[Tree] = {
    "model": VALUE,
    "stop": VALUE,
    "stop_type": VALUE,
    "tokens_evaluated": VALUE,
    "tokens_predicted": VALUE,
    "timings": VALUE,
    "error": VALUE,
}


class LlamaCompletion(Dialect):
    """POST /completion and /infill"""

    operation: ClassVar[str] = "text_completion"
    flavour: ClassVar[str] = "llama_cpp"
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _last: dict[str, Any] | None = None

    def read_request(self, document: Any) -> None:
        """As every request; other APIs have such paths, so the answer has to show what this is."""
        super().read_request(document)
        self.facts.request_shaped = False

    def read_response(self, document: Any) -> None:
        """Takes an answer, an event of one, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.response_model = text(document.get("model")) or facts.response_model
        facts.response_shaped = facts.response_shaped or "tokens_predicted" in document
        if document.get("error"):
            self.take_error(document["error"])
            facts.terminated = True
        elif document.get("stop") is True:
            self._last = document
            facts.terminated = True
            if reason := text(document.get("stop_type")):
                facts.finish_reasons = [reason]

    def tells(self, data: bytes) -> bool:
        """The first event, the last one, and errors."""
        return not self.facts.response_shaped or b"true" in data or b'"error"' in data

    def measured(self, *, complete: bool) -> Measured:
        """The counts of the last event."""
        last, counts = self._last, Counts(self.facts)
        tokens: dict[str, int] = {}
        prompt, output = counts.get(last, "tokens_evaluated"), counts.get(last, "tokens_predicted")
        if prompt is not None:
            cached = counts.get((last or {}).get("timings"), "cache_n")
            divide(counts, tokens, "input", prompt, {"input_cache_read": cached})
        if output is not None:
            tokens["output"] = output
        if not tokens:
            return Measured()
        return Measured(tokens, {}, counts.quality(whole=prompt is not None and output is not None))


ROUTES: Final = (
    Route(r"(.*/)?(completion|infill)", LlamaCompletion),
    Route(r"/(tokenize|detokenize|apply-template)", LlamaCompletion, free=TOKEN_COUNTING),
)
