"""Puts the running sensor together: settings become sink, capture, loop and control server, in that order.

What can fail for reasons outside fails here, before READY, with one line that says what to do: no
permission, no BTF, a state folder that cannot be written, a port in use, another sensor.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mmproto.delivery import IngestClient, Spool, SpoolUnavailable, ensure_token
from mmproto.exchange import ReadingRules
from mmproto.exits import Exit
from mmproto.kafka.connection import kafka_needed
from mmsensor.attribution.keyhash import HASH_KEY_FILE, KeyHash
from mmsensor.attribution.rules import Attribution
from mmsensor.capture.errors import CaptureForbidden, CaptureUnavailable
from mmsensor.capture.kernel import privileges
from mmsensor.capture.options import CaptureOptions, Loader
from mmsensor.capture.session import Capture
from mmsensor.config import SensorSettings, split_address
from mmsensor.control import JSON, PROMETHEUS, TEXT, Answer, ControlServer, ListenError, Routes
from mmsensor.daemon import Daemon, LoopOptions, read_boot_id
from mmsensor.emit.jsonl import JsonLinesSink
from mmsensor.emit.sink import Sink
from mmsensor.emit.spooled import Destination, SpooledSink
from mmsensor.metrics import exposition
from mmsensor.notify import Notifier
from mmsensor.status import Identity, StatusReporter
from mmsensor.version import version

_LOG = logging.getLogger(__name__)


class CannotStart(Exception):
    """The sensor cannot run as things are. The message is one line; `code` is the exit code for it."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code


def run(settings: SensorSettings, only_pids: frozenset[int] | None = None) -> None:
    """Runs the sensor until SIGTERM or SIGINT. `only_pids`: measure these processes and no others.

    Raises CannotStart, ConfigurationError.
    """
    started_ns = time.time_ns()
    notifier = Notifier()
    stop = _StopSignal()
    hash_key = _prepared_folder(settings)
    # The capture first: it is what most machines lack something for, and nothing is open yet to undo.
    capture = _started_capture(settings, only_pids)
    control = ControlServer()
    sink: Sink | None = None
    try:
        sink = _sink(settings)
        attribution = Attribution(settings.attribution.rules)
        rules = ReadingRules(
            hosts={name.lower(): provider for name, provider in settings.hosts.items()},
            keep_headers=attribution.headers,
            hash_key=hash_key,
        )
        options = LoopOptions(
            node=settings.node_name,
            boot_id=read_boot_id(),
            batch_records=settings.emit.batch_records,
            batch_s=settings.emit.batch_s,
            max_connections=settings.capture.max_connections,
        )
        daemon = Daemon(options, capture, sink, rules, attribution)
        url = _listen_metrics(control, settings, lambda: reporter)
        identity = Identity(
            options.node, version(), options.boot_id, started_ns, str(settings.state_dir), url
        )
        reporter = StatusReporter(daemon, identity, _shortfalls(settings))
        _listen_control(control, settings, reporter)
        control.start()
        _announce(settings, url, reporter)
        notifier.ready("measuring")
        daemon.run(stop, _beat(reporter, notifier))
        notifier.stopping()
        _LOG.info("stopped: %s", _summary(daemon))
    finally:
        control.close()
        capture.close()
        if sink is not None:
            sink.close()


class _StopSignal:
    """True once SIGTERM or SIGINT has come."""

    def __init__(self) -> None:
        self._stopped = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopped = True

    def __call__(self) -> bool:
        return self._stopped


def _prepared_folder(settings: SensorSettings) -> KeyHash:
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
        return KeyHash(settings.folder / HASH_KEY_FILE)
    except OSError as error:
        raise CannotStart(
            f"the state folder {settings.folder} cannot be made: {error.strerror}; "
            "choose one with --state-dir or MODELMETER_STATE_DIR",
            Exit.PERMISSION if isinstance(error, PermissionError) else Exit.UNHEALTHY,
        ) from error
    except SpoolUnavailable as error:
        raise _unavailable(error) from error


def _started_capture(settings: SensorSettings, only_pids: frozenset[int] | None) -> Capture:
    capture = Capture(
        CaptureOptions(
            ring_bytes=settings.capture.ring_bytes,
            loader=None if settings.capture.loader == "auto" else Loader(settings.capture.loader),
            wake_bytes=settings.capture.wake_bytes,
            look_every_s=settings.capture.look_s,
            peer_addresses=settings.capture.peer_addresses,
            undecided_bytes=settings.capture.undecided_bytes,
            only_pids=only_pids,
            exclude=settings.capture.exclude,
            hold_first_exec=settings.capture.hold_first_exec,
            hold_s=settings.capture.hold_s,
            reconcile_every_s=settings.capture.reconcile_s,
            idle_s=settings.capture.idle_s,
            findings=settings.folder / "findings.json",
        )
    )
    try:
        capture.start()
    except CaptureUnavailable as error:
        code = Exit.PERMISSION if isinstance(error, CaptureForbidden) else Exit.UNHEALTHY
        raise CannotStart(f"{error.reason}: {error.hint}", code) from error
    return capture


