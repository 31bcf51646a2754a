"""OpenAI's tokenizer, loaded when the first estimate asks for it and never before.

It costs 0.5 s, 52 MB of memory for good and 80 MB for a moment: most processes never see a call that needs
it. Where it cannot be had (no tiktoken, no ranks, damaged ranks) that is said once in the log, and estimates
go by the characters.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from mmproto.estimation import ranks

_LOG = logging.getLogger(__name__)
_LOCK = threading.Lock()


class Tokenizer(Protocol):
    """What is used of tiktoken's encodings."""

    def encode_ordinary(self, text: str) -> list[int]:
        """The tokens of `text`, none of them special."""


_loaded: Tokenizer | None = None
_tried = False


def load() -> Tokenizer | None:
    """The tokenizer, None where it cannot be had. Blocks for half a second the first time."""
    global _loaded, _tried  # noqa: PLW0603  # one tokenizer a process
    if not _tried:
        with _LOCK:
            if not _tried:
                _loaded = _open()
                _tried = True
    return _loaded


def _open() -> Tokenizer | None:
    try:
        import tiktoken  # noqa: PLC0415  # 4 MB that most processes never need

        encoding = tiktoken.get_encoding(ranks.NAME)
    except (ImportError, ValueError, ranks.RanksUnusable) as error:
        _LOG.warning("token estimates go by characters: %s", error)
        return None
    # tiktoken keeps a second copy of the ranks in Python, for looking into tokens: 27 MB.
    encoding._mergeable_ranks = {}
    return encoding
