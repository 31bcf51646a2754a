"""What the providers answer, written by us in the shapes of their APIs, and what has to be read of it.

Of two answers that fit a request the first one in PLAN is given.
"""

from __future__ import annotations

from tests.e2e.reading.answers.answer import SENTENCE, Answer, Read
from tests.e2e.reading.answers.anthropic import MESSAGES, MESSAGES_CUT
from tests.e2e.reading.answers.bedrock import CONVERSE_SIDE_BY_SIDE, CONVERSE_STREAM, INVOKE, INVOKE_STREAM
from tests.e2e.reading.answers.gemini import GEMINI, GEMINI_SIDE_BY_SIDE
from tests.e2e.reading.answers.ollama import OLLAMA
from tests.e2e.reading.answers.openai import (
    CHAT,
    CHAT_CUT,
    CHAT_SIDE_BY_SIDE,
    RESPONSES,
    TRANSCRIPTION,
    UNASKED,
)
from tests.e2e.reading.answers.xai import XAI, XAI_STREAM

__all__ = [
    "CHAT",
    "CHAT_CUT",
    "CHAT_SIDE_BY_SIDE",
    "CONVERSE_SIDE_BY_SIDE",
    "CONVERSE_STREAM",
    "GEMINI",
    "GEMINI_SIDE_BY_SIDE",
    "INVOKE",
    "INVOKE_STREAM",
    "MESSAGES",
    "MESSAGES_CUT",
    "OLLAMA",
    "PLAN",
    "RESPONSES",
    "SENTENCE",
    "TRANSCRIPTION",
    "UNASKED",
    "XAI",
    "XAI_STREAM",
    "Answer",
    "Read",
]

PLAN = (
    *CHAT_SIDE_BY_SIDE,
    CHAT_CUT,
    CHAT,
    UNASKED,
    RESPONSES,
    TRANSCRIPTION,
    MESSAGES_CUT,
    MESSAGES,
    CONVERSE_STREAM,
    *CONVERSE_SIDE_BY_SIDE,
    INVOKE,
    INVOKE_STREAM,
    GEMINI,
    *GEMINI_SIDE_BY_SIDE,
    OLLAMA,
    XAI,
    XAI_STREAM,
)
