"""Team platform: pull requests reviewed by a reasoning model, with requests on the responses API."""

from __future__ import annotations

import os

import requests

from mmlocal.clients.pace import around, order, pause


def main() -> None:
    session = requests.Session()
    session.headers["user-agent"] = "code-review/2.3"
    session.headers["authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
    while True:
        answer = session.post(
            f"{os.environ['OPENAI_BASE_URL']}/responses",
            json={"model": "gpt-5.4", "input": "Review this change."},
            headers=order(
                input=around(48_000),
                cache_read=around(30_000),
                output=around(3_000),
                reasoning=around(9_000),
                delay_ms=400,
            ),
            timeout=60,
        )
        answer.raise_for_status()
        pause(6)


main()
