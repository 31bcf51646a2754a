"""Bedrock's agent runtime: agents, flows and knowledge bases, which call models on their own.

With `enableTrace` an agent's stream shows each model invocation: first its input, which names the model,
then its output, which has the usage. Each is a call of its own at its own model's price, and then the
agent's exchange itself costs nothing more. Without traces, and for flows and knowledge bases always, what
was spent stays unknown.

Source:
docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Agents_for_Amazon_Bedrock_Runtime.html.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import Asked
from mmproto.providers.dialects.aws.bedrock import AWS, BedrockPlain
from mmproto.providers.dialects.aws.usage import buckets
from mmproto.providers.facts import Facts, Measured, Portion, text
from mmproto.providers.route import POST, Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL

_STEP: Final[Tree] = {
    "modelInvocationInput": {"foundationModel": VALUE},
    "modelInvocationOutput": {"traceId": VALUE, "metadata": {"usage": VALUE}},
}
# The parts of an agent's work that call a model.
_STEPS: Final = (
    "orchestrationTrace",
    "preProcessingTrace",
    "postProcessingTrace",
    "routingClassifierTrace",
    "customOrchestrationTrace",
)
_TRACE: Final = "trace"


class BedrockAgent(BedrockPlain):
    """POST .../agents/ID/agentAliases/ID/sessions/ID/text and .../agents/SESSION (inline)"""

    operation: ClassVar[str] = "invoke_agent"
    request_tree: ClassVar[Tree] = {"foundationModel": VALUE}
    event_tree: ClassVar[Tree] = {_TRACE: dict.fromkeys(_STEPS, _STEP)}
    telling_names: ClassVar[frozenset[str]] = frozenset({_TRACE})

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.facts.streamed = self.facts.stream_requested = True
        self.facts.session = text(asked.names.get("session"))
        self._model = ""

    def read_request(self, document: Any) -> None:
        """A request names an agent, or, where that is defined by the request itself, the model."""
        if isinstance(document, dict):
            self.facts.request_model = text(document.get("foundationModel"))

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a trace."""
        trace = document.get(_TRACE)
        for step in trace.values() if isinstance(trace, dict) else ():
            if not isinstance(step, dict):
                continue
            asked = step.get("modelInvocationInput")
            if isinstance(asked, dict):
                self._model = text(asked.get("foundationModel")) or self._model
            answered = step.get("modelInvocationOutput")
            if isinstance(answered, dict):
                self._take_invocation(answered)

    def _take_invocation(self, answered: dict[str, Any]) -> None:
        metadata = answered.get("metadata")
        facts = Facts(
            request_model=self._model,
            response_id=text(answered.get("traceId")),
            streamed=True,
            session=self.facts.session,
            terminated=True,
        )
        counts = Counts(facts)
        tokens = buckets(metadata.get("usage") if isinstance(metadata, dict) else None, counts)
        if tokens:
            exact = "input" in tokens and "output" in tokens and counts.sound
            self.paid_by_portions = True
            self.portions.append(
                Portion(facts, Measured(tokens, {}, QUALITY_EXACT if exact else QUALITY_PARTIAL), "chat")
            )


class BedrockFlow(BedrockPlain):
    """POST .../flows/ID/aliases/ID"""

    operation: ClassVar[str] = "invoke_agent"
    telling_names: ClassVar[frozenset[str]] = frozenset({"flowCompletionEvent"})

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.facts.streamed = self.facts.stream_requested = True


class BedrockKnowledge(BedrockPlain):
    """POST .../retrieveAndGenerate, .../retrieveAndGenerateStream, .../optimize-prompt, .../generateQuery"""

    operation: ClassVar[str] = "invoke_agent"  # what it makes of the question is not in the request
    _CONFIGURATION: ClassVar[Tree] = {
        "knowledgeBaseConfiguration": {"modelArn": VALUE},
        "externalSourcesConfiguration": {"modelArn": VALUE},
    }
    request_tree: ClassVar[Tree] = {
        "retrieveAndGenerateConfiguration": _CONFIGURATION,
        "targetModelId": VALUE,
        "sessionId": VALUE,
    }

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.facts.stream_requested = asked.path.endswith("Stream")
        self.facts.streamed = self.facts.stream_requested or None

    def read_request(self, document: Any) -> None:
        """The model is where the configuration is."""
        if not isinstance(document, dict):
            return
        sources = document.get("retrieveAndGenerateConfiguration")
        sources = sources.values() if isinstance(sources, dict) else ()
        arns = [text(one.get("modelArn")) for one in sources if isinstance(one, dict)]
        self.facts.request_model = next(filter(None, arns), "") or text(document.get("targetModelId"))
        self.facts.session = text(document.get("sessionId"))


class BedrockRanking(BedrockPlain):
    """POST .../rerank of the agent runtime"""

    operation: ClassVar[str] = "rerank"
    request_tree: ClassVar[Tree] = {
        "rerankingConfiguration": {
            "bedrockRerankingConfiguration": {"modelConfiguration": {"modelArn": VALUE}}
        }
    }

    def read_request(self, document: Any) -> None:
        """The model is three levels down."""
        for name in ("rerankingConfiguration", "bedrockRerankingConfiguration", "modelConfiguration"):
            document = document.get(name) if isinstance(document, dict) else None
        if isinstance(document, dict):
            self.facts.request_model = text(document.get("modelArn"))


ROUTES: Final = (
    Route(r".*/agents/[^/]+/agentAliases/[^/]+/sessions/(?P<session>[^/]+)/text", BedrockAgent, POST, AWS),
    Route(r".*/agents/(?P<session>[^/]+)", BedrockAgent, POST, AWS),
    Route(r".*/flows/[^/]+/aliases/[^/]+", BedrockFlow, POST, AWS),
    Route(
        r".*/(?:retrieveAndGenerate(?:Stream)?|optimize-prompt|generateQuery)", BedrockKnowledge, POST, AWS
    ),
    Route(r".*/rerank", BedrockRanking, POST, AWS),
)
