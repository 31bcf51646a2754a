"""Fuzzes one target in this process: `python -m tests.fuzz.worker TARGET CORPUS FINDINGS SECONDS`.

libFuzzer ends its process at the first finding, and by itself when the time is up. What is found is written
to FINDINGS as `crash-*`, `timeout-*` or `oom-*`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # only installed by requirements/fuzz.txt

with atheris.instrument_imports(include=["mmproto"]):
    from tests.fuzz.table import TARGETS

from tests.fuzz.target import MAX_INPUT

_MEMORY_MIB = 1024
_SLOWEST_S = 20


def main() -> None:
    name, corpus, findings, seconds = sys.argv[1:]
    target = TARGETS[name]
    seeds = Path(corpus)
    for number, seed in enumerate(target.seeds()):
        (seeds / f"seed-{number:04}").write_bytes(seed)
    options = [
        f"-artifact_prefix={findings}/",
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT}",
        f"-timeout={_SLOWEST_S}",
        f"-rss_limit_mb={_MEMORY_MIB}",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    if words := target.words():
        dictionary = Path(findings) / "words"
        dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in words))
        options.append(f"-dict={dictionary}")
    atheris.Setup([sys.argv[0], *options, corpus], target.run)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" if byte in b'"\\' or not 32 <= byte < 127 else chr(byte) for byte in word)


if __name__ == "__main__":
    main()