def _shortfalls(settings: SensorSettings) -> list[str]:
    """What is not measured for want of rights; in the journal too, where one looks after a start."""
    sentences = privileges.shortfalls(privileges.needs(settings.capture.hold_first_exec))
    for sentence in sentences:
        _LOG.warning("%s", sentence)
    return sentences


def _sink(settings: SensorSettings) -> Sink:
    if settings.jsonl:
        target = settings.sink.removeprefix("jsonl:")
        try:
            return JsonLinesSink(target)
        except OSError as error:
            code = Exit.PERMISSION if isinstance(error, PermissionError) else Exit.UNHEALTHY
            raise CannotStart(f"{target} cannot be written: {error.strerror}", code) from error
    try:
        destination = _destination(settings)
        spool = Spool(settings.spool_file, settings.spool.max_bytes)
    except SpoolUnavailable as error:
        raise _unavailable(error) from error
    return SpooledSink(spool, destination, flush_s=settings.ingest.flush_s)


def _destination(settings: SensorSettings) -> Destination:
    """Raises SpoolUnavailable for the token, ConfigurationError for settings that Kafka's library refuses."""
    node = settings.node_name
    kafka = settings.to_kafka
    if kafka is None:
        ensure_token(settings.token_file)
        client = IngestClient(
            settings.ingest_url, node, settings.token_file, timeout_s=settings.ingest.timeout_s
        )
        return Destination("ingest", settings.ingest_url, client)
    with kafka_needed():
        from mmproto.kafka.producer import KafkaClient  # noqa: PLC0415
    return Destination("kafka", lambda: kafka.brokers, KafkaClient(kafka, node))


def _unavailable(error: SpoolUnavailable) -> CannotStart:
    return CannotStart(str(error), Exit.PERMISSION if error.permission else Exit.UNHEALTHY)


def _listen_metrics(
    control: ControlServer, settings: SensorSettings, reporter: Callable[[], StatusReporter]
) -> str:
    if not settings.metrics.listen:
        return ""

    def live() -> Answer:
        return Answer(200, TEXT, "ok\n") if reporter().alive() else Answer(503, TEXT, "the loop is stuck\n")

    def ready() -> Answer:
        return Answer(200, TEXT, "ok\n") if reporter().ready() else Answer(503, TEXT, "calls are not kept\n")

    routes: Routes = {
        "/metrics": lambda: Answer(200, PROMETHEUS, exposition(reporter().snapshot())),
        "/livez": live,
        "/readyz": ready,
    }
    try:
        return control.add_tcp(*split_address(settings.metrics.listen), routes)
    except ListenError as error:
        raise CannotStart(str(error), Exit.UNHEALTHY) from error


def _listen_control(control: ControlServer, settings: SensorSettings, reporter: StatusReporter) -> None:
    routes: Routes = {
        "/status": lambda: Answer(200, JSON, json.dumps(reporter.snapshot())),
        "/targets": lambda: Answer(200, JSON, json.dumps(reporter.targets())),
    }
    try:
        control.add_unix(settings.control_socket, routes)
    except ListenError as error:
        raise CannotStart(str(error), Exit.UNHEALTHY) from error


def _announce(settings: SensorSettings, url: str, reporter: StatusReporter) -> None:
    address = settings.folder / "address"
    # Written whole under another name first: whoever waits for the file must not read half a line.
    fresh = Path(f"{address}.new")
    try:
        fresh.write_text(url + "\n")
        fresh.replace(address)
    except OSError as error:
        raise CannotStart(f"{address} cannot be written: {error.strerror}", Exit.UNHEALTHY) from error
    attached = sum(1 for target in reporter.targets() if target["attached"])
    _LOG.info("version %s measures through %d attached files", version(), attached)
    if url:
        # Standard output may be the sink.
        print(
            f"listening on {url}", file=sys.stderr if settings.sink == "jsonl:-" else sys.stdout, flush=True
        )


def _beat(reporter: StatusReporter, notifier: Notifier) -> Callable[[], None]:
    """What is done every time the loop comes round; the watchdog is fed at a third of its limit."""
    every = notifier.watchdog_s / 3
    next_alive = time.monotonic()

    def beat() -> None:
        nonlocal next_alive
        reporter.watch()
        if every and time.monotonic() >= next_alive:
            notifier.alive()
            next_alive = time.monotonic() + every

    return beat


def _summary(daemon: Daemon) -> str:
    account = daemon.ledger.account()
    return (
        f"{account.captured} exchanges captured, {account.emitted} emitted, "
        f"{sum(account.dropped.values())} dropped, {sum(account.failed.values())} failed"
    )
