"""The Anthropic SDK as an application uses it. Arguments: base URL, mode, number of calls."""

from __future__ import annotations

import asyncio
import sys

from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import MessageParam

MODEL = "claude-sonnet-4-6"
ASK: list[MessageParam] = [{"role": "user", "content": "Name a prime above nine."}]

STOP: list[MessageParam] = [{"role": "user", "content": "Stop early."}]


def sync(base: str, calls: int) -> None:
    with Anthropic(base_url=base, max_retries=0) as client:
        for _ in range(calls):
            client.messages.create(model=MODEL, max_tokens=64, messages=ASK)


def sync_stream(base: str, calls: int) -> None:
    with Anthropic(base_url=base, max_retries=0) as client:
        for _ in range(calls):
            with client.messages.stream(model=MODEL, max_tokens=64, messages=ASK) as stream:
                stream.get_final_message()


def sync_cut(base: str, calls: int) -> None:
    """Leaves each stream in the middle, with its first words."""
    with Anthropic(base_url=base, max_retries=0) as client:
        for _ in range(calls):
            with client.messages.stream(model=MODEL, max_tokens=64, messages=STOP) as stream:
                next(iter(stream.text_stream))


async def asynchronous(base: str, calls: int) -> None:
    async with AsyncAnthropic(base_url=base, max_retries=0) as client:
        await asyncio.gather(
            *(client.messages.create(model=MODEL, max_tokens=64, messages=ASK) for _ in range(calls))
        )


async def asynchronous_stream(base: str, calls: int) -> None:
    async with AsyncAnthropic(base_url=base, max_retries=0) as client:
        for _ in range(calls):
            async with client.messages.stream(model=MODEL, max_tokens=64, messages=ASK) as stream:
                await stream.get_final_message()


if __name__ == "__main__":
    address, mode, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if mode.startswith("async"):
        chosen = {"async": asynchronous, "async-stream": asynchronous_stream}[mode]
        asyncio.run(chosen(address, count))
    else:
        {"sync": sync, "sync-stream": sync_stream, "sync-cut": sync_cut}[mode](address, count)
