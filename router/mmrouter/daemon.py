"""The running router: builds the parts, wires them together, and ends them in order.

Start: copies of the last state and the spool are read first, so that money spent before a crash is known
again before the first call is let in. Stop: no new request, calls in flight are finished (for `drain_s`),
then records are made durable, then delivered as far as that goes quickly.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from mmproto.delivery.errors import DeliveryError, SpoolUnavailable
from mmproto.delivery.ingest_client import IngestClient
from mmproto.delivery.sender import Client, Sender
from mmproto.delivery.spool import Spool
from mmproto.delivery.token import ensure_token
from mmproto.estimation import tokenizer
from mmproto.exchange import ReadingRules
from mmproto.exits import Exit
from mmproto.kafka.connection import kafka_needed, settings_taken
from mmproto.ratebook import RateBook
from mmproto.rateform import book_from_json
from mmproto.v1.call_pb2 import Call
from mmproto.v1.ingest_pb2 import IngestBatch
from mmrouter import config
from mmrouter.config import RouterSettings
from mmrouter.dialects import Dialect
from mmrouter.ids import new_id
from mmrouter.keys import KeyRing
from mmrouter.policy.gate import Gate, OnLoss, Rules, Unpriced
from mmrouter.policy.ledger import Entry, Ledger, Place, Who
from mmrouter.policy.poller import PipelineClient, Poller
from mmrouter.policy.prices import Assumptions, Prices
from mmrouter.policy.state import Copies, Known, Source
from mmrouter.records import Acknowledged, Records
from mmrouter.server.client import ClientConnection, ClientLimits
from mmrouter.server.counts import Counts
from mmrouter.server.frontdoor import FrontDoor
from mmrouter.server.pages import Pages
from mmrouter.server.relay import Desk, Upstream
from mmrouter.server.upstream import Pool, UpstreamLimits
from mmrouter.status import Facts, report

_LOG = logging.getLogger(__name__)

_SWEEP_S = 0.25
_FLUSH_S = 2.0
# Records go to the pipeline at most this often. Its thread shares the interpreter with the calls.
_GATHER_S = 0.1
# The spool, the sender and the source of budgets are threads of this process. At the interpreter's default a
# call could wait 5 ms for one of them to give way.
_SWITCH_S = 0.0002
# A call leaves no cycles behind, only objects that are in use for a while: looking for cycles after every
# 700 of them, as the interpreter does, finds nothing and makes some calls wait.
_COLLECT_EVERY = 20_000


class CannotStart(Exception):
    """The router cannot run. str() is one line that says what to do; `exit` is the exit code."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.exit = code


