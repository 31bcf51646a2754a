"""The key of a request is one key wherever it stands, and a signature is its signer's."""

from __future__ import annotations

import pytest

from mmproto.credentials import api_key

SIGNED = (
    "AWS4-HMAC-SHA256 Credential=AKIDTESTONLY/20260101/us-east-1/bedrock/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature={}"
)


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ({"authorization": "Bearer sk-1"}, "", "sk-1"),
        ({"authorization": "bearer  sk-1 "}, "", "sk-1"),
        ({"authorization": "Basic abc"}, "", "Basic abc"),
        ({"x-api-key": "sk-1"}, "", "sk-1"),
        ({"authorization": "", "x-goog-api-key": "g-1"}, "", "g-1"),
        ({"authorization": SIGNED.format("0a1b")}, "", "AKIDTESTONLY"),
        ({"authorization": SIGNED.format("2c3d")}, "", "AKIDTESTONLY"),
        ({"authorization": "AWS4-HMAC-SHA256 Signature=0a1b"}, "", "AWS4-HMAC-SHA256 Signature=0a1b"),
        ({}, "alt=sse&key=g%2D1", "g-1"),
        ({}, "api-version=1&api-key=az-1", "az-1"),
        ({"authorization": "Token dg-1"}, "", "dg-1"),
        ({"sec-websocket-protocol": "token, dg-1"}, "model=nova", "dg-1"),
        ({"sec-websocket-protocol": "realtime, openai-insecure-api-key.sk-1, openai-beta.v1"}, "", "sk-1"),
        ({"sec-websocket-protocol": "realtime"}, "", ""),
        ({}, "monkey=1", ""),
        ({}, "", ""),
    ],
)
def test_key(headers: dict[str, str], query: str, key: str) -> None:
    assert api_key(headers, query) == key
