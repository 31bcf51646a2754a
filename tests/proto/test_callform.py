"""The JSON form of a call holds whatever a writer of another version may have put into it."""

from __future__ import annotations

from mmproto.callform import call_to_json
from mmproto.v1.call_pb2 import Call


def test_enum_numbers_that_nobody_knows_are_read_as_not_reported() -> None:
    # Protobuf keeps numbers that its enum has no name for, as a newer writer would send them.
    call = Call()
    call.MergeFromString(b"\xc0\x01\x4d" + b"\xb2\x01\x02\x18\x63")
    assert (call.observer, call.usage.quality) == (77, 99)
    form = call_to_json(call)
    assert "observer" not in form
    assert form["usage"]["quality"] == "UNKNOWN"
