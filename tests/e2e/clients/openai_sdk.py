"""The OpenAI SDK as an application uses it. Arguments: base URL, mode, number of calls."""

from __future__ import annotations

import asyncio
import sys

from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAI
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


def unasked(base: str, calls: int) -> None:
    """Streams whose usage nobody asks for."""
    with OpenAI(base_url=f"{base}/v1", max_retries=0) as client:
        for _ in range(calls):
            for _chunk in client.chat.completions.create(model=MODEL, messages=ASK, stream=True):
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


async def over_http2(base: str, calls: int) -> None:
    """Streams of two models side by side, on one connection."""

    async def stream(client: AsyncOpenAI, model: str) -> None:
        chunks = await client.chat.completions.create(
            model=model, messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        async for _chunk in chunks:
            pass

    http = DefaultAsyncHttpxClient(http2=True)
    async with AsyncOpenAI(base_url=f"{base}/v1", max_retries=0, http_client=http) as client:
        for _ in range(calls):
            await asyncio.gather(stream(client, "gpt-4.1"), stream(client, "gpt-4.1-mini"))


async def over_http2_cut(base: str, calls: int) -> None:
    """Leaves each stream in the middle, with its first word."""
    http = DefaultAsyncHttpxClient(http2=True)
    async with AsyncOpenAI(base_url=f"{base}/v1", max_retries=0, http_client=http) as client:
        for _ in range(calls):
            stream = await client.chat.completions.create(
                model="gpt-4.1-nano", messages=ASK, stream=True, stream_options={"include_usage": True}
            )
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    break
            await stream.close()


if __name__ == "__main__":
    address, mode, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if mode.startswith("async"):
        chosen = {
            "async": asynchronous,
            "async-stream": asynchronous_stream,
            "async-http2": over_http2,
            "async-http2-cut": over_http2_cut,
        }[mode]
        asyncio.run(chosen(address, count))
    else:
        {"sync": sync, "sync-stream": sync_stream, "sync-unasked": unasked}[mode](address, count)
