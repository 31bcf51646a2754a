"""Databricks' serving endpoints by name: what is served behind one shows in the request.

`/serving-endpoints/{name}/invocations` is a chat where there are messages, embeddings where there is
`input`, a completion where there is a `prompt`, each in OpenAI's shape. Anything else is a model of another
kind: its frames and tensors are no business of ours.

Source: the reference of Databricks' foundation model APIs.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.dialects.openai.chat import OpenAIChat
from mmproto.providers.facts import Measured
from mmproto.providers.reasons import NOT_LLM
from mmproto.providers.route import Route

_OPERATIONS: Final = {"messages": "chat", "input": "embeddings", "prompt": "text_completion"}


class DatabricksInvocation(OpenAIChat):
    """POST /serving-endpoints/{name}/invocations"""

    operation: str = "chat"  # type: ignore[misc]  # each endpoint has its own
    flavour: ClassVar[str] = "databricks"

    def read_request(self, document: Any) -> None:
        """What the request holds is what the endpoint does."""
        super().read_request(document)
        keys = document if isinstance(document, dict) else {}
        operation = next((name for key, name in _OPERATIONS.items() if key in keys), "")
        if operation:
            self.operation = operation
        else:
            self.facts.free = NOT_LLM

    def measured(self, *, complete: bool) -> Measured:
        """Embeddings have no output."""
        if self.operation == "embeddings":
            return openai_usage.measure(self._usage, self.facts, self.quirks, has_output=False)
        return super().measured(complete=complete)


ROUTES: Final = (
    Route(
        r"/serving-endpoints/(?P<model>[^/]+)/invocations",
        DatabricksInvocation,
        providers=frozenset({"databricks"}),
    ),
)
