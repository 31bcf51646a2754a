"""The coverage matrix: for each client, bytes written are bytes captured, or there is a named reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.provider.certificates import Certificates, make_certificates
from tests.sensor.capture.matrix import brief, document
from tests.sensor.capture.matrix.run import OPTIONS, Outcome, run
from tests.sensor.capture.matrix.table import TABLE, Client
from tests.sensor.capture.recorder import Recorder, recording

pytestmark = pytest.mark.capture


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with recording(options=OPTIONS) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[list[Outcome]]:
    collected: list[Outcome] = []
    yield collected
    tell(request, document.text_table(collected))


def tell(request: pytest.FixtureRequest, text: str) -> None:
    """Shows it in the run's output, whether or not anything failed."""
    capturing = request.config.pluginmanager.get_plugin("capturemanager")
    assert capturing is not None
    with capturing.global_and_fixture_disabled():
        print("\n" + text)


@pytest.mark.parametrize("client", TABLE, ids=lambda client: client.name)
def test_client(
    client: Client, recorder: Recorder, certificates: Certificates, outcomes: list[Outcome], tmp_path: Path
) -> None:
    outcome = run(client, recorder, certificates, tmp_path)
    outcomes.append(outcome)
    assert not outcome.problems
    assert not any(recorder.capture.statistics().lost.values())


def test_brief_processes_with_a_library_never_seen(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path
) -> None:
    """Without a hold it is a race, and the rate is only told; with one, every byte is captured."""
    rates = brief.rates(certificates, tmp_path)
    tell(request, document.brief_line(rates))
    assert rates[1] == brief.RUNS


def test_the_committed_table_is_this_one() -> None:
    """Its numbers are those of one run; which clients there are and what becomes of them is held here."""
    committed = document.rows(document.PAGE.read_text())
    assert committed == [document.claim(client) for client in TABLE]
