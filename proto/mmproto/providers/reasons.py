"""Why an exchange of an LLM API costs nothing, whatever numbers it shows (`Facts.free`, `Route.free`)."""

from __future__ import annotations

from typing import Final

TOKEN_COUNTING: Final = "token_counting"  # noqa: S105  # a reason, not a secret
# What is only set up or accepted here; its work is seen elsewhere.
PREPARATION: Final = "preparation"
# The work goes on, and is seen where its result is fetched.
RESPONSE_PENDING: Final = "response_pending"
# A look at what was seen, or will be, elsewhere.
RETRIEVAL: Final = "retrieval"
# No language model answers there.
NOT_LLM: Final = "not_llm"
