"""Durable delivery from a daemon to the pipeline: spool, HTTP client, sender. Shared by sensor and router.

The client for Kafka is in mmproto.kafka, for those who have its library.
"""

from __future__ import annotations

from mmproto.delivery.errors import (
    DeliveryError,
    PostError,
    Rejected,
    Retry,
    SpoolFull,
    SpoolUnavailable,
)
from mmproto.delivery.ingest_client import IngestClient, Receipt
from mmproto.delivery.records import SCHEMA_VERSION, batch_body, call_record, decision_record
from mmproto.delivery.sender import Client, Sender, SenderStatistics
from mmproto.delivery.spool import Spool, SpoolStatistics
from mmproto.delivery.token import TOKEN_FILE, ensure_token, read_token

__all__ = [
    "SCHEMA_VERSION",
    "TOKEN_FILE",
    "Client",
    "DeliveryError",
    "IngestClient",
    "PostError",
    "Receipt",
    "Rejected",
    "Retry",
    "Sender",
    "SenderStatistics",
    "Spool",
    "SpoolFull",
    "SpoolStatistics",
    "SpoolUnavailable",
    "batch_body",
    "call_record",
    "decision_record",
    "ensure_token",
    "read_token",
]
