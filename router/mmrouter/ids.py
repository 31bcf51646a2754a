"""Random ids for calls and decisions.

They need to be unique, not secret, and a system call for each would cost more than everything else that
is done to a call: so they come from a generator that is seeded from the system once.
"""

from __future__ import annotations

import random
import uuid

_GENERATOR = random.Random()  # noqa: S311 - ids, not secrets; seeded from os.urandom


def new_id() -> str:
    """A random UUID (version 4) as text."""
    return str(uuid.UUID(int=_GENERATOR.getrandbits(128), version=4))
