"""Snowflake Cortex's own paths: OpenAI's shapes, in a stream with a running usage on every event.

Chat completions and messages under `/api/v2/cortex/v1` are OpenAI's and Anthropic's dialects.

Source: the reference of Cortex's REST API.
"""

from __future__ import annotations

from typing import Final

from mmproto.providers.dialects.openai.chat import OpenAIChat
from mmproto.providers.dialects.openai.embeddings import OpenAIEmbeddings
from mmproto.providers.route import Route

_SNOWFLAKE: Final = frozenset({"snowflake"})
ROUTES: Final = (
    Route(r"/api/v2/cortex/inference:complete", OpenAIChat, providers=_SNOWFLAKE),
    Route(r"/api/v2/cortex/inference:embed", OpenAIEmbeddings, providers=_SNOWFLAKE),
)
