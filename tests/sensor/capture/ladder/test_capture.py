"""A program with OpenSSL linked in and its symbols stripped: bytes written are bytes captured."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmproto.reader import Direction
from mmsensor.capture.options import CaptureOptions, TargetStatus
from tests.sensor.capture.ladder.programs import linked, stripped
from tests.sensor.capture.recorder import Recorder, recording, started

pytestmark = pytest.mark.capture

SIZE = 2_000_003


@pytest.fixture
def echo(certificate: tuple[Path, Path]) -> Iterator[int]:
    """The port of a server that sends back what it gets, for one client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    def serve() -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the test is over, and nobody has come
        with context.wrap_socket(client, server_side=True) as tls:
            while data := tls.recv(65536):
                tls.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def status(recorder: Recorder, path: Path) -> TargetStatus | None:
    return next((each for each in recorder.capture.targets() if each.path == str(path)), None)


@pytest.mark.parametrize("flags", [(), ("-static",)], ids=["pie", "static"])
def test_bytes_written_are_bytes_captured(flags: tuple[str, ...], echo: int, tmp_path: Path) -> None:
    program = stripped(linked(tmp_path, *flags), tmp_path)
    with recording(options=CaptureOptions(ring_bytes=32 << 20)) as recorder:
        with started([str(program), str(echo), str(SIZE)]) as workload:
            recorder.capture.allow(workload.pid)
            recorder.capture.refresh()
            recorder.until(
                lambda: (target := status(recorder, program)) is not None and target.attached, "attached"
            )
            target = status(recorder, program)
            assert target is not None
            assert (target.strategy, target.confidence, target.reason) == ("openssl", "proven", "")
            workload.go()
            assert recorder.result(workload) == {"written": SIZE, "read": SIZE}
            workload.go()
            recorder.until_closed(1)
        (seen,) = recorder.seen.values()
    assert (seen.late, seen.gaps, seen.closed) == (False, [], "ssl_free")
    # The client writes pieces of 7001 bytes, each a byte further in the alphabet of bytes.
    written = b"".join(bytes((turn + at) % 256 for at in range(7001)) for turn in range(SIZE // 7001 + 1))[
        :SIZE
    ]
    assert seen.data[Direction.WRITE] == written
    assert seen.data[Direction.READ] == written
