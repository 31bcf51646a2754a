"""The OpenAI SDK as an application uses it. Arguments: base URL, mode, number of calls."""

from __future__ import annotations

import asyncio
import sys

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

MODEL = "gpt-4o-mini"
ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Name a prime above nine."}]


def sync(base: str, calls: int) -> None:
    with OpenAI(base_url=f"{base}/v1", max_retries=0) as client:
        for _ in range(calls):
            client.chat.completions.create(model=MODEL, messages=ASK)
            client.responses.create(model=MODEL, input="Name a prime above nine.")
            client.embeddings.create(model="text-embedding-3-small", input="a prime")


def sync_stream(base: str, calls: int) -> None:
    with OpenAI(base_url=f"{base}/v1", max_retries=0) as client:
        for _ in range(calls):
            for _chunk in client.chat.completions.create(
                model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
            ):
                pass
            for _event in client.responses.create(model=MODEL, input="Name a prime.", stream=True):
                pass


async def asynchronous(base: str, calls: int) -> None:
    async with AsyncOpenAI(base_url=f"{base}/v1", max_retries=0) as client:
        await asyncio.gather(
            *(client.chat.completions.create(model=MODEL, messages=ASK) for _ in range(calls))
        )


async def asynchronous_stream(base: str, calls: int) -> None:
    async with AsyncOpenAI(base_url=f"{base}/v1", max_retries=0) as client:
        for _ in range(calls):
            stream = await client.chat.completions.create(
                model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
            )
            async for _chunk in stream:
                pass


if __name__ == "__main__":
    address, mode, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if mode.startswith("async"):
        chosen = {"async": asynchronous, "async-stream": asynchronous_stream}[mode]
        asyncio.run(chosen(address, count))
    else:
        {"sync": sync, "sync-stream": sync_stream}[mode](address, count)
