"""Records of every shape are read by rule, and what cannot be read says why."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.score.records import chat, record

from mmproto.score.folder import EVERY_FRAMING
from mmproto.score.record import Record, UnreadableRecord, read_folder, read_record
from mmproto.score.scoring import score
from mmproto.score.shapes import Message

HELLO = {"type": "session.update"}
DONE = {"type": "response.done", "response": {"usage": {}}}
SESSION = (
    Message(True, b'{"type":"session.update"}', True),
    Message(False, json.dumps(DONE, separators=(",", ":")).encode(), True),
)


def session(**fields: Any) -> dict[str, Any]:
    """A realtime record with `fields`, which bring its messages."""
    document = chat(path="/v1/realtime?model=gpt-test", method="GET")
    document["request"]["body"] = None
    document["response"] = {"status": 101, "headers": {}}
    for name, value in fields.items():
        place, _, key = name.rpartition("__")
        (document[place] if place else document)[key] = value
    return document


def test_a_record_is_read() -> None:
    read = record()
    assert (read.method, read.host, read.target) == ("POST", "api.openai.com", "/v1/chat/completions")
    assert json.loads(read.request_body)["model"] == "gpt-test"
    assert json.loads(read.response_body)["model"] == "gpt-test-2026"
    assert not read.aborted and not read.is_websocket and not read.is_grpc


def test_the_address_may_be_a_url() -> None:
    document = chat(path="wss://api.openai.com:8443/v1/real time?model=a%20b")
    document["request"].update(host=None, headers=[["Content-Type", "application/json"]])
    read = record(document)
    assert (read.host, read.target) == ("api.openai.com:8443", "/v1/real%20time?model=a%20b")
    assert read.request_headers == (("content-type", "application/json"),)


@pytest.mark.parametrize(
    "document",
    [
        session(
            frames=[{"direction": "client", "text": json.dumps(HELLO)}, {"direction": "server", "data": DONE}]
        ),
        session(messages=[{"from": "sent", "payload": HELLO}, {"from": "received", "payload": DONE}]),
        session(events=[{"sent": HELLO}, {"received": DONE}]),
        session(websocket={"frames": [["->", HELLO], ["<-", DONE]]})
        | {"websocket": None, "frames": [["->", HELLO], ["<-", DONE]]},
        session(sent=[HELLO], received=[DONE]),
        session(frames=[{"from_client": True, "data": HELLO}, {"from_client": False, "data": DONE}]),
        session(request__messages=[HELLO], response__messages=[DONE]),
        session(request__events=[HELLO], response__events=[{"text": json.dumps(DONE)}]),
        session(
            ws_messages=[
                {"dir": "out", "base64": base64.b64encode(json.dumps(HELLO).encode()).decode()},
                {
                    "dir": "in",
                    "data": base64.b64encode(json.dumps(DONE).encode()).decode(),
                    "encoding": "base64",
                },
            ]
        ),
        session(
            request__body={"text": json.dumps(HELLO)},
            response__body_b64=base64.b64encode(json.dumps(DONE).encode() + b"\n").decode(),
        ),
        session(
            response__body_b64=base64.b64encode(
                b'{"direction":"send","text":"{\\"type\\":\\"session.update\\"}"}\n'
                b'{"direction":"recv","data":' + json.dumps(DONE).encode() + b"}"
            ).decode()
        ),
    ],
)
def test_messages_of_a_session_in_any_shape(document: dict[str, Any]) -> None:
    read = record(document)
    assert read.is_websocket
    assert [(m.from_client, json.loads(m.data), m.text) for m in read.messages] == [
        (m.from_client, json.loads(m.data), m.text) for m in SESSION
    ]


def test_messages_inside_a_part_of_the_record() -> None:
    read = record(session(websocket={"frames": [["client", HELLO], ["server", DONE]]}))
    assert [message.from_client for message in read.messages] == [True, False]


def test_a_list_beside_a_whole_body_is_only_a_view_of_it() -> None:
    read = record(chat(more={"events": [{"direction": "server", "data": DONE}]}))
    assert not read.messages and not read.is_websocket


def test_a_refused_upgrade_is_an_ordinary_answer() -> None:
    document = session()
    document["request"]["headers"] = {"upgrade": "websocket"}
    document["response"] = {"status": 401, "headers": {}, "body_b64": ""}
    assert not record(document).is_websocket


@pytest.mark.parametrize("by", ["type", "path"])
def test_calls_of_grpc(by: str) -> None:
    document = chat(b"\0\0\0\0\0", path="/xai_api.Chat/GetCompletion" if by == "path" else "/x")
    for part in ("request", "response"):
        document[part]["headers"] = {"content-type": "application/grpc"} if by == "type" else {}
    document["response"]["status"] = 0
    read = record(document)
    assert read.is_grpc and not read.is_websocket and not read.aborted
    assert (read.status, read.trailers) == (200, (("grpc-status", "0"),))


def test_binary_messages_stay_binary() -> None:
    audio = {"direction": "client", "base64": base64.b64encode(b"\x00\x01").decode()}
    frame = {"direction": "client", "opcode": 2, "data": audio["base64"]}
    assert record(session(frames=[audio, frame])).messages == (Message(True, b"\x00\x01", False),) * 2


@pytest.mark.parametrize(
    "more",
    [
        {"aborted": True},
        {"truncated": "after 12 events"},
        {"split": "aborted"},
        {"fidelity": {"response": "truncated"}},
    ],
)
def test_a_stream_that_was_cut_off_says_so(more: dict[str, Any]) -> None:
    assert record(chat(more=more)).aborted
    assert record(chat(quirks=["aborted_stream"])).aborted
    assert not record(chat(more={"aborted": False}, quirks=["stream_without_usage"])).aborted


def test_a_body_is_cut_where_the_record_says() -> None:
    assert len(record(chat(more={"aborted_at": 10})).response_body) == 10


def test_an_answer_that_never_came() -> None:
    document = chat()
    document["response"] = None
    read = record(document)
    assert read.status == 0 and read.aborted


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "no JSON object"),
        ({"request": {}, "response": {}}, "no expected"),
        ({"request": 1, "expected": {}}, "no request"),
        (chat() | {"expected": {"input_tokens": 1}}, "expected names no provider"),
        (chat() | {"request": {"host": "h"}}, "request has no path"),
        (chat() | {"request": {"path": "/p"}}, "request has no host"),
        (chat() | {"response": {"status": "ok"}}, "response.status is no number"),
        (session(frames=[{"x": 1}]), "realtime session whose messages are in no known shape"),
        (chat() | {"response": {"status": 200, "body_b64": "!"}}, "a body that cannot be decoded"),
    ],
)
def test_what_cannot_be_read_says_why(document: Any, reason: str) -> None:
    with pytest.raises(UnreadableRecord, match=reason):
        read_record(document, "unnamed")


_NAMES = [
    "status",
    "headers",
    "body",
    "body_b64",
    "path",
    "host",
    "method",
    "frames",
    "text",
    "provider",
    "alt",
    "quirks",
    "input_tokens",
    "trailers",
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


_PART = st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=5)


@given(_PART, _PART, _PART, _JSON)
def test_no_document_breaks_the_scoring(
    asked: dict[str, Any], answered: dict[str, Any], expected: dict[str, Any], frames: Any
) -> None:
    document = {
        "request": {"path": "/v1/chat/completions", "host": "api.openai.com"} | asked,
        "response": answered,
        "expected": {"provider": "openai"} | expected,
        "frames": frames,
    }
    try:
        read = read_record(document, "unnamed")
    except UnreadableRecord as error:
        assert str(error)
    else:
        assert score(read, EVERY_FRAMING, frozenset({"identity", "gzip"}), 0) is not None


def test_a_folder_is_read_in_order_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(chat(name="one")))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c.jsonl").write_text(
        json.dumps(chat(name="two")) + "\n" + json.dumps(chat(name="three")) + "\n"
    )
    (tmp_path / "d.json").write_text("{")
    (tmp_path / "e.json").write_bytes(b"\xff")
    (tmp_path / "f.json").write_text("[" * 100_000)
    (tmp_path / "notes.txt").write_text("no record")
    read = list(read_folder(tmp_path))
    assert [name for name, _ in read] == ["a", "b/c#0", "b/c#1", "d", "e", "f"]
    assert [one.name for _, one in read if isinstance(one, Record)] == ["one", "two", "three"]
    reasons = [str(one) for _, one in read if isinstance(one, UnreadableRecord)]
    assert reasons == ["no JSON", "no JSON", "JSON that is nested too deep"]
