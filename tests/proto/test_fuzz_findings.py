"""The targets of `make fuzz`, without the fuzzer: over their seeds, and over all that was ever found."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fuzz import exchanges
from tests.fuzz.shrink import failure, shrink
from tests.fuzz.table import TARGETS

from mmproto.providers import paths

FINDINGS = Path(__file__).parent / "fuzz_findings"


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_findings(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    assert seeds
    for data in (*seeds, *(path.read_bytes() for path in sorted((FINDINGS / name).glob("*")))):
        target.run(data)


def test_every_route_is_reached() -> None:
    reached = set()
    for route in exchanges.ROUTES.values():
        host = f"{min(route.providers)}.test" if route.providers else "api.openai.com"
        for method in route.methods:
            target = exchanges.example(route.path)
            reached.add(paths.match(method, host, target, exchanges._HOSTED.hosts).dialect)
    assert reached >= {route.dialect for route in exchanges.ROUTES.values()}


def test_findings_are_made_small() -> None:
    def run(data: bytes) -> None:
        assert not (b"a" in data and b"b" in data)

    assert shrink(run, b"xxxxaxxxxxxxxxbxxxx") == b"ab"
    assert failure(run, b"ab").startswith("AssertionError in run (")
    assert shrink(run, b"nothing wrong") == b"nothing wrong"
