"""Real exchanges, field by field: every one in scope is right, and none out of scope becomes a wrong call.

Each recording is read as an archive, and as bytes of a connection, framed and compressed anew.
"""

from __future__ import annotations

import pytest
from tests.proto.corpus.recordings import as_archive, in_scope, load

from mmproto import har
from mmproto.exchange import ReadingRules
from mmproto.score.compare import differences
from mmproto.score.observed import observe
from mmproto.score.record import Record
from mmproto.score.scoring import Verdict, score

pytestmark = pytest.mark.corpus

RECORDINGS = load()
IN_SCOPE = [record for record in RECORDINGS if in_scope(record) and not record.expected.ambiguous]
OUT_OF_SCOPE = [record for record in RECORDINGS if not in_scope(record)]
FRAMINGS = frozenset({"length", "chunked", "close"})
CODINGS = frozenset({"identity", "gzip", "deflate"})


@pytest.mark.parametrize("record", IN_SCOPE, ids=lambda record: record.name)
def test_archive(record: Record) -> None:
    assert differences(observe([*har.read(as_archive(record), ReadingRules())], record), record) == []


@pytest.mark.parametrize("record", IN_SCOPE, ids=lambda record: record.name)
def test_connection(record: Record) -> None:
    scored = score(record, FRAMINGS, CODINGS, seed=0)
    assert scored is not None
    assert (scored.verdict, scored.differences, scored.unstable) == (Verdict.EXACT, (), ())


@pytest.mark.parametrize("record", OUT_OF_SCOPE, ids=lambda record: record.name)
def test_out_of_scope_is_never_a_wrong_call(record: Record) -> None:
    scored = score(record, frozenset({"length"}), frozenset({"identity"}), seed=0)
    assert scored is not None
    assert not scored.wrong_as_exact or record.expected.ambiguous
    assert scored.verdict is not Verdict.FALSE
