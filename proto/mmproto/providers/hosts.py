"""Which provider answers at which host, and in what its numbers differ from the dialect it speaks. Data.

Providers carry their OpenTelemetry name (`gen_ai.provider.name`) where OpenTelemetry has one, a plain
lower-case name of their own where it has none. A pattern is a host, or `*.suffix`, or has `*` for one label
elsewhere; ports are not part of it. Some hosts serve several products by path: `by_path` is tried first, then
`by_segment`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Quirk(Enum):
    """A known departure from the dialect's meaning of its numbers."""

    # Chat completions: `completion_tokens` leaves reasoning out (xAI; for Gemini models behind Vercel even
    # the total does).
    REASONING_OUTSIDE_COMPLETION = auto()
    # The same, and outside of the total as well, but only for some models: for those of Gemini always, for
    # others it shows when reasoning exceeds the completion.
    REASONING_MAY_BE_OUTSIDE = auto()
    # The same, outside of the total, for every model that reports reasoning.
    REASONING_OUTSIDE_TOTAL = auto()
    # Thinking appears in `total_tokens` alone: output is total - prompt.
    THINKING_ONLY_IN_TOTAL = auto()
    # Audio tokens are beside `prompt_tokens`, not inside.
    AUDIO_OUTSIDE_PROMPT = auto()
    # The cost in the usage is what another provider of the same model charges.
    COST_IS_ANOTHERS = auto()
    # Calls are paid for by a subscription, not by their tokens.
    SUBSCRIPTION = auto()


@dataclass(frozen=True, slots=True)
class Host:
    """A provider's host."""

    pattern: str
    provider: str
    quirks: frozenset[Quirk] = frozenset()
    by_path: Mapping[str, str] | None = None  # path prefix -> provider
    by_segment: Mapping[str, str] | None = None  # fourth segment of the path -> who it is passed on to


_XAI = frozenset({Quirk.REASONING_OUTSIDE_COMPLETION})
_AZURE_PATHS = {"/openai/": "azure.ai.openai"}
_AZURE = frozenset({Quirk.COST_IS_ANOTHERS})
# What Cloudflare's gateway calls the providers that it passes calls on to: /v1/ACCOUNT/GATEWAY/PROVIDER/...
_CLOUDFLARE_GATEWAY = {
    "openai": "openai",
    "azure-openai": "azure.ai.openai",
    "anthropic": "anthropic",
    "google-ai-studio": "gcp.gemini",
    "google-vertex-ai": "gcp.vertex_ai",
    "aws-bedrock": "aws.bedrock",
    "groq": "groq",
    "grok": "x_ai",
    "mistral": "mistral_ai",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "perplexity-ai": "perplexity",
    "cerebras": "cerebras",
    "huggingface": "huggingface",
    "openrouter": "openrouter",
    "replicate": "replicate",
}
_GEMINI = frozenset({Quirk.THINKING_ONLY_IN_TOTAL})
_PLAN = frozenset({Quirk.SUBSCRIPTION})

