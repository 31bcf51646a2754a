"""Calls that a subscription pays for. What they would have cost by their tokens is nobody's spend."""

from __future__ import annotations

import re
from typing import Final

from mmproto.providers.dialect import Asked
from mmproto.providers.facts import Facts
from mmproto.providers.hosts import Quirk

# A tier without a price of its own, so that nobody charges such calls as if they were metered.
SUBSCRIPTION: Final = "subscription"
# Coding plans of providers that serve metered calls at the same host: Z.ai and Zhipu, Volcengine.
_PATHS: Final = re.compile(r"/api/coding/.*")


def mark(asked: Asked, facts: Facts) -> None:
    """Notes the tier of a call that host or path shows to be part of a plan."""
    if Quirk.SUBSCRIPTION in asked.quirks or _PATHS.match(asked.path):
        facts.response_tier = SUBSCRIPTION
