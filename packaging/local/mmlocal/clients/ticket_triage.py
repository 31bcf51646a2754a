"""Team support: tickets sorted with the anthropic SDK; one in eight goes on to the larger model."""

from __future__ import annotations

import anthropic

from mmlocal.clients.pace import RANDOM, around, order, pause, pick

AGENTS = ("agent-17", "agent-23", "agent-31")


def main() -> None:
    client = anthropic.Anthropic(max_retries=0)
    while True:
        counts = {"input": around(4_000), "cache_read": around(22_000), "output": around(500)}
        ask(client, "claude-haiku-4-5", counts)
        if RANDOM.random() < 1 / 8:
            ask(
                client, "claude-sonnet-4-6", {**counts, "cache_write": around(3_000), "output": around(2_500)}
            )
        pause(1.5)


def ask(client: anthropic.Anthropic, model: str, counts: dict[str, int]) -> None:
    client.messages.create(
        model=model,
        max_tokens=4096,
        messages=[{"role": "user", "content": "Which queue does this ticket belong to?"}],
        metadata={"user_id": pick(*AGENTS)},
        extra_headers=order(**counts, delay_ms=120),
    )


main()
