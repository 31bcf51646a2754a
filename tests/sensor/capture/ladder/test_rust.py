"""rustls is recognised in real files and in small ones, and what only sounds like it is not."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmsensor.capture.functions import NotCovered
from mmsensor.capture.ladder import rust
from mmsensor.capture.ladder.elf import ElfFile


def locate(path: Path) -> NotCovered | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return rust.locate(ElfFile(fd))
    finally:
        os.close(fd)


def program(folder: Path, *strings: str) -> Path:
    source, built = folder / "some.c", folder / "some"
    lines = "".join(f'puts("{text}");' for text in strings)
    source.write_text(f"#include <stdio.h>\nint main(void) {{ {lines} return 0; }}\n")
    subprocess.run(["clang", "-O1", "-s", str(source), "-o", str(built)], check=True)
    return built


def test_a_wheel_with_rustls_inside() -> None:
    spec = find_spec("chdb")
    assert spec and spec.submodule_search_locations
    found = locate(Path(spec.submodule_search_locations[0]) / "_chdb.abi3.so")
    assert found and found.reason == "rustls"
    assert "rustls 0." in found.why


@pytest.mark.parametrize(
    ("strings", "said"),
    [
        (["/cargo/registry/src/index-1/rustls-0.23.5/src/conn.rs"], "rustls 0.23.5 is"),
        (["/x/rustls-0.24.0-dev.0/src/client/hs.rs"], "rustls 0.24.0-dev.0 is"),
        (["/b/rustls-0.23.5/src/conn.rs", "/a/rustls-0.21.12/src/msgs/codec.rs"], "0.21.12 and 0.23.5 is"),
        (["/src/vendor/rustls/src/common_state.rs"], "of an unknown version"),
    ],
)
def test_rustls_by_its_sources(strings: list[str], said: str, tmp_path: Path) -> None:
    found = locate(program(tmp_path, *strings))
    assert found and found.reason == "rustls"
    assert said in found.why


@pytest.mark.parametrize(
    "text",
    [
        "/cargo/registry/src/index-1/tokio-rustls-0.26.6/src/client.rs",
        "/x/hyper-rustls-0.27.7/src/connector.rs",
        "/x/rustls-webpki-0.103.17/src/client.rs",
        "/x/rustls-pki-types-1.0.0/src/server_name.rs",
        "reqwest with rustls-0.23.5",
    ],
)
def test_what_sounds_like_rustls(text: str, tmp_path: Path) -> None:
    assert locate(program(tmp_path, text)) is None
