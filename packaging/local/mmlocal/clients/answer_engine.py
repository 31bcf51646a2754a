"""Team search: questions about the catalogue, answered with the openai SDK, streaming, after an embedding."""

from __future__ import annotations

import asyncio

import openai

from mmlocal.clients.pace import around, order, pause, pick

USERS = ("mira", "tomas", "jun", "adaeze")


async def main() -> None:
    async with openai.AsyncOpenAI(max_retries=0) as client:
        while True:
            await client.embeddings.create(
                model="text-embedding-3-small", input="question", extra_headers=order(input=around(2_000))
            )
            stream = await client.chat.completions.create(
                model="gpt-5.4-mini",
                messages=[{"role": "user", "content": "Answer from these passages."}],
                stream=True,
                stream_options={"include_usage": True},
                user=pick(*USERS),
                extra_headers=order(
                    input=around(6_000),
                    cache_read=around(14_000),
                    output=around(900),
                    delay_ms=180,
                    gap_ms=40,
                ),
            )
            async for _ in stream:
                pass
            await asyncio.to_thread(pause, 1.2)


asyncio.run(main())
