"""The ranks of OpenAI's tokenizer, from a file beside this module and never from the network.

tiktoken loads its ranks over HTTP when it first counts, keeps them in a temporary folder, and deletes a copy
that is damaged. A daemon must do none of that: the file is made at set-up (packaging/local/ranks.mjs), has to
be the published one byte for byte, and is only ever read. `tiktoken_ext.modelmeter` offers it to tiktoken.

One encoding serves all models. cl100k_base, which older models use, would cost another 36 MB of memory, and
what it would bring has not been measured.
"""

from __future__ import annotations

import binascii
import hashlib
from pathlib import Path
from typing import Any, Final

# Under this name tiktoken knows it.
NAME: Final = "modelmeter_o200k_base"
FILE: Final = Path(__file__).with_name("o200k_base.tiktoken")
# As pinned by tiktoken's own `tiktoken_ext.openai_public`.
SHA256: Final = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"

# From `tiktoken_ext.openai_public`, too. Only how text is cut apart matters here: an estimate counts ordinary
# text, in which no special token is one.
_PATTERN: Final = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


class RanksUnusable(Exception):
    """There is no file of ranks, or not the published one."""


def read(file: Path = FILE) -> dict[bytes, int]:
    """Tokens and their ranks. Raises RanksUnusable; the file is left as it is."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RanksUnusable(f"the tokenizer's ranks cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise RanksUnusable("the tokenizer's ranks are damaged: they are not the published ones")
    decode = binascii.a2b_base64
    lines = (line.split() for line in content.splitlines())
    return {decode(token): int(rank) for token, rank in lines}


def encoding() -> dict[str, Any]:
    """What tiktoken makes an encoding of. Raises RanksUnusable."""
    return {"name": NAME, "pat_str": _PATTERN, "mergeable_ranks": read(), "special_tokens": {}}
