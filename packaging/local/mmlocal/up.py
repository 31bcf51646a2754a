"""`make up`: pipeline, sensor and router on the embedded default, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from mmlocal.daemons import BIN, Ports, attached_to, daemon
from mmlocal.process import Say
from mmlocal.supervisor import Supervisor


async def up(state: Path, ports: Ports, say: Say) -> None:
    """Raises ServiceFailed, Stopped."""
    async with Supervisor(state, say) as supervisor:
        say("starting pipeline, sensor and router ...")
        # The pipeline first: it makes the token that the others present.
        await supervisor.start([daemon("pipeline", state, None, ports)])
        await supervisor.start([daemon(product, state, None, ports) for product in ("sensor", "router")])
        for line in await welcome(supervisor, state):
            say(line)
        say("")
        say("Next: run any program on this machine that calls OpenAI or Anthropic, and open the dashboard.")
        say("To see it without an API key: make demo. Ctrl-C stops everything; the data stays.")
        await supervisor.run()
        say("stopping ...")
    say("stopped; the data is in " + show(state))


async def welcome(supervisor: Supervisor, state: Path) -> list[str]:
    """Where everything is."""
    pipeline = supervisor.children["pipeline"].address
    router = supervisor.children["router"].address
    commands = f"MODELMETER_STATE_DIR={shlex.quote(str(state))} PATH={shlex.quote(show(BIN))}:$PATH"
    return [
        "",
        "ModelMeter is running.",
        "",
        f"  dashboard  {pipeline}/",
        f"  API        {pipeline}/v1/  (described by {pipeline}/v1/openapi.json)",
        f"  router     {router}  (OPENAI_BASE_URL={router}/v1, ANTHROPIC_BASE_URL={router})",
        f"  sensor     attached to {await attached_to(state)}",
        f"  data       {show(state)}  (logs in {show(state / 'log')})",
        f"  commands   {commands} mmsensor status",
    ]


def show(path: Path) -> str:
    """The path as one would type it from here."""
    try:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    except ValueError:
        return str(path)


def say(line: str) -> None:
    print(line, flush=True, file=sys.stdout)
