"""The providers' names in the records, and ours: those of OpenTelemetry where it has one. Data."""

from __future__ import annotations

from typing import Final

from mmproto.providers.hosts import HOSTS
from mmproto.score.record import Record

_OURS: Final = {
    "alibaba_dashscope": frozenset({"alibaba"}),
    "aws_bedrock": frozenset({"aws.bedrock"}),
    "aws_bedrock_mantle": frozenset({"aws.bedrock"}),
    "aws_sagemaker": frozenset({"aws.sagemaker"}),
    "azure": frozenset({"azure.ai.openai", "azure.ai.inference"}),
    "cloudflare_workers_ai": frozenset({"cloudflare"}),
    "google_gemini": frozenset({"gcp.gemini"}),
    "google_vertex": frozenset({"gcp.vertex_ai"}),
    "mistral": frozenset({"mistral_ai"}),
    "moonshot": frozenset({"moonshot_ai"}),
    "snowflake_cortex": frozenset({"snowflake"}),
    "vercel_ai_gateway": frozenset({"vercel"}),
    "watsonx": frozenset({"ibm.watsonx.ai"}),
    "xai": frozenset({"x_ai"}),
    "zhipu": frozenset({"z_ai", "zhipu"}),
}
# Hosts that no table can know: there the flavour of the API that is spoken is all there is.
_ANYWHERE: Final = frozenset({"gateway_proxy", "openai_compatible_local"})
_FLAVOURS: Final = {
    "anthropic": "anthropic",
    "bedrock": "aws.bedrock",
    "cohere": "cohere",
    "deepgram": "deepgram",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "ollama": "ollama",
    "openai": "openai",
    "vertex": "gcp.vertex_ai",
    "voyage": "voyage",
    "xai": "x_ai",
}
_PROVIDERS: Final = frozenset(host.provider for host in HOSTS)


def accepted(record: Record) -> frozenset[str]:
    """Our names that are right for the provider of `record`."""
    name = record.expected.provider
    if name not in _ANYWHERE:
        return _OURS.get(name, frozenset({name}))
    flavour = record.expected.endpoint.partition(".")[0]
    # A gateway may say in its path whom it passes the call on to.
    named = frozenset(record.target.partition("?")[0].split("/"))
    return frozenset({_FLAVOURS.get(flavour, "openai")}) | (
        named & frozenset(_FLAVOURS.values()) | named & {"groq"}
    )


def is_anywhere(record: Record) -> bool:
    """Whether the record's host is one that no table can know."""
    return record.expected.provider in _ANYWHERE


def is_named(record: Record, name: str) -> bool:
    """Whether `name`, the records' or ours, is that of the record's provider."""
    theirs = record.expected.provider
    return name == theirs or name in _OURS.get(theirs, ())