HOSTS: Final = (
    Host("api.openai.com", "openai"),
    Host("*.api.openai.com", "openai"),
    Host("chatgpt.com", "openai", _PLAN),  # Codex with a ChatGPT account
    Host("*.openai.azure.com", "azure.ai.openai"),
    Host("*.cognitiveservices.azure.com", "azure.ai.openai"),
    Host("*.openai.azure.us", "azure.ai.openai"),
    Host("*.openai.azure.cn", "azure.ai.openai"),
    Host("*.cognitiveservices.azure.us", "azure.ai.openai"),
    Host("*.services.ai.azure.com", "azure.ai.inference", _AZURE, _AZURE_PATHS),
    Host("*.models.ai.azure.com", "azure.ai.inference", _AZURE),
    Host("*.inference.ai.azure.com", "azure.ai.inference", _AZURE),
    Host("models.inference.ai.azure.com", "azure.ai.inference", _AZURE),
    Host("api.anthropic.com", "anthropic"),
    Host("*.anthropic.com", "anthropic"),
    Host("api.groq.com", "groq"),
    Host("api.deepseek.com", "deepseek"),
    Host("api.mistral.ai", "mistral_ai", frozenset({Quirk.AUDIO_OUTSIDE_PROMPT})),
    Host("codestral.mistral.ai", "mistral_ai"),
    Host("api.x.ai", "x_ai", _XAI),
    Host("*.api.x.ai", "x_ai", _XAI),
    Host("api.perplexity.ai", "perplexity", frozenset({Quirk.REASONING_OUTSIDE_TOTAL})),
    Host("api.cohere.com", "cohere"),
    Host("api.cohere.ai", "cohere"),
    Host("bedrock.*.amazonaws.com", "aws.bedrock"),  # models, guardrails, jobs: no calls
    Host("bedrock-runtime.*.amazonaws.com", "aws.bedrock"),
    Host("bedrock-runtime-fips.*.amazonaws.com", "aws.bedrock"),
    Host("bedrock-runtime.*.api.aws", "aws.bedrock"),
    Host("bedrock-runtime-fips.*.api.aws", "aws.bedrock"),
    Host("*.bedrock-runtime.*.vpce.amazonaws.com", "aws.bedrock"),
    Host("bedrock-agent-runtime.*.amazonaws.com", "aws.bedrock"),
    Host("*.bedrock-agent-runtime.*.vpce.amazonaws.com", "aws.bedrock"),
    Host("bedrock-mantle.*.api.aws", "aws.bedrock"),
    Host("runtime.sagemaker.*.amazonaws.com", "aws.sagemaker"),
    Host("runtime.sagemaker.*.amazonaws.com.cn", "aws.sagemaker"),
    Host("runtime-fips.sagemaker.*.amazonaws.com", "aws.sagemaker"),
    Host("*.runtime.sagemaker.*.vpce.amazonaws.com", "aws.sagemaker"),
    Host("generativelanguage.googleapis.com", "gcp.gemini", _GEMINI),
    Host("aiplatform.googleapis.com", "gcp.vertex_ai", _GEMINI),
    Host("*-aiplatform.googleapis.com", "gcp.vertex_ai", _GEMINI),
    Host("*.aiplatform.googleapis.com", "gcp.vertex_ai", _GEMINI),
    Host("aiplatform.*.rep.googleapis.com", "gcp.vertex_ai", _GEMINI),
    Host("*.prediction.vertexai.goog", "gcp.vertex_ai"),  # endpoints with a host of their own
    Host("firebasevertexai.googleapis.com", "gcp.gemini"),
    Host("cloudcode-pa.googleapis.com", "gcp.gemini", _PLAN),  # Gemini CLI and Code Assist
    Host("daily-cloudcode-pa.googleapis.com", "gcp.gemini", _PLAN),
    Host("*.ml.cloud.ibm.com", "ibm.watsonx.ai"),
    Host("api.moonshot.ai", "moonshot_ai"),
    Host("api.moonshot.cn", "moonshot_ai"),
    # From here on names of our own.
    Host("openrouter.ai", "openrouter"),
    Host("api.together.ai", "together"),
    Host("api.together.xyz", "together"),
    Host("api.fireworks.ai", "fireworks"),
    Host("api.z.ai", "z_ai"),
    Host("open.bigmodel.cn", "zhipu"),
    Host("api.cerebras.ai", "cerebras"),
    Host("ai-gateway.vercel.sh", "vercel", frozenset({Quirk.REASONING_MAY_BE_OUTSIDE})),
    Host("router.huggingface.co", "huggingface"),
    Host("api-inference.huggingface.co", "huggingface"),
    Host("*.endpoints.huggingface.cloud", "huggingface"),
    Host("dashscope.aliyuncs.com", "alibaba"),
    Host("dashscope-intl.aliyuncs.com", "alibaba"),
    Host("dashscope-us.aliyuncs.com", "alibaba"),
    Host("coding-intl.dashscope.aliyuncs.com", "alibaba", _PLAN),
    Host("coding.dashscope.aliyuncs.com", "alibaba", _PLAN),
    Host("*.azuredatabricks.net", "databricks"),
    Host("*.cloud.databricks.com", "databricks"),
    Host("*.gcp.databricks.com", "databricks"),
    Host("*.snowflakecomputing.com", "snowflake"),
    Host("*.inference.heroku.com", "heroku"),
    Host("api.inference.crusoecloud.com", "crusoe"),
    Host("api.avian.io", "avian"),
    Host("api.writer.com", "writer"),
    Host("api.portkey.ai", "portkey"),
    Host("api.cloudflare.com", "cloudflare"),
    Host("gateway.ai.cloudflare.com", "cloudflare", by_segment=_CLOUDFLARE_GATEWAY),
    Host("ollama.com", "ollama"),
    Host("api.voyageai.com", "voyage"),
    Host("api.replicate.com", "replicate"),
    Host("stream.replicate.com", "replicate"),
    Host("api.aleph-alpha.com", "aleph_alpha"),
    Host("api.deepgram.com", "deepgram"),
    Host("api.*.deepgram.com", "deepgram"),
    Host("api.deepinfra.com", "deepinfra"),
    Host("api.novita.ai", "novita"),
    Host("api.hyperbolic.xyz", "hyperbolic"),
    Host("api.sambanova.ai", "sambanova"),
    Host("integrate.api.nvidia.com", "nvidia"),
    Host("ai.api.nvidia.com", "nvidia"),
    Host("api.studio.nebius.ai", "nebius"),
    Host("api.studio.nebius.com", "nebius"),
    Host("api.tokenfactory.nebius.com", "nebius"),
    Host("api.tokenfactory.*.nebius.com", "nebius"),
    Host("inference.baseten.co", "baseten"),
    Host("*.api.baseten.co", "baseten"),
    Host("api.ai21.com", "ai21"),
    Host("api.minimax.io", "minimax"),
    Host("api.minimax.chat", "minimax"),
    Host("api.minimaxi.com", "minimax"),
    Host("ark.*.volces.com", "volcengine"),
    Host("ark.*.bytepluses.com", "volcengine"),
    Host("api.siliconflow.cn", "siliconflow"),
    Host("api.siliconflow.com", "siliconflow"),
    Host("api.lambda.ai", "lambda"),
    Host("api.lambdalabs.com", "lambda"),
    Host("models.github.ai", "github"),
    Host("api.githubcopilot.com", "github_copilot"),
    Host("*.githubcopilot.com", "github_copilot"),
    Host("oai.endpoints.kepler.ai.cloud.ovh.net", "ovhcloud"),
    Host("*.endpoints.kepler.ai.cloud.ovh.net", "ovhcloud"),
    Host("inference.do-ai.run", "digitalocean"),
    Host("api.scaleway.ai", "scaleway"),
    Host("*.agents.do-ai.run", "digitalocean"),
    Host("api.featherless.ai", "featherless"),
    Host("api.friendli.ai", "friendli"),
    Host("api.inceptionlabs.ai", "inception"),
    Host("api.inference.net", "inference_net"),
    Host("api.kluster.ai", "kluster"),
    Host("api.parasail.io", "parasail"),
    Host("api.reka.ai", "reka"),
    Host("api.stepfun.com", "stepfun"),
    Host("api.upstage.ai", "upstage"),
    Host("api.venice.ai", "venice"),
    Host("api.poe.com", "poe"),
    Host("llm.chutes.ai", "chutes"),
    Host("api.hunyuan.cloud.tencent.com", "tencent"),
    Host("qianfan.baidubce.com", "baidu"),
    Host("spark-api-open.xf-yun.com", "iflytek"),
    Host("api.lingyiwanwu.com", "lingyi"),
    Host("api.baichuan-ai.com", "baichuan"),
    Host("api.jina.ai", "jina"),
    Host("api.mixedbread.com", "mixedbread"),
    # Sound and images.
    Host("api.elevenlabs.io", "elevenlabs"),
    Host("api.*.elevenlabs.io", "elevenlabs"),
    Host("api.assemblyai.com", "assemblyai"),
    Host("api.eu.assemblyai.com", "assemblyai"),
    Host("llm-gateway.assemblyai.com", "assemblyai"),
    Host("api.stability.ai", "stability"),
    # Gateways: what they charge is their own price.
    Host("router.requesty.ai", "requesty"),
    Host("api.aimlapi.com", "aimlapi"),
    Host("ai-gateway.helicone.ai", "helicone"),
    Host("oai.helicone.ai", "openai"),
    Host("anthropic.helicone.ai", "anthropic"),
)
# Local servers are reached under any name; their own default port tells.
PORTS: Final[Mapping[str, str]] = {"11434": "ollama"}
# Hosts above that serve far more than LLMs: only their LLM paths say anything about them.
MIXED_HOSTS: Final = frozenset({"databricks", "snowflake", "cloudflare"})

