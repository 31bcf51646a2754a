"""Ids of calls: what makes two observations one call, and what does not."""

from __future__ import annotations

import uuid

import pytest

from mmproto.identity import CALL_ID_HEADER, call_id, is_strong

STRONG = "chatcmpl-Bq7TeSt0nLyXyZ123456"
REQUEST_ID = (("x-request-id", "req_0123456789abcdef0123"),)
ROUTED = ((CALL_ID_HEADER, "7f3c1a52-9d40-4c6e-8a11-0d2b5e6f7a8b"),)


@pytest.mark.parametrize(
    ("identifier", "strong"),
    [
        (STRONG, True),
        ("msg_01TeStOnLyAbCdEfGhIjKl", True),
        ("resp_0a1b2c3d4e5f60718293a4b5c6d7e8f9", True),
        ("7f3c1a52-9d40-4c6e-8a11-0d2b5e6f7a8b", True),
        ("", False),
        ("chatcmpl-123", False),
        ("chatcmpl-0000000000000000000000", False),
        ("a-very-short", False),
        ("chatcmpl-123456789012345", False),
    ],
)
def test_strength(identifier: str, strong: bool) -> None:
    assert is_strong(identifier) is strong


def test_each_source_yields_to_the_one_before() -> None:
    ids = [
        call_id("openai", STRONG, REQUEST_ID, ROUTED, "fallback"),
        call_id("openai", "chatcmpl-1", REQUEST_ID, ROUTED, "fallback"),
        call_id("openai", "chatcmpl-1", (), ROUTED, "fallback"),
        call_id("openai", "chatcmpl-1", (), (), "fallback"),
    ]
    assert len(set(ids)) == 4
    assert all(uuid.UUID(found).version == 5 for found in ids)


def test_observers_agree() -> None:
    assert call_id("openai", STRONG, (), (), "router:1") == call_id(
        "openai", STRONG, REQUEST_ID, ROUTED, "sensor:9"
    )
    assert call_id("openai", "", (), ROUTED, "router:1") == call_id("openai", "", (), ROUTED, "sensor:9")


def test_different_calls_differ() -> None:
    assert call_id("openai", STRONG, (), (), "f") != call_id("anthropic", STRONG, (), (), "f")
    assert call_id("openai", "", (), (), "f:1") != call_id("openai", "", (), (), "f:2")


def test_ids_do_not_change_between_versions() -> None:
    assert call_id("openai", STRONG, (), (), "") == "663894c6-3566-5d46-8f3e-36aea9273381"
