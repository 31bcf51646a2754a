"""`python -m tests.e2e.provider --dir DIR [--port 0]`: run until SIGTERM or Ctrl-C.

DIR takes the certificates (`ca.pem` is what clients trust) and the journal (`journal.jsonl`). Two lines on
standard output say where it listens and what to trust; they are the sign that it is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from tests.e2e.provider.certificates import CertificateError, make_certificates
from tests.e2e.provider.journal import Journal
from tests.e2e.provider.server import Provider


async def serve(folder: Path, port: int) -> None:
    certificates = make_certificates(folder)
    journal = Journal(folder / "journal.jsonl")
    provider = Provider(certificates, journal)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await provider.start(port)
    print(f"listening on https://127.0.0.1:{provider.port}", flush=True)
    print(f"certificate authority: {certificates.ca}", flush=True)
    await stop.wait()
    await provider.close()
    journal.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.e2e.provider", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="folder for certificates and journal")
    parser.add_argument("--port", type=int, default=0, help="0 lets the kernel choose")
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.dir.resolve(), arguments.port))
    except (CertificateError, OSError) as error:
        print(f"local provider: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
