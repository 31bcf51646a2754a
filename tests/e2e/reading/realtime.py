"""A realtime session as OpenAI holds it, by the `websockets` library: two responses, deflated messages."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.provider.certificates import Certificates
from tests.e2e.reading.answers import SENTENCE, Read
from websockets.sync.server import ServerConnection, serve

ASKED, ANSWERED = "gpt-realtime", "gpt-realtime-2025-08-28"


def _usage(heard: tuple[int, int], cached: tuple[int, int], said: tuple[int, int]) -> dict[str, Any]:
    """Of text and sound each, what came in, what of it was cached, and what went out."""
    (text, sound), (cached_text, cached_sound), (written, spoken) = heard, cached, said
    return {
        "total_tokens": text + sound + written + spoken,
        "input_tokens": text + sound,
        "output_tokens": written + spoken,
        "input_token_details": {
            "text_tokens": text,
            "audio_tokens": sound,
            "image_tokens": 0,
            "cached_tokens": cached_text + cached_sound,
            "cached_tokens_details": {
                "text_tokens": cached_text,
                "audio_tokens": cached_sound,
                "image_tokens": 0,
            },
        },
        "output_token_details": {"text_tokens": written, "audio_tokens": spoken},
    }


_USAGES = (
    _usage((241, 251), (0, 0), (257, 263)),
    _usage((269, 271), (3, 131), (277, 281)),
)
READ = tuple(
    Read("openai", "chat", ASKED, ANSWERED, True, buckets)
    for buckets in (
        {"input": 241, "input_audio": 251, "output": 257, "output_audio": 263},
        {
            "input": 269 - 3,
            "input_audio": 271 - 131,
            "input_cache_read": 3,
            "input_audio_cache_read": 131,
            "output": 277,
            "output_audio": 281,
        },
    )
)


def _session(connection: ServerConnection) -> None:
    """Answers each `response.create` in turn; the client closes."""

    def send(kind: str, **fields: Any) -> None:
        connection.send(json.dumps({"type": kind, "event_id": "event_1", **fields}))

    send("session.created", session={"type": "realtime", "model": ANSWERED, "instructions": SENTENCE * 99})
    usages = iter(_USAGES)
    for message in connection:
        if json.loads(message)["type"] != "response.create":
            continue
        usage = next(usages)
        response = {"id": f"resp_E{usage['total_tokens']}q2w3e4r5t6z7u8i9o0", "object": "realtime.response"}
        send("response.created", response={**response, "status": "in_progress", "usage": None})
        for _ in range(5):
            send("response.output_audio.delta", delta="QUJD" * 1000)
        send("response.done", response={**response, "status": "completed", "usage": usage})


@contextmanager
def realtime_server(certificates: Certificates) -> Iterator[int]:
    """Its port on 127.0.0.1, until the end of the block."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.chain, certificates.key)
    with serve(_session, "127.0.0.1", 0, ssl=context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield int(server.socket.getsockname()[1])
        finally:
            server.shutdown()
            thread.join()
