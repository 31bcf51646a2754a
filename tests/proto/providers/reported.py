"""What a call says that the provider told, our own estimates left out."""

from __future__ import annotations

from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import Quality

E, P, U = Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL, Quality.QUALITY_UNKNOWN


def reported(call: Call) -> tuple[dict[str, int], int]:
    """Buckets that are no estimate, and the quality that they have alone."""
    tokens = {bucket: n for bucket, n in call.usage.tokens.items() if bucket not in call.usage.estimated}
    if not call.usage.estimated:
        return tokens, call.usage.quality
    return tokens, P if tokens else U