_EXACT: Final = {host.pattern: host for host in HOSTS if "*" not in host.pattern}
_PATTERNS: Final = tuple(
    (re.compile(re.escape(host.pattern).replace(r"\*", r"[a-z0-9_.-]+")), host)
    for host in HOSTS
    if "*" in host.pattern
)

_QUIRKS: Final = {host.provider: host.quirks for host in reversed(HOSTS)}


def find(host: str) -> Host | None:
    """The provider's host that `host` (lower-case, without a port) is, if it is one of the table."""
    found = _EXACT.get(host)
    if found is not None:
        return found
    for pattern, candidate in _PATTERNS:
        if pattern.fullmatch(host):
            return candidate
    return None


def provider_at(host: Host, path: str) -> str:
    """The provider at `host` for a request path."""
    for prefix, provider in (host.by_path or {}).items():
        if path.startswith(prefix):
            return provider
    if host.by_segment:
        segments = path.split("/", 5)
        return host.by_segment.get(segments[4], host.provider) if len(segments) > 4 else host.provider
    return host.provider


def quirks_of(provider: str) -> frozenset[Quirk]:
    """The quirks of a provider at its own host, for hosts that are configured to be one of its."""
    return _QUIRKS.get(provider, frozenset())


def provider_by_port(host: str) -> str:
    """The provider whose default port `host[:port]` has, else ""."""
    return PORTS.get(host.rpartition(":")[2], "")


def without_port(host: str) -> str:
    """`host[:port]` in lower case without its port and a trailing dot; IPv6 keeps its brackets."""
    name, _, port = host.rpartition(":")
    bare = name if name and port.isdigit() else host
    return bare.rstrip(".").lower()