def run(settings: RouterSettings, env: Mapping[str, str], version: str) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError or CannotStart."""
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(_COLLECT_EVERY, 10, 10)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, env, version))


async def _serve(settings: RouterSettings, env: Mapping[str, str], version: str) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        router = Router(settings, env, version, loop)
    except SpoolUnavailable as error:
        raise CannotStart(str(error), Exit.PERMISSION if error.permission else Exit.UNHEALTHY) from None
    except DeliveryError as error:
        raise CannotStart(str(error), Exit.UNHEALTHY) from None
    try:
        await router.start()
        await stop.wait()
    finally:
        await router.stop()


class Router:
    """All parts of one router."""

    def __init__(
        self, settings: RouterSettings, env: Mapping[str, str], version: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._settings = settings
        self._version = version
        self._loop = loop
        self._started = time.monotonic()
        self._tls = config.listener_tls(settings)
        keys = KeyRing(config.virtual_keys(settings))
        providers = config.providers(settings, env)
        self._copies = Copies(_folder(settings.folder))
        ensure_token(settings.token_file)
        self._assume = Assumptions(
            settings.budgets.bytes_per_token,
            settings.budgets.max_input_tokens,
            settings.budgets.max_output_tokens,
        )
        self._gate = Gate(
            Ledger(must_fit=settings.budgets.admission == "must_fit"),
            Rules(
                OnLoss(settings.budgets.on_pipeline_loss),
                Unpriced(settings.budgets.unpriced_models),
                settings.pipeline.state_max_age_s,
                settings.limits.hold_bytes,
            ),
            time.time_ns,
            time.monotonic,
        )
        self._keys = len(keys)
        self._counts = Counts()
        self._spool = Spool(settings.folder / "spool.sqlite", settings.spool.max_bytes)
        self._recover()
        self._uncounted: list[tuple[Call, Place]] = []
        client: Client
        self._source: Source
        names = [p.provider for p in providers]
        if settings.kafka.brokers:
            client, self._source = self._over_kafka(keys.tenants, names)
        else:
            client, self._source = self._over_http(names)
        self._sender = Sender(self._spool, client, gather_s=_GATHER_S)
        self._records = Records(self._spool, self._sender.wake, new_id)
        limits = settings.limits
        pool_limits = UpstreamLimits(
            limits.connect_s, limits.upstream_silence_s, limits.upstream_idle_s, limits.upstream_connections
        )
        self._upstreams: dict[Dialect, Upstream] = {}
        for p in providers:
            pool = Pool(p.endpoint, pool_limits, loop.time)
            # Rules of its own for each: two providers may be behind one host, a gateway's for example.
            reading = ReadingRules(hosts={p.endpoint.authority: p.provider})
            self._upstreams[p.dialect] = Upstream(p.name, p.provider, pool, _credentials(p), reading)
        desk = Desk(
            self._gate,
            self._records,
            self._counts,
            time.time_ns,
            settings.node_name,
        )
        # Half a second, which no call should have to wait for: many streams bring no usage.
        tokenizer.load()
        self._door = FrontDoor(
            desk,
            keys=keys,
            upstreams=self._upstreams,
            limits=ClientLimits(
                limits.head_s,
                limits.idle_s,
                limits.body_idle_s,
                limits.body_total_s,
                limits.stalled_s,
                limits.body_bytes,
            ),
            max_connections=limits.connections,
            pages=Pages(self.status, lambda: len(self._door.connections)),
            clock=loop.time,
            new_id=new_id,
        )
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._address = ""

    async def start(self) -> None:
        """Know the present state, then listen. Raises CannotStart where the port cannot be had."""
        await self._loop.run_in_executor(None, self._source.first)
        for call, place in self._uncounted:
            self._owe(call)
            self._gate.ledger.place(call.id, place)
        self._uncounted.clear()
        listen = self._settings.listen
        try:
            self._server = await self._loop.create_server(
                lambda: ClientConnection(self._door), listen.host, listen.port, ssl=self._tls, backlog=1024
            )
        except OSError as error:
            raise _cannot_listen(error, listen.host, listen.port) from None
        self._records.start()
        self._sender.start()
        self._source.start()
        self._sweep()
        host, port = self._server.sockets[0].getsockname()[:2]
        scheme = "https" if self._tls else "http"
        self._address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        (self._settings.folder / "address").write_text(self._address + "\n")
        # What is here now stays; without this every full collection would walk through all rate cards.
        gc.collect()
        gc.freeze()
        print(f"listening on {self._address}", flush=True)

    async def stop(self) -> None:
        """Finish what is in flight, make records durable, deliver what can be delivered soon."""
        if self._server is None:
            self._spool.close()
            return
        self._server.close()
        self._door.shut_down()
        until = self._loop.time() + self._settings.limits.drain_s
        while self._door.connections and self._loop.time() < until:
            await asyncio.sleep(0.02)
        for connection in list(self._door.connections):
            connection.abort()
        await asyncio.sleep(0)  # lets the connections say goodbye, and their calls be recorded
        for upstream in self._upstreams.values():
            upstream.pool.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._loop.run_in_executor(None, self._end_threads)
        (self._settings.folder / "address").unlink(missing_ok=True)

    def status(self) -> dict[str, Any]:
        """The status document (see mmrouter.status)."""
        gate, spool, sent = self._gate, self._spool.statistics(), self._sender.statistics()
        counts = self._counts
        return report(
            Facts(
                version=self._version,
                node=self._settings.node_name,
                address=self._address,
                uptime_s=time.monotonic() - self._started,
                fail_closed=gate.rules.on_loss is OnLoss.FAIL_CLOSED,
                state_age_s=gate.state_age_s,
                state_lost=gate.lost,
                state_known=gate.known,
                pipeline_error=self._source.last_error,
                unreadable=self._source.unreadable,
                prices=gate.prices.version if gate.prices else "",
                budgets=len(gate.ledger.accounts),
                keys=self._keys,
                pending_calls=gate.ledger.pending_calls,
                unmeasured_calls=gate.unmeasured_calls,
                upstreams={u.name: _upstream_facts(u) for u in self._upstreams.values()},
                spool={
                    "records": spool.records,
                    "payload_bytes": spool.payload_bytes,
                    "max_bytes": spool.max_bytes,
                    "rejected_ever": spool.rejected_ever,
                },
                delivery={
                    "delivered": sent.delivered,
                    "duplicates": sent.duplicates,
                    "rejected": dict(sent.rejected),
                    "retries": dict(sent.retries),
                    "last_error": sent.last_error if sent.failures_in_a_row else "",
                },
                counts={
                    "connections": counts.connections,
                    "calls": counts.calls,
                    "pages": counts.answered,
                    "ended": dict(counts.ended),
                    "refused": dict(counts.refused),
                    "rejected": dict(counts.rejected),
                    "unread": dict(counts.unread),
                    "reader_errors": dict(counts.reader_errors),
                    "dropped": dict(self._records.dropped),
                    "refusals_unrecorded": self._records.suppressed,
                },
            )
        )

    # -- inside

    def _recover(self) -> None:
        """What was known and what was spent when the router last ran."""
        cards = self._copies.load_cards()
        if cards is not None:
            try:
                self._gate.prices = Prices(book_from_json(cards), self._assume)
            except (KeyError, TypeError, ValueError):
                _LOG.warning(
                    "the copy of the rate cards in %s is not readable: ignored", self._settings.folder
                )
        saved = self._copies.load_state()
        if saved is None:
            return
        state, held = saved
        self._gate.restore(state.budgets)
        for entry in held:
            self._gate.ledger.add_held(entry)
        for _, record in self._spool.peek(len(self._spool)):
            for call in IngestBatch.FromString(record).calls:
                self._owe(call)

    def _owe(self, call: Call) -> None:
        """A finished call counts until a state has it."""
        cost = self._gate.prices.cost(call) if call.billable and self._gate.prices else None
        if cost:
            who = Who(call.tenant, call.team, call.application, call.user, call.virtual_key_id)
            entry = Entry(call.id, call.started_at_unix_ns, cost, who, call.request_model)
            self._gate.ledger.add_pending(entry)

    def _over_http(self, providers: Sequence[str]) -> tuple[Client, Source]:
        """Records go to the pipeline's ingest, and its API says the state."""
        settings = self._settings
        client = Acknowledged(
            IngestClient(
                settings.pipeline_url,
                settings.node_name,
                settings.token_file,
                timeout_s=settings.pipeline.timeout_s,
            )
        )
        poller = Poller(
            PipelineClient(settings),
            providers,
            settings.pipeline.poll_s,
            acknowledged=client.drain,
            learn=self._learn,
            learn_prices=self._learn_prices,
            cards_version=self._gate.prices.version if self._gate.prices else "",
        )
        client.taken = poller.wake
        return client, poller

    def _over_kafka(self, tenants: Collection[str], providers: Sequence[str]) -> tuple[Client, Source]:
        """Records go to the topic of calls, and compacted topics say the state.

        Both or neither: what stands in that topic, a state counts by its place there.
        """
        settings = self._settings
        with kafka_needed():
            # The library is not there where Kafka is not used.
            from mmproto.kafka.producer import KafkaClient  # noqa: PLC0415
            from mmrouter.policy.topics import TopicSource  # noqa: PLC0415

        with settings_taken(settings.kafka):
            source = TopicSource(
                settings.kafka,
                f"mmrouter-{settings.node_name}",
                tenants,
                providers,
                first_within_s=settings.pipeline.timeout_s,
                learn=self._learn,
                learn_prices=self._learn_prices,
                uncounted=lambda call, place: self._uncounted.append((call, place)),
            )
        return KafkaClient(settings.kafka, settings.node_name, on_delivered=source.delivered), source

    def _learn(self, known: Known) -> None:
        """From the source's thread."""
        self._loop.call_soon_threadsafe(self._gate.learn, known)
        if known.state is None:
            return
        try:
            self._copies.save_state(known.state, self._gate.ledger.held)
        except OSError as error:
            _LOG.warning("the state of the budgets cannot be kept for a restart: %s", error.strerror)

    def _learn_prices(self, book: RateBook, form: Any) -> None:
        """From the source's thread."""
        self._loop.call_soon_threadsafe(self._set_prices, Prices(book, self._assume))
        try:
            self._copies.save_cards(form)
        except OSError as error:
            _LOG.warning("the rate cards cannot be kept for a restart: %s", error.strerror)

    def _set_prices(self, prices: Prices) -> None:
        self._gate.prices = prices

    def _sweep(self) -> None:
        self._door.sweep()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    def _end_threads(self) -> None:
        self._records.stop()
        self._sender.stop(_FLUSH_S)
        self._source.stop()
        self._spool.close()


