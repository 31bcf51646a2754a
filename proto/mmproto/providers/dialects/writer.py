"""Writer's applications and graphs, which count nothing; its chat and completions are OpenAI's dialect.

Source: Writer's API reference.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Measured
from mmproto.providers.route import Route

_TREE: Final[Tree] = {"suggestion": PRESENT, "answer": PRESENT, "errors": PRESENT}


class WriterQuestion(Dialect):
    """POST /v1/applications/{id} and /v1/graphs/question"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "writer"
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE
    request_tree: ClassVar[Tree] = {"stream": VALUE, "inputs": PRESENT, "question": PRESENT}

    def read_response(self, document: Any) -> None:
        """Takes an answer or an error."""
        self.facts.terminated = True

    def tells(self, data: bytes) -> bool:
        """Nothing in the events counts."""
        return not self.facts.terminated

    def measured(self, *, complete: bool) -> Measured:
        """Nothing is reported."""
        return Measured()


_WRITER: Final = frozenset({"writer"})
ROUTES: Final = (Route(r"/v1/(applications/[^/]+|graphs/question)", WriterQuestion, providers=_WRITER),)
