"""The ingest token: one secret in `<state>/ingest.token`, shared by the pipeline, its sensors and routers.

Whoever starts first makes it, readable by its owner only; making it is atomic, so that daemons that start
together agree on one.
"""

from __future__ import annotations

import hmac
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path


class TokenError(Exception):
    """The token file cannot be used; str() says why and what to do."""


def ingest_token(file: Path) -> str:
    """The token in `file`, made where there is none. Raises TokenError."""
    try:
        if not file.exists():
            _make(file)
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"{file} cannot be read or made: {error}; check the state folder") from error
    if len(token) < 16:
        raise TokenError(f"{file} holds no token of 16 characters or more; remove it to have one made")
    return token


def _make(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".ingest.token.")  # 0600 from the start
    try:
        with os.fdopen(handle, "w", encoding="ascii") as draft:
            draft.write(secrets.token_urlsafe(32) + "\n")
            draft.flush()
            os.fsync(draft.fileno())
        with suppress(FileExistsError):  # another daemon was faster: its token holds
            os.link(name, file)
    finally:
        Path(name).unlink()


def is_authorised(header: str | None, token: str) -> bool:
    """Whether an `Authorization` header carries the token; takes the same time for every wrong one."""
    scheme, _, given = (header or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
