"""What a request says about its cost, and the ids that calls are given."""

from __future__ import annotations

import gzip
import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmproto.exchange import Exchange, ReadingRules, Recognised, RequestHead, ResponseHead
from mmproto.framing.jsonpick import prune
from mmproto.providers.dialect import REQUEST_TREE
from mmrouter.ids import new_id
from mmrouter.policy import facts
from mmrouter.policy.facts import facts_of, read_document

_PIECES = [name.decode() for name in facts._REFERENCE_NAMES] + [
    '"urls"',
    '"image',
    '_url"',
    ":",
    " : ",
    '"',
    '"http',
    '"https://x"',
    "{",
    "[",
    "1",
    "\\",
    "url",
    "x",
    "\n",
]


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_looking_for_names_first_finds_what_the_pattern_finds(text: str) -> None:
    found = facts._BY_REFERENCE.search(text.encode()) is not None
    assert facts._is_by_reference(text.encode()) is found


@pytest.mark.parametrize(
    ("part", "by_reference", "audio"),
    [
        ({}, False, False),
        ({"previous_response_id": "resp_1"}, True, False),
        ({"conversation": {"id": "conv_1"}}, True, False),
        (
            {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://x/y"}}]}]},
            True,
            False,
        ),
        ({"messages": [{"content": [{"image_url": {"url": "data:image/png;base64,AA"}}]}]}, False, False),
        ({"messages": [{"content": 'say "previous_response_id": "x"'}]}, False, False),
        ({"prompt": {"id": "pmpt_1"}}, True, False),
        ({"prompt": "text"}, False, False),
        ({"messages": [{"content": [{"type": "input_audio"}]}]}, False, True),
        ({"modalities": ["text", "audio"]}, False, True),
    ],
)
def test_input_that_is_not_in_the_request(part: dict[str, Any], by_reference: bool, audio: bool) -> None:
    text, document = read_document(json.dumps({"model": "m", **part}).encode(), b"", 1 << 20)
    found = facts_of(text, document)
    assert (found.by_reference, found.audio) == (by_reference, audio)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(REQUEST_TREE)), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*REQUEST_TREE, "other"]), _JSON), st.booleans())
def test_a_document_the_gate_has_parsed_reads_as_its_bytes_do(form: dict[str, Any], packed: bool) -> None:
    form["model"] = "gpt-4o-mini"
    body = json.dumps(form).encode()
    encoding = "gzip" if packed else ""
    sent = gzip.compress(body) if packed else body

    def outcome(*, parsed: bool) -> object:
        headers = (("host", "api.openai.com"), ("content-encoding", encoding))
        head = RequestHead("POST", "/v1/chat/completions", headers)
        exchange = Exchange(head, ReadingRules(), "fallback", 1)
        if parsed:
            _, document = read_document(sent, encoding.encode(), 1 << 20)
            exchange.request_document(prune(document, REQUEST_TREE))
        else:
            exchange.request_body(sent, 2)
        exchange.request_end(3)
        exchange.response_head(ResponseHead(200, ()), 4)
        exchange.response_body(b'{"id": "x", "choices": [], "usage": {"prompt_tokens": 3}}', 5)
        return exchange.end(6)

    read = outcome(parsed=False)
    assert isinstance(read, Recognised)
    assert outcome(parsed=True) == read


def test_an_id_is_a_random_uuid() -> None:
    ids = {uuid.UUID(new_id()) for _ in range(1000)}
    assert len(ids) == 1000
    assert {(one.version, one.variant) for one in ids} == {(4, uuid.RFC_4122)}
