"""Posts batches to the pipeline over HTTP/1.1 with the standard library: `POST /v1/ingest`.

One connection is kept alive between posts. A connection that the pipeline closed while it was idle costs
one silent new attempt; this cannot double anything, because every call is known by its id.

The status decides whose fault a refusal is. 400, 413 and 422 are the batch's own, for ever (`Rejected`).
Everything else, a wrong path and a wrong token included, is mended at the other end or in the
configuration, so the batch waits (`Retry`): records are only ever discarded for what is in them.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mmproto.delivery.errors import Rejected, Retry
from mmproto.delivery.records import batch_body
from mmproto.delivery.token import read_token

CONTENT_TYPE = "application/x-protobuf"
_REJECTIONS = frozenset({400, 413, 422})
# An acknowledgement names at most a few thousand rejected ids; more than this is not our pipeline.
_MAX_ANSWER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the pipeline did with a batch. `rejected` maps ids of items to reasons."""

    accepted: int
    duplicates: int
    rejected: dict[str, str] = field(default_factory=dict)


class IngestClient:
    """Posts records to one pipeline. Not for use by several threads at once.

    `url` is the pipeline's base (http://127.0.0.1:8780); a callable is asked before each connection, for a
    pipeline whose port is only known once it runs. The token is read anew after a 401.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        node: str,
        token_file: Path | None,
        *,
        timeout_s: float = 10.0,
    ) -> None:
        self._url = url if callable(url) else lambda: url
        self._node = node
        self._token_file = token_file
        self._timeout_s = timeout_s
        self._token: str | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._target = ""

    def post(self, records: Sequence[bytes]) -> Receipt:
        """Sends one batch and returns what the pipeline made of it. Raises Retry or Rejected."""
        body = batch_body(self._node, records)
        headers = {"Content-Type": CONTENT_TYPE}
        if token := self._current_token():
            headers["Authorization"] = f"Bearer {token}"
        fresh = self._connection is None
        try:
            status, reply_headers, answer = self._exchange(body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if fresh or isinstance(error, TimeoutError):
                raise _unreachable(error) from error
            return self.post(records)
        return self._receipt(status, reply_headers, answer)

    def close(self) -> None:
        """Closes the connection; the next post opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = self._connection or self._connect()
        self._connection = connection
        connection.request("POST", self._target, body, headers)
        reply = connection.getresponse()
        answer = reply.read(_MAX_ANSWER_BYTES)
        if reply.length:
            raise http.client.IncompleteRead(answer, reply.length)
        if reply.will_close or not reply.isclosed():
            self.close()
        return reply.status, reply.headers, answer

    def _connect(self) -> http.client.HTTPConnection:
        url = self._url()
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise Retry(
                "bad_url", f"the pipeline's URL {url!r} is not one; expected e.g. http://127.0.0.1:8780"
            )
        self._target = parts.path.rstrip("/") + "/v1/ingest"
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(parts.hostname, port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(parts.hostname, port, timeout=self._timeout_s)

    def _current_token(self) -> str:
        if self._token is None and self._token_file is not None:
            try:
                self._token = read_token(self._token_file) or None
            except OSError as error:
                raise Retry("no_token", f"the token file {self._token_file}: {error.strerror}") from error
        return self._token or ""

    def _receipt(self, status: int, headers: http.client.HTTPMessage, answer: bytes) -> Receipt:
        if 200 <= status < 300:
            return _read_receipt(answer)
        shown = answer[:200].decode("utf-8", "replace").replace("\n", " ")
        if status in _REJECTIONS:
            raise Rejected(f"http_{status}", f"the pipeline refused the batch with {status}: {shown}")
        if status in (401, 403):
            self._token = None
            raise Retry(
                "unauthorized",
                f"the pipeline does not accept our token ({status}); {self._token_file} must hold the same "
                "token as the pipeline's",
            )
        raise Retry(f"http_{status}", f"the pipeline answered {status}: {shown}", _retry_after(headers))


def _read_receipt(answer: bytes) -> Receipt:
    try:
        form = json.loads(answer)
        rejected = {str(item["id"]): str(item["reason"]) for item in form.get("rejected", ())}
        return Receipt(int(form["accepted"]), int(form["duplicates"]), rejected)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # 2xx from something that is not the pipeline (a proxy's page) acknowledges nothing.
        raise Retry(
            "not_a_receipt", "the address answered, but not as a ModelMeter pipeline does; check the URL"
        ) from error


def _retry_after(headers: http.client.HTTPMessage) -> float | None:
    """Seconds that the pipeline asked to wait; its HTTP-date form is not used by it and not read."""
    try:
        return min(max(float(headers.get("Retry-After", "")), 0.0), 3600.0)
    except ValueError:
        return None


def _unreachable(error: Exception) -> Retry:
    if isinstance(error, TimeoutError):
        return Retry("timeout", "the pipeline did not answer in time")
    if isinstance(error, ConnectionRefusedError):
        return Retry("refused", "nothing listens at the pipeline's address; is mmpipeline running?")
    if isinstance(error, ssl.SSLError):
        return Retry("tls", f"no TLS connection to the pipeline: {error.reason or error}")
    if isinstance(error, http.client.HTTPException):
        return Retry("broken_answer", f"the pipeline's answer broke off: {type(error).__name__}")
    return Retry("unreachable", f"the pipeline cannot be reached: {error}")
