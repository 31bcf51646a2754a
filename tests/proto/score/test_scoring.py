"""A record whose reading depends on how it was sent is told as unstable."""

from __future__ import annotations

from dataclasses import replace

from tests.proto.score.records import chat, record

from mmproto.score.folder import EVERY_CODING, EVERY_FRAMING
from mmproto.score.observed import Observed
from mmproto.score.replay import Cut
from mmproto.score.report import Report
from mmproto.score.scoring import Score, Verdict, _changes
from mmproto.score.variants import Variant, variants_of

SEEN = Observed("call", calls=1, providers=("openai",), qualities=("EXACT",))


def test_results_are_compared_field_by_field() -> None:
    other = replace(SEEN, billable=True, tokens=SEEN.tokens | {"input_tokens": 3})
    assert _changes(SEEN, replace(SEEN)) == []
    assert [tuple(one) for one in _changes(SEEN, other)] == [
        ("billable", True, False),
        ("input_tokens", 3, None),
    ]


def test_an_unstable_record_is_no_pass() -> None:
    way = Variant("h2", "gzip", Cut.RANDOM)
    [change] = _changes(SEEN, replace(SEEN, outcome="failed: x"))
    unstable = Score(record(), Verdict.UNSTABLE, SEEN, (), 2, ((way, change),))
    report = Report([unstable])
    assert not report.passed and report.total.rate == 0
    assert report.reasons() == {"unstable: over h2/gzip (openai)": 1}
    assert any("h2/gzip/random: outcome failed: x, first call" in line for line in report.lines(details=True))
    # An ambiguous record has no right answer, but it has one answer.
    assert not Report([replace(unstable, record=record(chat(ambiguous=True)))]).passed


def test_every_framing_and_coding_is_tried() -> None:
    ways = variants_of(record(), EVERY_FRAMING, EVERY_CODING)
    assert ways[0] == Variant("length", "identity", Cut.WHOLE)
    assert {(way.framing, way.coding) for way in ways} == {
        (framing, coding) for framing in ("length", "chunked", "close", "h2") for coding in EVERY_CODING
    }
    assert {way.cut for way in ways} == set(Cut)


def test_a_cut_off_body_is_not_ended_by_the_close() -> None:
    ways = variants_of(record(chat(more={"aborted": True})), EVERY_FRAMING, EVERY_CODING)
    assert {way.framing for way in ways} == {"length", "chunked", "h2"}
