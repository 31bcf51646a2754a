"""HTTP archives: as browsers and mitmproxy export them, and every way they come damaged."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.proto import wire

from mmproto import har
from mmproto.callform import call_to_json
from mmproto.exchange import Dropped, Failed, Outcome, ReadingRules, Recognised
from mmproto.har import ArchiveError

URL = "https://api.openai.com/v1/chat/completions"


def entry(**changes: Any) -> dict[str, Any]:
    """An entry as Chrome writes it; `changes` replace parts by path (`a__b`) or delete them (`...`)."""
    whole: dict[str, Any] = {
        "startedDateTime": "2026-11-23T10:00:00.250Z",
        "time": 812.5,
        "request": {
            "method": "POST",
            "url": URL,
            "httpVersion": "HTTP/1.1",
            "headers": [
                {"name": "Authorization", "value": "Bearer sk-1"},
                {"name": "X-Team", "value": "search"},
            ],
            "queryString": [],
            "headersSize": -1,
            "bodySize": -1,
            "postData": {"mimeType": "application/json", "text": wire.dump(wire.chat_request()).decode()},
        },
        "response": {
            "status": 200,
            "headers": [
                {"name": "Content-Type", "value": "application/json"},
                {"name": "content-encoding", "value": "gzip"},
            ],
            "content": {
                "size": 300,
                "mimeType": "application/json",
                "text": wire.dump(wire.chat_completion()).decode(),
            },
        },
        "timings": {
            "blocked": 1,
            "dns": -1,
            "ssl": -1,
            "connect": -1,
            "send": 0.5,
            "wait": 600,
            "receive": 211,
        },
        "cache": {},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = whole
        for name in parents:
            place = place[name]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return whole


def archive(*entries: Any) -> bytes:
    return json.dumps({"log": {"version": "1.2", "creator": {"name": "x"}, "entries": entries}}).encode()


def read(*entries: Any) -> list[Outcome]:
    return list(har.read(archive(*entries), ReadingRules(keep_headers=frozenset({"x-team"}))))


def form(outcome: Outcome) -> dict[str, Any]:
    assert isinstance(outcome, Recognised), outcome
    return call_to_json(outcome.call)


def test_an_entry() -> None:
    [outcome] = read(entry())
    assert isinstance(outcome, Recognised)
    assert outcome.headers == {"x-team": "search"}
    call = form(outcome)
    call.pop("id")
    assert call == {
        "provider": "openai",
        "operation": "chat",
        "request_model": "gpt-test",
        "response_model": "gpt-test-2026",
        "response_id": wire.CHAT_ID,
        "host": "api.openai.com",
        "host_source": "request",
        "streaming": False,
        "http_status": 200,
        "billable": True,
        "started_at": "2026-11-23T10:00:00.25Z",
        "duration_s": 0.8125,
        "finish_reasons": ["stop"],
        "usage": {
            "input_tokens": 30,
            "output_tokens": 12,
            "buckets": {"input": 30, "output": 12},
            "quality": "EXACT",
        },
    }


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


ANSWER = wire.dump(wire.chat_completion())
EVENTS = wire.sse(wire.chat_chunks(usage=wire.chat_usage()), done=True)
SAME: dict[str, dict[str, Any]] = {
    "base64": {"response__content": {"text": b64(ANSWER), "encoding": "base64"}},
    "base64 with line breaks and no padding": {
        "response__content": {
            "text": "\n".join(b64(ANSWER + b" ").rstrip("=")[i : i + 76] for i in range(0, 2000, 76)),
            "encoding": "BASE64",
        }
    },
    "still compressed": {"response__content": {"text": b64(gzip.compress(ANSWER)), "encoding": "base64"}},
    "brotli already undone": {"response__headers": [{"name": "Content-Encoding", "value": "br"}]},
    "http/2": {
        "request__headers": [
            {"name": ":authority", "value": "wrong.example"},
            {"name": ":path", "value": "/x"},
        ],
        "response__headers": [{"name": ":status", "value": "200"}],
    },
    "headers as an object": {
        "request__headers": {"X-A": "b"},
        "response__headers": {"content-encoding": "gzip"},
    },
    "odd headers": {"request__headers": [None, 7, {}, {"name": 1, "value": 2}, {"name": "a"}]},
    "no headers": {"request__headers": ..., "response__headers": ...},
    "request in base64": {
        "request__postData": {"text": b64(wire.dump(wire.chat_request())), "encoding": "base64"}
    },
    "request taken for a form": {
        "request__postData": {
            "params": [{"name": '{"model":"gpt-test","messages":[{"content":"a', "value": 'b"}]}'}]
        }
    },
    "status as text": {"response__status": "200"},
    "byte order mark in the body": {"response__content__text": "\ufeff" + ANSWER.decode()},
    "event stream": {"response__content__text": EVENTS.decode()},
    "comments and unknown fields": {
        "comment": "mitmproxy",
        "_resourceType": "fetch",
        "response__comment": "",
    },
    "no timings": {"timings": ..., "time": ...},
    "timings of a wrong type": {"timings": [1], "time": "soon", "startedDateTime": 5},
    "upper case host, default port": {"request__url": "HTTPS://API.OpenAI.com:443/v1/chat/completions?x=1#y"},
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_call_in_other_forms(name: str) -> None:
    [outcome] = read(entry(**SAME[name]))
    call = form(outcome)
    assert (call["host"], call["request_model"]) == ("api.openai.com", "gpt-test")
    assert call["usage"]["buckets"] == {"input": 30, "output": 12}


DAMAGED: dict[str, tuple[Any, Outcome]] = {
    "no object": ("text", Failed("archive_bad_entry")),
    "null": (None, Failed("archive_bad_entry")),
    "request of a wrong type": (entry(request=[]), Failed("archive_bad_entry")),
    "response of a wrong type": (entry(response="x"), Failed("archive_bad_entry")),
    "no method": (entry(request__method=...), Failed("archive_bad_entry")),
    "no url": (entry(request__url=...), Failed("archive_bad_url")),
    "url of a wrong type": (entry(request__url=7), Failed("archive_bad_url")),
    "url without a host": (entry(request__url="/v1/chat/completions"), Failed("archive_bad_url")),
    "broken url": (entry(request__url="https://[::1/v1"), Failed("archive_bad_url")),
    "broken port": (entry(request__url="https://x:port/v1"), Failed("archive_bad_url")),
    "broken base64": (
        entry(response__content={"text": "####", "encoding": "base64"}),
        Failed("archive_bad_base64"),
    ),
    "no text": (entry(response__content__text=...), Failed("response_body_missing")),
    "no content": (entry(response__content=...), Failed("response_body_missing")),
    "text of a wrong type": (entry(response__content__text={}), Failed("response_body_missing")),
    "broken json": (entry(response__content__text='{"id": "x", "usa'), Failed("malformed_json")),
    "not ours": (entry(request__url="https://example.com/", request__method="GET"), Dropped("not_llm")),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named_and_the_neighbours_are_read(name: str) -> None:
    damaged, expected = DAMAGED[name]
    before, outcome, after = read(entry(), damaged, entry())
    assert outcome == expected
    assert form(before)["usage"] == form(after)["usage"]


@pytest.mark.parametrize("response", [{"status": 0}, {}, {"status": None}, {"status": True}, {"status": 99}])
def test_aborted_before_an_answer(response: dict[str, Any]) -> None:
    [outcome] = read(entry(response=response))
    call = form(outcome)
    assert "http_status" not in call
    assert (call["error_type"], call["billable"], call["usage"]) == (
        "connection_closed",
        True,
        {"buckets": {}, "quality": "UNKNOWN"},
    )


def test_missing_request_body_leaves_the_model_unknown() -> None:
    [outcome] = read(entry(request__postData=...))
    call = form(outcome)
    assert "request_model" not in call
    assert call["response_model"] == "gpt-test-2026"


TIMES = [
    ("2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z"),
    ("2026-11-23T12:00:00.123456+02:00", "2026-11-23T10:00:00.123456Z"),
    ("2026-11-23T04:30:00-0530", "2026-11-23T10:00:00Z"),
    ("2026-11-23T10:00:00", None),
    ("yesterday", None),
    ("2026-13-45T10:00:00Z", None),
    ("0001-01-01T00:00:00+14:00", None),
    ("9999-12-31T23:59:59Z", None),
]


@pytest.mark.parametrize(("text", "started"), TIMES)
def test_started_at(text: str, started: str | None) -> None:
    [outcome] = read(entry(startedDateTime=text))
    assert form(outcome).get("started_at") == started


@pytest.mark.parametrize(
    ("changes", "duration", "first"),
    [
        ({}, 0.8125, 0.6015),
        ({"time": -1}, 0.8125, 0.6015),
        ({"time": ..., "timings__receive": ...}, None, 0.6015),
        ({"timings": {"send": 1, "wait": -1, "receive": 3}}, 0.8125, None),
        ({"timings": ...}, 0.8125, None),
        ({"time": 1e300, "timings": {}}, None, None),
    ],
)
def test_durations_of_a_stream(changes: dict[str, Any], duration: float | None, first: float | None) -> None:
    timings = {"blocked": 1, "dns": -1, "connect": -1, "ssl": 40, "send": 0.5, "wait": 600, "receive": 211}
    merged = {"timings": timings, "response__content__text": EVENTS.decode(), **changes}
    [outcome] = read(entry(**merged))
    call = form(outcome)
    assert (call.get("duration_s"), call.get("time_to_first_token_s")) == (duration, first)


def test_ids_are_stable_and_tell_entries_apart() -> None:
    weak = entry(response__content__text=wire.dump(wire.chat_completion(id="chatcmpl-1")).decode())
    later = {**weak, "startedDateTime": "2026-11-23T10:00:01Z"}
    first = [form(outcome)["id"] for outcome in read(weak, later, weak)]
    again = [form(outcome)["id"] for outcome in read(weak, later, weak)]
    assert first == again
    assert len(set(first)) == 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"  \n", "the file is empty"),
        (b"\xff\xfe\x00", "it is not JSON"),
        (b"<html>", "it is not JSON"),
        (b'{"log": {"entries": [', "it is not JSON"),
        (b"[" * 100_000, "it is nested too deep"),
        (b"[]", "it has no log.entries"),
        (b'{"log": []}', "it has no log.entries"),
        (b'{"log": {"entries": {}}}', "it has no log.entries"),
    ],
)
def test_files_that_are_no_archive(data: bytes, reason: str) -> None:
    with pytest.raises(ArchiveError) as caught:
        har.read(data, ReadingRules())
    assert caught.value.reason.startswith(reason)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(encoding: str) -> None:
    data = archive(entry()).decode().encode(encoding)
    assert len(list(har.read(data, ReadingRules()))) == 1


def test_lone_surrogates_in_an_export() -> None:
    odd = entry(response__content__text=ANSWER.decode().replace("gpt-test-2026", "m\ud800"))
    odd["request"]["headers"].append({"name": "openai-project", "value": "p\udfff"})
    [outcome] = read(odd)
    assert isinstance(outcome, Recognised)
    outcome.call.SerializeToString()
    assert outcome.call.origin.project == "p?"


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.har"
    path.write_bytes(archive(entry(), entry()))
    assert len(list(har.read_file(path, ReadingRules()))) == 2
