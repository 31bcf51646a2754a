"""Who is at either end: the address from the socket under the call, the process from the kernel."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path

import pytest

from mmproto.endpoint import Endpoint
from mmsensor.attribution.facts import ProcessTable
from mmsensor.capture.options import CaptureOptions
from tests.sensor.capture.recorder import python, recording, started

pytestmark = pytest.mark.capture

#: Both ends in one process: prints the two ports once it has had its exchange.
EXCHANGE = """
import json, socket, ssl, sys, threading
certificate, key, address = sys.argv[1:]
sys.stdin.readline()
server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
server.load_cert_chain(certificate, key)
client = ssl._create_unverified_context()
family = socket.AF_INET6 if ":" in address else socket.AF_INET
listener = socket.create_server((address, 0), family=family)
def serve():
    with server.wrap_socket(listener.accept()[0], server_side=True) as stream:
        stream.sendall(stream.recv(100))
        stream.recv(1)
threading.Thread(target=serve).start()
with client.wrap_socket(socket.create_connection(listener.getsockname()[:2])) as stream:
    ports = [listener.getsockname()[1], stream.getsockname()[1]]
    stream.sendall(b"hello")
    stream.recv(100)
print(json.dumps(ports), flush=True)
"""


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_socket_names_the_peer(address: str, certificate: tuple[Path, Path]) -> None:
    command = [sys.executable, "-c", EXCHANGE, *map(str, certificate), address]
    with started(command) as workload, recording([workload.pid]) as recorder:
        workload.go()
        listening, connecting = json.loads(workload.line())
        recorder.until_closed(2)
        peers = {seen.peer for seen in recorder.seen.values()}
        assert peers == {Endpoint(address, listening), Endpoint(address, connecting)}


def test_tls_in_memory_has_no_peer(certificate: tuple[Path, Path]) -> None:
    """asyncio moves the bytes between library and socket itself, outside of any TLS call."""
    with (
        started(python("loopback", *certificate, "asyncio", 3, 1000)) as workload,
        recording([workload.pid]) as recorder,
    ):
        workload.line()
        workload.go()
        recorder.result(workload)
        recorder.settle()
        assert len(recorder.seen) == 6
        assert not any(seen.peer for seen in recorder.seen.values())


def test_peers_may_be_left_out(certificate: tuple[Path, Path]) -> None:
    command = [sys.executable, "-c", EXCHANGE, *map(str, certificate), "127.0.0.1"]
    with (
        started(command) as workload,
        recording([workload.pid], CaptureOptions(peer_addresses=False)) as recorder,
    ):
        workload.go()
        workload.line()
        recorder.until_closed(2)
        assert not any(seen.peer for seen in recorder.seen.values())


def test_a_process_that_is_gone_has_its_name_and_user(certificate: tuple[Path, Path]) -> None:
    command = [sys.executable, "-c", EXCHANGE, *map(str, certificate), "127.0.0.1"]
    with started(command) as workload, recording([workload.pid]) as recorder:
        workload.go()
        workload.line()
        workload.process.wait()
        assert not Path(f"/proc/{workload.pid}").exists()
        recorder.until_closed(2)
        (key, seen), *_ = recorder.seen.items()
        facts = ProcessTable().look(key.pid, key.process_started_ns, seen.owner)
    assert facts.command == Path(sys.executable).name
    assert facts.user == getpass.getuser()
    assert facts.exe == "", "nobody can know any more"
