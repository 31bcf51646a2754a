"""Perplexity's asynchronous completions: accepted by POST, seen and charged where they are fetched.

The GET that finds the job completed holds the completion, under the id of the completion, so that polling
counts once.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import VALUE, Tree
from mmproto.providers.dialect import REQUEST_TREE
from mmproto.providers.dialects.openai.chat import TREE, OpenAIChat
from mmproto.providers.reasons import RESPONSE_PENDING
from mmproto.providers.route import GET, POST, Route

_JOB: Final[Tree] = {"id": VALUE, "model": VALUE, "status": VALUE, "response": TREE, "error": VALUE}


class PerplexityAsync(OpenAIChat):
    """POST .../async/chat/completions, and GET of the job"""

    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "request": REQUEST_TREE}
    response_tree: ClassVar[Tree] = _JOB
    event_tree: ClassVar[Tree] = _JOB

    def read_request(self, document: Any) -> None:
        """Takes a request, which is wrapped."""
        if isinstance(document, dict):
            super().read_request(document.get("request") or document)

    def read_response(self, document: Any) -> None:
        """Takes a job with or without its completion, or an error."""
        if not isinstance(document, dict):
            return
        if document.get("error"):
            self.take_error(document["error"])
        elif isinstance(document.get("response"), dict):
            super().read_response(document["response"])
        else:
            self.facts.free = RESPONSE_PENDING


ROUTES: Final = (
    Route(
        r".*/async/(chat/completions|sonar)(/[^/]+)?",
        PerplexityAsync,
        methods=GET | POST,
        providers=frozenset({"perplexity"}),
    ),
)
