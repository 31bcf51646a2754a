"""Runs of OpenAI's assistants: the usage is on the run once it has ended.

A run is created by POST, usually unfinished and without usage, and costs nothing yet; it is fetched until it
has ended, and the GET that finds it ended is what shows the spend, under the run's id, so that polling counts
once. A stream shows the run whenever its status changes, the last time with its usage. The steps of a run
repeat parts of that usage and are not read.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import VALUE, Tree
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import RESPONSE_PENDING, RETRIEVAL
from mmproto.providers.route import GET, Route

_TREE: Final[Tree] = {
    "id": VALUE,
    "object": VALUE,
    "status": VALUE,
    "model": VALUE,
    "usage": VALUE,
    "last_error": VALUE,
    "incomplete_details": VALUE,
    "error": VALUE,
    "code": VALUE,
}
_RUN: Final = "thread.run"
_ENDED: Final = frozenset({"completed", "incomplete", "failed", "cancelled", "expired"})
_ERRORS: Final = frozenset({"failed", "cancelled", "expired"})
_TELLING: Final = frozenset(
    {f"{_RUN}.{state}" for state in ("created", "queued", "in_progress", "requires_action", *_ENDED)}
    | {"error", "done"}
)


class OpenAIAssistantRun(Dialect):
    """POST .../threads/runs, .../threads/ID/runs, .../submit_tool_outputs, and GET .../threads/ID/runs/ID"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "openai"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "assistant_id": VALUE}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE
    telling_names: ClassVar[frozenset[str]] = _TELLING

    _usage: Any = None
    _status: str = ""

    def read_request(self, document: Any) -> None:
        """Takes a request; what shows it is the assistant that it names."""
        super().read_request(document)
        self.facts.request_shaped = isinstance(document, dict) and "assistant_id" in document

    def read_response(self, document: Any) -> None:
        """Takes a run, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        if document.get("object") == _RUN:
            facts.response_shaped = True
            facts.response_id = text(document.get("id")) or facts.response_id
            facts.response_model = text(document.get("model")) or facts.response_model
            self._status = text(document.get("status"))
            self._usage = document.get("usage") or self._usage
            self._take_end(document)
        elif document.get("error"):
            self.take_error(document["error"], document.get("code"))
            facts.terminated = True

    def _take_end(self, run: dict[str, Any]) -> None:
        if self._status not in _ENDED:
            return
        facts = self.facts
        facts.terminated = True
        details = run.get("incomplete_details")
        reason = text(details.get("reason")) if isinstance(details, dict) else ""
        if self._status in _ERRORS:
            self.take_error(run.get("last_error"), self._status)
        else:
            facts.finish_reasons = [reason or self._status]

    def close(self, *, complete: bool) -> None:
        """A run that has not ended shows no spend, except where its stream was cut off."""
        if self._status in _ENDED or self.facts.error_type is not None:
            return
        if complete or self._status == "requires_action":
            self.facts.free = RESPONSE_PENDING if self._status else RETRIEVAL

    def measured(self, *, complete: bool) -> Measured:
        """The usage of the run."""
        return openai_usage.measure(self._usage, self.facts, self.quirks)


ROUTES: Final = (
    Route(r".*/threads(/[^/]+)?/runs", OpenAIAssistantRun),
    Route(r".*/threads/[^/]+/runs/[^/]+/submit_tool_outputs", OpenAIAssistantRun),
    Route(r".*/threads/[^/]+/runs/run_[^/]+", OpenAIAssistantRun, methods=GET),
    Route(r".*/threads/thread_[^/]+/runs", OpenAIAssistantRun, methods=GET, free=RETRIEVAL),
)
