"""Under which keys the text stands that a model reads and writes. Data.

Keys and not paths: gateways wrap bodies, versions move fields, and a string under one of these keys is text
wherever it stands. What a key holds is the same in most APIs, so there is one list for all requests and one
for all answers, and a line for each dialect that differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ASKED: Final = (
    b"content",
    b"text",
    b"prompt",
    b"input",
    b"inputs",
    b"inputText",
    b"system",
    b"instructions",
    b"arguments",
    b"description",
    b"output",
    b"thinking",
    b"message",
    b"preamble",
    b"texts",
    b"suffix",
    b"text_input",
)
ANSWERED: Final = (
    b"content",
    b"text",
    b"reasoning_content",
    b"reasoning",
    b"thinking",
    b"arguments",
    b"partial_json",
    b"input",  # of a tool, in pieces (Bedrock)
    b"refusal",
    b"completion",
    b"response",
    b"generation",
    b"generated_text",
    b"output_text",
    b"outputText",
    b"text_output",
    b"suggestion",
)
# Dialects (names of their classes) whose events repeat under some of these keys what they said under another.
OTHER_ANSWERS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "OpenAIResponses": (b"delta",),  # events of type *.done hold all of it once more, under `text`
    "GeminiInteractions": (b"text", b"arguments", b"thought"),
}

# Operations that answer with text, and those whose input is text and whose output is no tokens.
ANSWER_IN_TEXT: Final = frozenset({"chat", "text_completion", "generate_content"})
READ_TEXT: Final = ANSWER_IN_TEXT | {"embeddings"}

# Strings of a request that are counted: the messages, the typed things, whether there are tools.
ROLE: Final = b"role"
TYPED: Final = b"type"
TOOLS: Final = b"tools"
# Content that is no text: its tokens depend on pixels or seconds. They are not estimated, the call says so.
NOT_TEXT: Final = (
    b"image_url",
    b"input_image",
    b"input_audio",
    b"input_file",
    b"inlineData",
    b"inline_data",
    b"fileData",
    b"images",
    b"image",
    b"document",
)
# What lets the provider add input that the request does not show: kept conversations, tools that it runs
# itself. Regular expressions.
ADDED: Final = (
    rb"(?:previous_response_id|conversation|thread_id|session_id|cachedContent|container|mcp_servers|mcp)",
    rb"(?:web_search|web_fetch|file_search|code_interpreter|code_execution|computer|browser)[a-z_0-9]*",
    rb"(?:google_?[sS]earch|url_?[cC]ontext|code_?[eE]xecution|documents|search_parameters|plugins)[a-zA-Z]*",
)
MARKS: Final = (ROLE, TYPED, TOOLS, *NOT_TEXT)
