"""`make up`: pipeline, sensor and router in one of the two shapes, until Ctrl-C."""

from __future__ import annotations

import sys

from mmlocal.daemons import Ports, attached_to, daemon
from mmlocal.process import Say
from mmlocal.shapes import Embedded, Shape, show
from mmlocal.supervisor import Supervisor


async def up(shape: Shape, ports: Ports, say: Say) -> None:
    """Raises ServiceFailed, Stopped."""
    async with Supervisor(shape.state, say) as supervisor:
        # The pipeline first: it makes the token that the others present.
        await shape.start(supervisor, None, ports, say)
        await supervisor.start(
            [daemon(product, shape.variables, None, ports) for product in ("sensor", "router")]
        )
        for line in await welcome(supervisor, shape):
            say(line)
        say("")
        say("Next: run any program on this machine that calls OpenAI or Anthropic, and open the dashboard.")
        demo = "make demo" if isinstance(shape, Embedded) else "make demo SHAPE=distributed"
        say(f"To see it without an API key: {demo}. Ctrl-C stops everything; the data stays.")
        await supervisor.run()
        say("stopping ...")
    say("stopped; the data is in " + show(shape.state))


async def welcome(supervisor: Supervisor, shape: Shape) -> list[str]:
    """Where everything is."""
    pipeline = supervisor.children["pipeline"].address
    router = supervisor.children["router"].address
    return [
        "",
        "ModelMeter is running.",
        "",
        f"  dashboard  {pipeline}/",
        f"  API        {pipeline}/v1/  (described by {pipeline}/v1/openapi.json)",
        f"  router     {router}  (OPENAI_BASE_URL={router}/v1, ANTHROPIC_BASE_URL={router})",
        f"  sensor     attached to {await attached_to(shape.variables)}",
        *shape.described(),
        f"  data       {show(shape.state)}  (logs in {show(shape.state / 'log')})",
        f"  commands   {shape.commands()} mmsensor status",
    ]


def say(line: str) -> None:
    print(line, flush=True, file=sys.stdout)
