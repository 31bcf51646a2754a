"""xAI's gRPC API by grpcio, as xai-sdk calls it: an answer and a stream. Arguments: HOST:PORT, how often.

After each round but the last it waits for a line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc

HOST = "api.x.ai"
# GetCompletionsRequest: messages = 1 {content = 1 {text = 1}, role = 2 ROLE_USER}, model = 2
TEXT = b"Name a prime above nine."
CONTENT = bytes((0x0A, len(TEXT))) + TEXT
MESSAGE = bytes((0x0A, len(CONTENT))) + CONTENT + b"\x10\x01"
MODEL = b"grok-4-fast-reasoning"
REQUEST = bytes((0x0A, len(MESSAGE))) + MESSAGE + bytes((0x12, len(MODEL))) + MODEL


def same(message: bytes) -> bytes:
    return message


credentials = grpc.ssl_channel_credentials(Path(os.environ["SSL_CERT_FILE"]).read_bytes())
options = [
    ("grpc.ssl_target_name_override", HOST),
    ("grpc.default_authority", HOST),
    ("grpc.enable_http_proxy", 0),
]
metadata = (("authorization", "Bearer xai-test"),)
with grpc.secure_channel(sys.argv[1], credentials, options) as channel:
    whole = channel.unary_unary("/xai_api.Chat/GetCompletion", same, same)
    streamed = channel.unary_stream("/xai_api.Chat/GetCompletionChunk", same, same)
    for left in reversed(range(int(sys.argv[2]))):
        assert whole(REQUEST, metadata=metadata)
        packed = streamed(REQUEST, metadata=metadata, compression=grpc.Compression.Gzip)
        assert len(list(packed)) == 2
        if left:
            print("round", flush=True)
            sys.stdin.readline()
