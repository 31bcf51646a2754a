"""The keyed hash under which an API key is known: HMAC-SHA256, 16 hex digits.

A plain hash of a key could be tried against leaked keys by whoever reads the ledger; with a secret that
stays on the node it tells nothing, and still the same key always gives the same hash there.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from mmproto.delivery import ensure_token

HASH_KEY_FILE = "hash.key"
HEX_DIGITS = 16


class KeyHash:
    """Hashes credentials with the secret in `path`, which is created (mode 0600) where it does not exist.

    Raises SpoolUnavailable where the file can be neither read nor made.
    """

    def __init__(self, path: Path) -> None:
        self._secret = ensure_token(path).encode()

    def __call__(self, credential: str) -> str:
        digest = hmac.digest(self._secret, credential.encode("utf-8", "surrogateescape"), "sha256")
        return digest.hex()[:HEX_DIGITS]
