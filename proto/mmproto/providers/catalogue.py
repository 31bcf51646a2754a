"""All dialects, one file each below `dialects/`: which requests are theirs is said by their `ROUTES`."""

from __future__ import annotations

from typing import Final

from mmproto.providers.dialects import (
    aleph_alpha,
    cloudflare_run,
    dashscope,
    databricks,
    deepgram,
    deepinfra,
    llamacpp,
    minimax,
    mistral,
    ollama,
    perplexity_async,
    reka,
    replicate,
    rerank,
    snowflake,
    stability,
    tgi,
    vercel_sdk,
    voice,
    watsonx,
    writer,
)
from mmproto.providers.dialects.anthropic import batches as anthropic_batches
from mmproto.providers.dialects.anthropic import complete as anthropic_complete
from mmproto.providers.dialects.anthropic import messages as anthropic_messages
from mmproto.providers.dialects.anthropic import sessions as anthropic_sessions
from mmproto.providers.dialects.aws import agents as bedrock_agents
from mmproto.providers.dialects.aws import bedrock, sagemaker
from mmproto.providers.dialects.aws import converse as bedrock_converse
from mmproto.providers.dialects.aws import invoke as bedrock_invoke
from mmproto.providers.dialects.aws import sonic as bedrock_sonic
from mmproto.providers.dialects.cohere import chat as cohere_chat
from mmproto.providers.dialects.cohere import embed as cohere_embed
from mmproto.providers.dialects.google import batches as gemini_batches
from mmproto.providers.dialects.google import embeddings as gemini_embeddings
from mmproto.providers.dialects.google import gemini, vertex_partners, vertex_predict
from mmproto.providers.dialects.google import grpc as grpc_google
from mmproto.providers.dialects.google import interactions as gemini_interactions
from mmproto.providers.dialects.google import live as gemini_live
from mmproto.providers.dialects.openai import assistants as openai_assistants
from mmproto.providers.dialects.openai import audio as openai_audio
from mmproto.providers.dialects.openai import batches as openai_batches
from mmproto.providers.dialects.openai import chat as openai_chat
from mmproto.providers.dialects.openai import embeddings as openai_embeddings
from mmproto.providers.dialects.openai import free as openai_free
from mmproto.providers.dialects.openai import images as openai_images
from mmproto.providers.dialects.openai import moderations as openai_moderations
from mmproto.providers.dialects.openai import realtime as openai_realtime
from mmproto.providers.dialects.openai import responses as openai_responses
from mmproto.providers.dialects.openai import responses_socket as openai_responses_socket
from mmproto.providers.dialects.openai import videos as openai_videos
from mmproto.providers.dialects.xai import deferred as xai_deferred
from mmproto.providers.dialects.xai import grpc as grpc_xai
from mmproto.providers.dialects.xai import voice as xai_voice

# Their routes are tried in this order, those that are limited to some providers before all others.
DIALECTS: Final = (
    openai_chat,
    openai_responses,
    openai_embeddings,
    openai_assistants,
    openai_audio,
    openai_free,
    openai_images,
    openai_moderations,
    openai_batches,
    openai_realtime,
    openai_responses_socket,
    openai_videos,
    deepinfra,
    xai_deferred,
    vercel_sdk,
    xai_voice,
    cloudflare_run,
    perplexity_async,
    anthropic_messages,
    anthropic_batches,
    anthropic_complete,
    cohere_chat,
    cohere_embed,
    rerank,
    gemini,
    gemini_embeddings,
    gemini_interactions,
    gemini_batches,
    gemini_live,
    vertex_predict,
    vertex_partners,
    mistral,
    ollama,
    bedrock,
    bedrock_converse,
    bedrock_invoke,
    bedrock_agents,
    bedrock_sonic,
    sagemaker,
    llamacpp,
    tgi,
    watsonx,
    aleph_alpha,
    replicate,
    deepgram,
    dashscope,
    writer,
    snowflake,
    databricks,
    voice,
    minimax,
    reka,
    stability,
    grpc_google,
    grpc_xai,
    anthropic_sessions,
)
