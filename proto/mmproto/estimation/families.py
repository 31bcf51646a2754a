"""What tells the models apart when their tokens are estimated. Data, calibrated on recorded exchanges.

`factor` is how many tokens a text has by a model's own tokenizer for each one of o200k_base, to which the
weights of `tally` are fitted. Beside the text a request costs a few tokens for each message (`message`: role
and separators) and for each typed thing (`typed`: a property of a tool's schema, with its name and brackets).
The numbers were fitted to the recordings that tests/estimation_error.py measures, by the least mean of
relative errors; a family that has but a few of them is left to `OTHER`.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class Family(NamedTuple):
    """How a family of models counts; all but `factor` in its own tokens."""

    name: str
    models: str  # regular expression; searched in the model's name
    factor: float = 1.05
    start: float = 3.0  # a request without any text
    message: float = 4.0
    tools: float = 150.0  # what a request with tools has on top: instructions that the provider puts in
    typed: float = 12.0
    has_tokenizer: bool = False  # its tokenizer is the one that is shipped


FAMILIES: Final = (
    Family(
        "openai",
        r"(?:^|[/.:])(?:gpt|chatgpt|o[134](?:$|-)|text-(?:embedding|davinci)|davinci|babbage|codex)|gpt-?[3-9]",
        1.0,
        3,
        4,
        10,
        7.5,
        has_tokenizer=True,
    ),
    Family("anthropic", r"claude", 1.2, 2, 4, 310, 14),
    Family("gemini", r"gemini|gemma", 1.04, 0, 0, 20, 2),
    Family("llama", r"llama", 1.08, 25, 4, 100, 12),
    Family("grok", r"grok", 1.0, 3, 4, 170, 22),
    Family("mistral", r"mistral|mixtral|codestral|ministral|magistral|devstral|pixtral", 1.25, 2, 2, 80, 4),
    Family("deepseek", r"deepseek", 1.0, 3, 4, 300, 15),
    Family("kimi", r"kimi|moonshot", 1.0, 0, 6, 0, 20),
    Family("glm", r"glm", 1.0, 5, 0, 190, 4),
    Family("cohere", r"command|^embed-|^c4ai", 1.1, 2, 4),
)
OTHER: Final = Family("other", "")
_PATTERNS: Final = tuple((re.compile(family.models), family) for family in FAMILIES)


def family_of(model: str) -> Family:
    """The family of a model by its name."""
    name = model.lower()
    return next((family for pattern, family in _PATTERNS if pattern.search(name)), OTHER)
