"""What only a trial tells: that return probes are safe, that a TLS exchange of our own is captured.

Trials run in children, this module as a program, so that nothing of them stays in ours. For the exchange
there are two: one makes it, in memory and without a certificate, the other captures it. Only the first one's
libssl is looked at: the capture is shown a /proc that holds that process alone.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mmproto.reader import Direction
from mmsensor.capture.errors import CaptureError, CaptureUnavailable
from mmsensor.capture.kernel.probes import uprobe_pmu
from mmsensor.capture.kernel.uretprobe import returns_survive_seccomp
from mmsensor.capture.options import CaptureOptions
from mmsensor.capture.session import Capture
from mmsensor.doctor.findings import AS_ROOT, REPORT_IT, Finding, Outcome, fail, ok, skipped, warn
from mmsensor.doctor.surroundings import Surroundings
from mmsensor.streams.events import Bytes

#: A prime, so that no size class or page hides a byte more or less.
_SIZE = 4099
_PATIENCE_S = 10.0
_RING_BYTES = 1 << 20
# -P: the folder that we happen to be in is not a place to import from.
_PROGRAM = (sys.executable, "-P", "-m", "mmsensor.doctor.trial")
LIMIT_S = 30.0


def check_capture(_place: Surroundings) -> Finding:
    """A TLS exchange of our own."""
    return _in_a_child("capture")


def check_returns(_place: Surroundings) -> Finding:
    """Whether return probes are safe on this kernel."""
    return _in_a_child("returns")


def _in_a_child(what: str) -> Finding:
    try:
        done = subprocess.run(
            [*_PROGRAM, what], capture_output=True, text=True, timeout=LIMIT_S - 2, check=False
        )
    except subprocess.TimeoutExpired:
        return fail("the trial did not end", REPORT_IT)
    except OSError as error:
        return skipped(f"{sys.executable} cannot be started by this user: {error.strerror}", AS_ROOT)
    try:
        outcome, fact, fix = json.loads(done.stdout)
        return Finding(Outcome(outcome), fact, fix)
    except ValueError:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return skipped(f"the trial broke: {why}", REPORT_IT)


def _returns() -> Finding:
    try:
        safe = returns_survive_seccomp(*uprobe_pmu())
    except CaptureUnavailable as error:
        return skipped(error.reason, error.hint)
    if safe is None:
        return skipped("not tried on programs under seccomp: that takes CAP_SYS_ADMIN", AS_ROOT)
    if not safe:
        return warn(
            "return probes kill programs under seccomp on this kernel",
            "use a kernel with the fix of Linux 6.14",
        )
    return ok("return probes leave programs under seccomp alone")


# -- the child -----------------------------------------------------------------------------------------


class _NoAnonymousTls(Exception):
    """This Python's OpenSSL makes no connection without a certificate."""


def _connected() -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Client and server, joined by two buffers. Raises _NoAnonymousTls."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        server = _context(ssl.PROTOCOL_TLS_SERVER).wrap_bio(to_server, to_client, server_side=True)
        client = _context(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
            to_client, to_server, server_hostname="doctor.invalid"
        )
        for _ in range(4):
            for end in (client, server):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
    except ssl.SSLError as error:
        raise _NoAnonymousTls(error.reason or str(error)) from error
    return client, server


def _context(protocol: ssl._SSLMethod) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # No certificate is at hand and none is needed: the other end is ourselves, in the same process.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    return context


def _exchange() -> None:
    """Waits for a line, then sends `_SIZE` bytes from client to server; stays for a second line."""
    client, server = _connected()
    print("ready", flush=True)
    sys.stdin.readline()
    client.write(bytes(_SIZE))
    received = 0
    while received < _SIZE:
        received += len(server.read(_SIZE))
    print("done", flush=True)
    sys.stdin.readline()


def _capture() -> Finding:
    with _speaking() as (pid, channel), tempfile.TemporaryDirectory() as folder:
        line = channel.readline().strip()
        if line != "ready":
            why = line or "the process that makes it ended"
            return skipped(f"no TLS connection of our own: {why}", "use an OpenSSL with anonymous ciphers")
        (Path(folder) / str(pid)).symlink_to(f"/proc/{pid}")
        try:
            return _captured(pid, channel, Path(folder))
        except CaptureError as error:
            return fail(error.reason, error.hint)


@contextmanager
def _speaking() -> Iterator[tuple[int, TextIO]]:
    """The process that makes the exchange: its pid, and the channel on which it is told when."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rw") as channel:
        process = subprocess.Popen([*_PROGRAM, "exchange"], stdin=theirs.fileno(), stdout=theirs.fileno())
        theirs.close()
        try:
            yield process.pid, channel
        finally:
            process.kill()
            process.wait()


def _captured(pid: int, channel: TextIO, proc: Path) -> Finding:
    """`proc`: a folder with that process alone. Raises CaptureError."""
    started = time.monotonic()
    capture = Capture(CaptureOptions(ring_bytes=_RING_BYTES, only_pids=frozenset({pid}), proc=proc))
    try:
        capture.start()
        targets = capture.targets()
        if not any(target.attached for target in targets):
            why = "; ".join(f"{target.path}: {target.reason}" for target in targets) or "it was not found"
            return fail(f"our own libssl got no probes: {why}", "see what `mmsensor targets` says of others")
        channel.write("go\n")
        channel.flush()
        moved = _moved(capture)
        kind = capture.statistics().link_kind
    finally:
        capture.close()
    if set(moved.values()) != {_SIZE}:
        shown = " and ".join(f"{count} {direction.name.lower()}" for direction, count in moved.items())
        return fail(f"of a TLS exchange of our own of {_SIZE} bytes, captured were {shown}", REPORT_IT)
    took_ms = (time.monotonic() - started) * 1000
    return ok(f"a TLS exchange of our own, {_SIZE} bytes each way, captured by {kind} in {took_ms:.0f} ms")


def _moved(capture: Capture) -> dict[Direction, int]:
    """Bytes captured each way, when it is all or the time is up."""
    moved = dict.fromkeys(Direction, 0)
    until = time.monotonic() + _PATIENCE_S
    while min(moved.values()) < _SIZE and time.monotonic() < until:
        for event in capture.poll(0.05):
            if isinstance(event, Bytes):
                moved[event.direction] += len(event.data)
    return moved


def _main(what: str) -> None:
    if what == "exchange":
        try:
            _exchange()
        except _NoAnonymousTls as error:
            print(error, flush=True)
        return
    finding = _capture() if what == "capture" else _returns()
    print(json.dumps([finding.outcome, finding.fact, finding.fix]))


if __name__ == "__main__":
    _main(sys.argv[1])
