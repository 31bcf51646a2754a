"""The three daemons as services: their commands and settings, and what the sensor has attached to."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmlocal.process import Service

BIN = Path(sys.executable).parent
COMMANDS = {"pipeline": "serve", "sensor": "run", "router": "serve"}
STATUS_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where each listens, if not at its default; 0 takes a free port. The sensor's is that of its metrics."""

    pipeline: int | None = None
    router: int | None = None
    sensor: int | None = None

    def environment(self, product: str) -> dict[str, str]:
        """The variables that set the port of `product`, for its own process only."""
        port = getattr(self, product)
        if port is None:
            return {}
        if product == "sensor":
            return {"MODELMETER_METRICS_LISTEN": f"127.0.0.1:{port}"}
        return {"MODELMETER_LISTEN_PORT": str(port)}


def daemon(product: str, variables: Mapping[str, str], config: Path | None, ports: Ports) -> Service:
    """`product`: pipeline, sensor or router. Without `config` it reads the machine's own, or its defaults."""
    program, chosen = str(BIN / f"mm{product}"), ("--config", str(config)) if config else ()
    command = (program, COMMANDS[product], *chosen)
    return Service(product, command, {**variables, **ports.environment(product)})


def environment(state: Path) -> Mapping[str, str]:
    return {"MODELMETER_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"}


async def attached_to(variables: Mapping[str, str]) -> str:
    """One line on what the sensor has attached to, in its own words where it cannot be asked."""
    process = await asyncio.create_subprocess_exec(
        *(str(BIN / "mmsensor"), "targets", "-o", "json"),
        env=dict(variables),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), STATUS_WITHIN_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return "not known yet: ask `mmsensor targets`"
    try:
        found = json.loads(output)
    except ValueError:
        lines = output.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "not known yet: ask `mmsensor targets`"
    targets = found["targets"] if isinstance(found, dict) else found
    names = sorted({Path(target["path"]).name for target in targets if target["attached"]})
    if not names:
        return "nothing yet: no program with OpenSSL is running; it attaches when one starts"
    return f"{', '.join(names)}, in every process that runs it now or later"
