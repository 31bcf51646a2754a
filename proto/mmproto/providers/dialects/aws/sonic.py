"""Speech on Bedrock (Nova Sonic): frames both ways over one HTTP/2 stream, `{"bytes": base64}` each.

`usageEvent`s count the whole session so far, speech and text apart, so the last one counts.

Source: docs.aws.amazon.com/nova/latest/userguide/output-events.html.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, ClassVar, Final

import orjson

from mmproto.framing.jsonpick import VALUE, Tree
from mmproto.providers.counts import CONTRADICTORY_COUNTS, Counts
from mmproto.providers.dialect import MALFORMED_EVENT, Asked
from mmproto.providers.dialects.aws.bedrock import MODEL, Bedrock
from mmproto.providers.facts import Measured
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL


class BedrockSonic(Bedrock):
    """POST .../model/MODEL/invoke-with-bidirectional-stream"""

    operation: ClassVar[str] = "chat"
    response_tree: ClassVar[Tree] = {"__type": VALUE}
    event_tree: ClassVar[Tree] = {"bytes": VALUE}

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._usage: dict[str, Any] = {}

    def read_response(self, document: Any) -> None:
        """Takes an error, which a header names."""

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a frame; all but a few are sound."""
        data = document.get("bytes")
        try:
            chunk = base64.b64decode(data if isinstance(data, str) else b"")
            if b'"usageEvent"' not in chunk and b'"completionEnd"' not in chunk:
                return
            found = orjson.loads(chunk)
        except (binascii.Error, ValueError):
            self.facts.anomaly(MALFORMED_EVENT)
            return
        event = found.get("event") if isinstance(found, dict) else None
        if not isinstance(event, dict):
            return
        self.facts.response_shaped = True
        if isinstance(event.get("usageEvent"), dict):
            self._usage = event["usageEvent"]
        self.facts.terminated = self.facts.terminated or "completionEnd" in event

    def measured(self, *, complete: bool) -> Measured:
        """The totals of the session."""
        counts = Counts(self.facts)
        details = self._usage.get("details")
        total = details.get("total") if isinstance(details, dict) else None
        total = total if isinstance(total, dict) else {}
        asked, answered = total.get("input"), total.get("output")
        found = {
            "input": counts.get(asked, "textTokens"),
            "input_audio": counts.get(asked, "speechTokens"),
            "output": counts.get(answered, "textTokens"),
            "output_audio": counts.get(answered, "speechTokens"),
        }
        tokens = {bucket: count for bucket, count in found.items() if count is not None}
        whole = counts.get(self._usage, "totalTokens")
        if not tokens:
            return Measured()
        if whole is not None and whole != sum(tokens.values()):
            counts.doubt(CONTRADICTORY_COUNTS)
        exact = len(tokens) == len(found) and self.facts.terminated and counts.sound
        return Measured(tokens, {}, QUALITY_EXACT if exact else QUALITY_PARTIAL)


ROUTES: Final = (Route(rf"{MODEL}/invoke-with-bidirectional-stream", BedrockSonic),)
