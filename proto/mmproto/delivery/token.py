"""The bearer token between the daemons of one machine: a file that whoever starts first creates."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from mmproto.delivery.errors import SpoolUnavailable

TOKEN_FILE = "ingest.token"  # noqa: S105 - the name of the file, not what is in it


def ensure_token(path: Path) -> str:
    """The token in `path`, which is created with a fresh one (mode 0600) where it does not exist.

    Daemons that start at the same moment agree: the file appears whole, by link, and only once.
    Raises SpoolUnavailable with one clear line where the file can be neither read nor made.
    """
    try:
        token = read_token(path)
        if token:
            return token
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=path.name, dir=path.parent)
        fresh = Path(name)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(fresh, path)
            except FileExistsError:
                if not read_token(path):
                    fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
        return read_token(path)
    except OSError as error:
        raise SpoolUnavailable(
            f"the token file {path} cannot be used: {error.strerror}; "
            "it must be readable and its folder writable",
            permission=isinstance(error, PermissionError),
        ) from error


def read_token(path: Path) -> str:
    """The token in `path`, "" where there is no such file. Raises OSError."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return ""
