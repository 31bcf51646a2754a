"""Which request is which operation: one table."""

from __future__ import annotations

import pytest

from mmproto.providers import hosts, paths
from mmproto.providers.dialect import Dialect
from mmproto.providers.dialects.anthropic.messages import AnthropicMessages
from mmproto.providers.dialects.aws.converse import BedrockConverse
from mmproto.providers.dialects.aws.invoke import BedrockInvoke
from mmproto.providers.dialects.google.batches import GeminiTokenCount
from mmproto.providers.dialects.google.gemini import GeminiGenerate
from mmproto.providers.dialects.google.vertex_partners import VertexAnthropic
from mmproto.providers.dialects.openai.assistants import OpenAIAssistantRun
from mmproto.providers.dialects.openai.audio import OpenAISpeech, OpenAITranscription
from mmproto.providers.dialects.openai.chat import OpenAIChat, OpenAICompletions
from mmproto.providers.dialects.openai.embeddings import OpenAIEmbeddings
from mmproto.providers.dialects.openai.images import OpenAIImages
from mmproto.providers.dialects.openai.moderations import OpenAIModerations
from mmproto.providers.dialects.openai.responses import OpenAIResponses

_STUDIO = "generativelanguage.googleapis.com"
_VERTEX = "aiplatform.eu.rep.googleapis.com"
EXTRA = {"llm.corp.example:8443": "openai", "*.models.example": "groq", "gate.example": "vertex"}

OPERATIONS: list[tuple[str, str, str, type[Dialect]]] = [
    ("api.openai.com", "/v1/chat/completions", "openai", OpenAIChat),
    ("API.OpenAI.com.", "/v1/chat/completions?x=1", "openai", OpenAIChat),
    ("api.openai.com:443", "//v1//chat/completions/", "openai", OpenAIChat),
    ("eu.api.openai.com", "/v1/completions", "openai", OpenAICompletions),
    ("api.openai.com", "http://api.openai.com/v1/embeddings", "openai", OpenAIEmbeddings),
    ("api.openai.com", "/v1/responses", "openai", OpenAIResponses),
    ("api.openai.com", "/v1/responses/compact", "openai", OpenAIResponses),
    ("api.anthropic.com", "/v1/messages?beta=true", "anthropic", AnthropicMessages),
    ("api.anthropic.com", "/v1/chat/completions", "anthropic", OpenAIChat),
    (
        "r.openai.azure.com",
        "/openai/deployments/d/chat/completions?api-version=1",
        "azure.ai.openai",
        OpenAIChat,
    ),
    ("r.openai.azure.com", "/openai/deployments/d/embeddings", "azure.ai.openai", OpenAIEmbeddings),
    ("r.openai.azure.com", "/openai/v1/responses", "azure.ai.openai", OpenAIResponses),
    ("r.services.ai.azure.com", "/models/chat/completions", "azure.ai.inference", OpenAIChat),
    ("r.services.ai.azure.com", "/openai/v1/embeddings", "azure.ai.openai", OpenAIEmbeddings),
    ("r.services.ai.azure.com", "/anthropic/v1/messages", "azure.ai.inference", AnthropicMessages),
    ("bedrock-mantle.us-east-1.api.aws", "/openai/v1/responses", "aws.bedrock", OpenAIResponses),
    ("generativelanguage.googleapis.com", "/v1beta/openai/chat/completions", "gcp.gemini", OpenAIChat),
    ("api.groq.com", "/openai/v1/chat/completions", "groq", OpenAIChat),
    ("api.deepseek.com", "/chat/completions", "deepseek", OpenAIChat),
    ("api.deepseek.com", "/anthropic/v1/messages", "deepseek", AnthropicMessages),
    ("api.mistral.ai", "/v1/chat/completions", "mistral_ai", OpenAIChat),
    ("api.x.ai", "/v1/responses", "x_ai", OpenAIResponses),
    ("api.perplexity.ai", "/chat/completions", "perplexity", OpenAIChat),
    ("openrouter.ai", "/api/v1/messages", "openrouter", AnthropicMessages),
    ("api.z.ai", "/api/coding/paas/v4/chat/completions", "z_ai", OpenAIChat),
    ("adb-1.2.azuredatabricks.net", "/serving-endpoints/chat/completions", "databricks", OpenAIChat),
    ("api.openai.com", "/v1/images/edits", "openai", OpenAIImages),
    ("api.openai.com", "/v1/audio/translations", "openai", OpenAITranscription),
    ("r.openai.azure.com", "/openai/deployments/d/audio/speech", "azure.ai.openai", OpenAISpeech),
    ("api.openai.com", "/v1/moderations", "openai", OpenAIModerations),
    ("api.openai.com", "/v1/threads/thread_1/runs", "openai", OpenAIAssistantRun),
    ("localhost:8000", "/v1/chat/completions", "openai", OpenAIChat),
    ("gateway.internal", "/anthropic/v1/messages", "anthropic", AnthropicMessages),
    ("localhost:11434", "/v1/chat/completions", "ollama", OpenAIChat),
    ("bedrock-runtime.us-east-1.amazonaws.com", "/model/m/converse", "aws.bedrock", BedrockConverse),
    ("bedrock-runtime.us-east-1.api.aws", "/model/m/invoke", "aws.bedrock", BedrockInvoke),
    ("vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com", "/model/m/invoke", "aws.bedrock", BedrockInvoke),
    (_STUDIO, "/v1beta/models/g:streamGenerateContent", "gcp.gemini", GeminiGenerate),
    (_STUDIO, "/v1beta/models/g:countTokens", "gcp.gemini", GeminiTokenCount),
    ("gateway.internal", "/google/v1beta/models/g:generateContent", "gcp.gemini", GeminiGenerate),
    (_VERTEX, "/v1/publishers/google/models/g:generateContent", "gcp.vertex_ai", GeminiGenerate),
    (
        "us-east5-aiplatform.googleapis.com",
        "/v1/projects/p/locations/l/publishers/anthropic/models/c:rawPredict",
        "gcp.vertex_ai",
        VertexAnthropic,
    ),
    ("llm.corp.example:8443", "/v1/messages", "openai", AnthropicMessages),
    ("eu.models.example", "/v1/chat/completions", "groq", OpenAIChat),
    ("", "/v1/chat/completions", "openai", OpenAIChat),
]

