"""What somebody sends who wants wrong numbers, a crash or a slow observer: third parties' text and odd peers."""

from __future__ import annotations

import pytest
from tests.proto import wire

CHAT = wire.request("api.openai.com", "/v1/chat/completions", wire.chat_request())


@pytest.mark.parametrize("cost", ["1e999999999", "1e-999999999", "nan", "-1", "1e300", "0x1", ""])
def test_a_cost_beyond_all_reason_is_none(cost: str) -> None:
    answer = wire.response(wire.chat_completion(), headers={"x-litellm-response-cost": cost})
    call = wire.the_call(wire.read(CHAT, answer))
    assert not call.reported_cost_nano_usd
    assert dict(call.usage.tokens) == {"input": 30, "output": 12}
