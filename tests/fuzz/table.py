"""Every target by its name."""

from __future__ import annotations

from tests.fuzz import archives, conversations, documents, exchanges, framings, messages
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    **framings.TARGETS,
    **documents.TARGETS,
    **conversations.TARGETS,
    **exchanges.TARGETS,
    **archives.TARGETS,
    **messages.TARGETS,
}