OTHERS: list[tuple[str, str, str, str]] = [
    ("GET", "example.com", "/", "not_llm"),
    ("POST", "example.com", "/v1/chat", "not_llm"),
    ("GET", "localhost:8000", "/v1/chat/completions", "not_llm"),
    ("GET", "api.openai.com", "/v1/models", "not_an_operation"),
    ("GET", "api.openai.com", "/v1/chat/completions", "not_an_operation"),
    ("POST", "api.openai.com", "/v1/files", "not_an_operation"),
    ("GET", "api.openai.com", "/v1/organization/usage/completions", "not_an_operation"),
    ("POST", "api.openai.com", "/v1/vector_stores", "not_an_operation"),
    ("POST", "api.openai.com", "/v1/fine_tuning/jobs", "not_an_operation"),
    ("POST", "api.openai.com", "/v1/threads/t/messages", "not_an_operation"),
    ("POST", "api.anthropic.com", "/api/event_logging/batch", "not_an_operation"),
    ("GET", "adb-1.2.azuredatabricks.net", "/api/2.0/clusters/list", "not_llm"),
    ("POST", "x.snowflakecomputing.com", "/queries/v1/query-request", "not_llm"),
]


@pytest.mark.parametrize(("host", "target", "provider", "dialect"), OPERATIONS)
def test_operations(host: str, target: str, provider: str, dialect: type[Dialect]) -> None:
    match = paths.match("POST", host, target, EXTRA)
    assert (match.provider, match.dialect) == (provider, dialect)


@pytest.mark.parametrize(("method", "host", "target", "reason"), OTHERS)
def test_everything_else_has_a_reason(method: str, host: str, target: str, reason: str) -> None:
    match = paths.match(method, host, target, EXTRA)
    assert (match.dialect, match.reason) == (None, reason)
    assert match.is_loss == reason.startswith("dialect_not_supported")


def test_deployment_is_kept_apart_from_the_model() -> None:
    match = paths.match("POST", "r.openai.azure.com", "/openai/deployments/my-dep/chat/completions", {})
    assert match.names["deployment"] == "my-dep"


def test_no_host_is_listed_twice() -> None:
    patterns = [host.pattern for host in hosts.HOSTS]
    assert len(patterns) == len(set(patterns))


@pytest.mark.parametrize("host", [h.pattern.replace("*", "some-name") for h in hosts.HOSTS])
def test_every_pattern_is_found(host: str) -> None:
    assert hosts.find(host) is not None
    assert hosts.find(f"evil-{host}.example") is None


def test_a_configured_host_has_the_quirks_of_its_provider() -> None:
    configured = {"grok.corp.example": "x_ai", "llm.corp.example": "openai"}
    for host, quirks in (
        ("grok.corp.example", {hosts.Quirk.REASONING_OUTSIDE_COMPLETION}),
        ("llm.corp.example", set()),
        ("other.example", set()),
    ):
        assert paths.match("POST", host, "/v1/chat/completions", configured).quirks == quirks
