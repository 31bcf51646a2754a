"""An application without an SDK. Arguments: base URL, `urllib` or `requests`, number of calls."""

from __future__ import annotations

import json
import os
import ssl
import sys
import urllib.request

HEADERS = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}", "Content-Type": "application/json"}
BODY = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Name a prime above nine."}]}


def with_urllib(base: str, calls: int) -> None:
    trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    for _ in range(calls):
        request = urllib.request.Request(
            f"{base}/v1/chat/completions", json.dumps(BODY).encode(), HEADERS, method="POST"
        )
        with urllib.request.urlopen(request, context=trust) as response:
            json.load(response)


def with_requests(base: str, calls: int) -> None:
    import requests

    with requests.Session() as session:
        session.verify = os.environ["SSL_CERT_FILE"]
        for _ in range(calls):
            session.post(f"{base}/v1/chat/completions", json=BODY, headers=HEADERS).raise_for_status()


if __name__ == "__main__":
    {"urllib": with_urllib, "requests": with_requests}[sys.argv[2]](sys.argv[1], int(sys.argv[3]))
