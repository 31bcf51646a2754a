"""The thread that asks the pipeline for budgets and prices.

It asks every second, and at once after the pipeline has taken records: so spending that another router or
a sensor reported is seen within about a second, and the router's own calls are counted in one place or the
other at every moment. Acknowledged calls are collected BEFORE the question is sent; only these are certain
to be in the answer.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from mmproto.delivery.token import read_token
from mmproto.rateform import book_from_json
from mmrouter.config import RouterSettings
from mmrouter.policy.ledger import Reflected
from mmrouter.policy.state import Known, Learn, LearnPrices, NotAState, read_state

_LOG = logging.getLogger(__name__)

# Acknowledgements come many times a second under load; the question is not asked more often than this.
_LEAST_GAP_S = 0.1
_MAX_ANSWER_BYTES = 64 << 20


class PipelineAway(Exception):
    """The pipeline gave no usable answer. str() is one line for a person."""


class PipelineClient:
    """GET with the ingest token, over one kept connection. For one thread."""

    def __init__(self, settings: RouterSettings) -> None:
        self._settings = settings
        self._connection: http.client.HTTPConnection | None = None

    def get(self, path: str) -> Any:
        """The JSON at `path`. Raises PipelineAway."""
        fresh = self._connection is None
        try:
            return self._get(path)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if fresh or isinstance(error, TimeoutError):
                raise PipelineAway(
                    f"{self._settings.pipeline_url()} does not answer: {_short(error)}"
                ) from None
        return self.get(path)  # a kept connection that had died: once more over a new one

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _get(self, path: str) -> Any:
        if self._connection is None:
            self._connection = self._connect()
        token = read_token(self._settings.token_file)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection.request("GET", path, headers=headers)
        reply = self._connection.getresponse()
        body = reply.read(_MAX_ANSWER_BYTES)
        if reply.will_close or not reply.isclosed():
            self.close()
        if reply.status in (401, 403):
            raise PipelineAway(
                f"the pipeline does not accept our token ({reply.status}); {self._settings.token_file} must "
                "hold the same token as the pipeline's"
            )
        if reply.status != 200:
            raise PipelineAway(f"the pipeline answered {reply.status} to {path}")
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise PipelineAway("the address answered, but not as a ModelMeter pipeline does") from None

    def _connect(self) -> http.client.HTTPConnection:
        url = self._settings.pipeline_url()
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PipelineAway(f"the pipeline's URL {url!r} is not one; expected e.g. http://127.0.0.1:8780")
        timeout = self._settings.pipeline.timeout_s
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=context)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)


class Poller(threading.Thread):
    """A `Source` that asks the pipeline's API."""

    def __init__(
        self,
        client: PipelineClient,
        providers: Sequence[str],
        interval_s: float,
        *,
        acknowledged: Callable[[], list[str]],
        learn: Learn,
        learn_prices: LearnPrices,
        cards_version: str,
    ) -> None:
        super().__init__(name="poller", daemon=True)
        self._client = client
        self._cards_path = "/v1/rate-cards?provider=" + quote(",".join(dict.fromkeys(providers)), safe=",")
        self._interval_s = interval_s
        self._acknowledged = acknowledged
        self._learn = learn
        self._learn_prices = learn_prices
        self._cards_version = cards_version
        self._reflected: list[str] = []
        self._signal = threading.Event()
        self._stopping = threading.Event()
        self.last_error = ""
        self.unreadable = 0

    def first(self) -> None:
        self.poll()

    def run(self) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            self.poll()
            if self._stopping.wait(_LEAST_GAP_S):
                break
            self._signal.wait(max(0.0, self._interval_s - (time.monotonic() - started)))
            self._signal.clear()
        self._client.close()

    def wake(self) -> None:
        """Ask at once: the pipeline has taken records."""
        self._signal.set()

    def stop(self) -> None:
        self._stopping.set()
        self._signal.set()
        self.join()

    def poll(self) -> bool:
        """Ask once. True where the pipeline answered."""
        self._reflected += self._acknowledged()
        try:
            form = self._client.get("/v1/router/state")
            state = read_state(form)
            if state.rate_cards_version != self._cards_version:
                self._fetch_cards(state.rate_cards_version)
        except NotAState as problem:
            self.unreadable += 1
            return self._failed(str(problem))
        except PipelineAway as problem:
            return self._failed(str(problem))
        except Exception as error:
            # The thread must outlive anything: a dead poller is a router that enforces yesterday's budgets.
            _LOG.exception("asking the pipeline failed in a way that was not foreseen")
            return self._failed(f"internal error: {type(error).__name__}")
        if self.last_error:
            _LOG.info("the pipeline answers again")
        self.last_error = ""
        reflected, self._reflected = self._reflected, []
        self._learn(Known(state, Reflected(ids=frozenset(reflected))))
        return True

    def _failed(self, message: str) -> bool:
        if message != self.last_error:
            _LOG.warning("budgets are not up to date: %s", message)
        self.last_error = message
        return False

    def _fetch_cards(self, version: str) -> None:
        form = self._client.get(self._cards_path)
        try:
            book = book_from_json(form)
        except (KeyError, TypeError, ValueError) as error:
            raise NotAState(f"the pipeline's rate cards are not understood ({error})") from None
        self._learn_prices(book, form)
        self._cards_version = version


def _short(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; is mmpipeline running?"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
