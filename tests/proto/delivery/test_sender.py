"""From the spool to a pipeline that is down, slow, broken or picky: everything arrives once, or is named."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.proto.delivery.pipeline import TOKEN, Pipeline, running_pipeline

from mmproto.delivery import IngestClient, Rejected, Retry, Sender, Spool, call_record, ensure_token
from mmproto.delivery.sender import MAX_REJECTS_IN_A_ROW
from mmproto.v1.call_pb2 import Call


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    with running_pipeline(Pipeline()) as running:
        yield running


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "s.sqlite", 1 << 20)
    yield spool
    spool.close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    return file


def _fill(spool: Spool, count: int, start: int = 0) -> list[str]:
    ids = [f"call-{number}" for number in range(start, start + count)]
    spool.append([call_record(Call(id=each, provider="openai")) for each in ids])
    return ids


def _sender(
    spool: Spool, pipeline: Pipeline, token: Path, timeout_s: float = 5.0, batch_records: int = 2000
) -> Sender:
    client = IngestClient(pipeline.url, "node-1", token, timeout_s=timeout_s)
    return Sender(spool, client, jitter=lambda: 1.0, batch_records=batch_records)


def test_batches_arrive_and_leave_the_spool(spool: Spool, pipeline: Pipeline, token: Path) -> None:
    ids = _fill(spool, 25)
    sender = _sender(spool, pipeline, token, batch_records=10)
    assert [sender.step() for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
    assert pipeline.known == set(ids)
    assert [len(post) for post in pipeline.posts] == [10, 10, 5]
    assert len(pipeline.connections) == 1, "the connection is kept"
    assert (len(spool), sender.statistics().delivered) == (0, 25)
    sender.stop(0)


def test_a_pipeline_that_is_down_is_waited_for(spool: Spool, token: Path) -> None:
    with running_pipeline(Pipeline()) as gone:
        pass
    _fill(spool, 3)
    sender = _sender(spool, gone, token)
    assert [sender.step() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    statistics = sender.statistics()
    assert (len(spool), statistics.retries, statistics.failures_in_a_row) == (3, {"refused": 9}, 9)
    assert "is mmpipeline running?" in statistics.last_error
    sender.stop(0)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [(500, "http_500"), (503, "http_503"), (404, "http_404"), ("cut", "broken_answer"), ("hang", "timeout")],
)
def test_trouble_keeps_the_records_and_is_named(
    spool: Spool, pipeline: Pipeline, token: Path, behaviour: str | int, reason: str
) -> None:
    ids = _fill(spool, 3)
    pipeline.script.append(behaviour)
    sender = _sender(spool, pipeline, token, timeout_s=0.3)
    assert sender.step() == 0.5
    assert (len(spool), sender.statistics().retries) == (3, {reason: 1})
    assert sender.step() == 0.0
    assert (len(spool), pipeline.known) == (0, set(ids))
    assert sender.statistics().failures_in_a_row == 0
    sender.stop(0)


def test_a_pause_that_is_asked_for_is_kept(spool: Spool, pipeline: Pipeline, token: Path) -> None:
    _fill(spool, 1)
    pipeline.script.append(503)
    pipeline.retry_after = "7"
    sender = _sender(spool, pipeline, token)
    assert sender.step() == 7.0
    sender.stop(0)


def test_a_reset_after_booking_doubles_nothing(spool: Spool, pipeline: Pipeline, token: Path) -> None:
    ids = _fill(spool, 5)
    pipeline.script.append("reset")
    sender = _sender(spool, pipeline, token)
    while len(spool):
        sender.step()
    assert pipeline.known == set(ids)
    assert [sorted(post) for post in pipeline.posts] == [ids, ids]
    assert (sender.statistics().accepted, sender.statistics().duplicates) == (0, 5)
    sender.stop(0)


def test_a_kept_connection_that_the_pipeline_closed_costs_no_failure(
    spool: Spool, pipeline: Pipeline, token: Path
) -> None:
    sender = _sender(spool, pipeline, token)
    _fill(spool, 1)
    sender.step()
    pipeline.script.append("reset")
    _fill(spool, 1, start=1)
    assert sender.step() == 0.0
    assert sender.statistics().retries == {}
    assert pipeline.known == {"call-0", "call-1"}
    sender.stop(0)


@pytest.mark.parametrize("positions", [[0], [6], [12], [3, 4], list(range(13))])
def test_poison_is_isolated_and_all_others_arrive(
    spool: Spool, pipeline: Pipeline, token: Path, positions: list[int]
) -> None:
    ids = _fill(spool, 13)
    pipeline.poison = {ids[position] for position in positions}
    sender = _sender(spool, pipeline, token)
    while len(spool):
        sender.step()
    assert pipeline.known == set(ids) - pipeline.poison
    assert sender.statistics().rejected == {"http_400": len(positions)}
    assert len(spool.rejected()) == len(positions)
    sender.stop(0)


def test_a_pipeline_that_refuses_everything_does_not_empty_the_spool(
    spool: Spool, pipeline: Pipeline, token: Path
) -> None:
    ids = _fill(spool, 60)
    pipeline.poison = set(ids)
    sender = _sender(spool, pipeline, token)
    assert sender.step() == 0.5
    assert len(spool) == 60 - MAX_REJECTS_IN_A_ROW
    assert sender.statistics().retries == {"rejects_everything": 1}
    pipeline.poison = set()
    sender.step()
    assert (len(spool), len(pipeline.known)) == (0, 60 - MAX_REJECTS_IN_A_ROW)
    sender.stop(0)


def test_items_refused_in_an_answer_are_set_aside(spool: Spool, pipeline: Pipeline, token: Path) -> None:
    _fill(spool, 4)
    pipeline.refuse_in_answer = {"call-2": "bad_tokens"}
    sender = _sender(spool, pipeline, token)
    sender.step()
    assert (len(spool), sender.statistics().rejected) == (0, {"bad_tokens": 1})
    assert sender.statistics().delivered == 3
    assert [reason for _, reason, _ in spool.rejected()] == ["bad_tokens"]
    sender.stop(0)


def test_a_wrong_token_waits_and_a_corrected_one_is_read(
    spool: Spool, pipeline: Pipeline, token: Path
) -> None:
    _fill(spool, 2)
    token.write_text("wrong")
    sender = _sender(spool, pipeline, token)
    sender.step()
    assert sender.statistics().retries == {"unauthorized": 1}
    assert str(token) in sender.statistics().last_error
    token.write_text(TOKEN)
    sender.step()
    assert len(pipeline.known) == 2
    sender.stop(0)


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'{"accepted": 1}', b'"x"'])
def test_an_answer_that_is_no_receipt_acknowledges_nothing(
    spool: Spool, pipeline: Pipeline, token: Path, answer: bytes
) -> None:
    _fill(spool, 1)
    pipeline.answer = lambda: answer
    sender = _sender(spool, pipeline, token)
    sender.step()
    assert (len(spool), sender.statistics().retries) == (1, {"not_a_receipt": 1})
    sender.stop(0)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8780", "ftp://x", "http://", "http://x:0", "http://x:port"])
def test_a_url_that_is_none_is_said_so(url: str) -> None:
    with pytest.raises(Retry, match=r"expected e\.g\. http://127.0.0.1:8780"):
        IngestClient(url, "n", None).post([])


def test_a_client_alone_says_what_became_of_a_batch(pipeline: Pipeline, token: Path) -> None:
    client = IngestClient(lambda: pipeline.url + "/", "n", token)
    assert client.post([call_record(Call(id="a")), call_record(Call(id="b"))]).accepted == 2
    pipeline.poison = {"c"}
    with pytest.raises(Rejected, match="refused the batch with 400"):
        client.post([call_record(Call(id="c"))])
    client.close()


def test_the_thread_delivers_and_flushes_when_stopped(spool: Spool, pipeline: Pipeline, token: Path) -> None:
    sender = _sender(spool, pipeline, token)
    sender.start()
    for start in range(0, 30, 3):
        _fill(spool, 3, start)
        sender.wake()
    sender.stop(flush_s=30)
    assert (len(spool), len(pipeline.known)) == (0, 30)


def test_stopping_with_the_pipeline_away_keeps_the_records(spool: Spool, token: Path) -> None:
    with running_pipeline(Pipeline()) as gone:
        pass
    sender = _sender(spool, gone, token)
    sender.start()
    _fill(spool, 2)
    sender.wake()
    sender.stop(flush_s=30)
    assert len(spool) == 2


def test_the_token_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ingest.token"
    token = ensure_token(path)
    assert len(token) >= 32
    assert ensure_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["ingest.token"]  # noqa: PTH208
    path.write_text("")
    assert ensure_token(path) not in ("", token)
