"""A realtime session by the `websockets` library. Arguments: port of the server, number of responses."""

from __future__ import annotations

import json
import os
import ssl
import sys

from websockets.sync.client import connect

port, responses = int(sys.argv[1]), int(sys.argv[2])
with connect(
    "wss://api.openai.com/v1/realtime?model=gpt-realtime",
    ssl=ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]),
    additional_headers={"Authorization": "Bearer sk-test"},
    proxy=None,
    address=("127.0.0.1", port),
) as socket:
    for _ in range(responses):
        for _ in range(3):
            socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "QUJD" * 5000}))
        socket.send(json.dumps({"type": "response.create"}))
        while json.loads(socket.recv())["type"] != "response.done":
            pass