def _upstream_facts(upstream: Upstream) -> dict[str, Any]:
    pool = upstream.pool
    return {
        "provider": upstream.provider,
        "host": pool.endpoint.authority,
        "failing": pool.failing,
        "last_error": pool.last_error,
        "open": pool.open,
        "idle": pool.idle,
        "opened": pool.counts.opened,
        "reused": pool.counts.reused,
        "failed": pool.counts.failed,
    }


def _credentials(provider: config.Provider) -> list[tuple[bytes, bytes]]:
    secret = provider.key.reveal().encode("ascii")
    if not secret:
        return []
    if provider.dialect is Dialect.ANTHROPIC:
        return [(b"x-api-key", secret)]
    return [(b"authorization", b"Bearer " + secret)]


def _folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(
            f"the state folder {folder} cannot be made: {error.strerror}; set MODELMETER_STATE_DIR to "
            "a folder this user may write",
            Exit.PERMISSION if isinstance(error, PermissionError) else Exit.UNHEALTHY,
        ) from None
    return folder


def _cannot_listen(error: OSError, host: str, port: int) -> CannotStart:
    if error.errno == errno.EADDRINUSE:
        return CannotStart(
            f"port {port} of {host} is in use; stop what listens there (`ss -ltnp 'sport = :{port}'`) or set "
            "listen.port",
            Exit.UNHEALTHY,
        )
    if error.errno == errno.EACCES:
        return CannotStart(
            f"port {port} needs more rights than this user has; choose one above 1023", Exit.PERMISSION
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return CannotStart(f"cannot listen on {host}:{port}: {reason}; check listen.host", Exit.CONFIGURATION)
