"""The three daemons as real processes on the embedded default, for end-to-end tests.

Nothing is imported from the products: the tests drive what a user drives, the commands and the HTTP
API. Every address is chosen by the kernel and read from the file that each daemon writes once it
listens, so stacks of several tests never meet.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 60.0


class NotReady(Exception):
    """A daemon did not do in time what the test waits for; the text holds the end of its log."""


def wait_for(what: str, condition: Callable[[], Any], within_s: float = READY_WITHIN_S) -> Any:
    """First truthy result of `condition`. Raises NotReady after `within_s` seconds without one."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.05)
    raise NotReady(f"{what}: not within {within_s:.0f} s")


@dataclass(slots=True)
class Daemon:
    """One of mmpipeline, mmsensor, mmrouter as a process of its own."""

    name: str
    argv: list[str]
    state: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.state / f"{self.name}.log"

    @property
    def url(self) -> str:
        return (self.state / self.name / "address").read_text().strip()

    def start(self) -> None:
        """Start it and return once it answers that it is ready."""
        (self.state / self.name / "address").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.argv, stdout=log, stderr=log, env=dict(self.environment))
        try:
            wait_for(f"{self.name} ready", self._ready)
        except NotReady as error:
            raise NotReady(f"{error}\n{self.log.read_text()[-4000:]}") from error

    def _ready(self) -> bool:
        assert self.process is not None
        if (code := self.process.poll()) is not None:
            raise NotReady(f"{self.name} ended with {code}")
        try:
            path = "/-/readyz" if self.name == "router" else "/readyz"
            with urllib.request.urlopen(self.url + path, timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError, ValueError):
            return False

    def end(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end. Returns the exit code; harmless when it has ended already."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.process.wait(timeout=30)


@dataclass(slots=True)
class Stack:
    """A state folder and the daemons that share it."""

    state: Path
    configs: dict[str, Path] = field(default_factory=dict)
    daemons: dict[str, Daemon] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What every command of this stack runs with: this state folder and no machine-wide settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELMETER_")}
        return kept | {"MODELMETER_STATE_DIR": str(self.state)}

    def start(self, name: str, settings: dict[str, Any], *flags: str) -> Daemon:
        """Start daemon `name` (pipeline, sensor, router) with `settings` as its configuration file."""
        # JSON is YAML: the daemons read it as they read any configuration file.
        config = self.state / f"{name}.yaml"
        config.write_text(json.dumps(settings, indent=2))
        self.configs[name] = config
        command = "run" if name == "sensor" else "serve"
        argv = [str(BIN / f"mm{name}"), command, "--config", str(config), *flags]
        daemon = Daemon(name, argv, self.state, self.environment)
        self.daemons[name] = daemon
        daemon.start()
        return daemon

    def command(
        self, *argv: str, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the products' commands against this stack, as a user would at a shell."""
        done = subprocess.run(
            [str(BIN / argv[0]), *argv[1:]],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def get(self, path: str) -> Any:
        """The pipeline's JSON answer to GET `path`."""
        with urllib.request.urlopen(self.daemons["pipeline"].url + path, timeout=30) as answer:
            return json.load(answer)

    def calls(self) -> list[dict[str, Any]]:
        """Every call the pipeline has, through all pages of its API."""
        rows: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.get(f"/v1/calls?limit=500{cursor}")
            rows += page["calls"]
            if not page.get("next_cursor"):
                return rows
            cursor = f"&cursor={page['next_cursor']}"

    def sensor_status(self) -> dict[str, Any]:
        status = self.command("mmsensor", "status", "-o", "json", check=False)
        answer: dict[str, Any] = json.loads(status.stdout)
        return answer

    def end(self) -> None:
        for name in ("sensor", "router", "pipeline"):
            if daemon := self.daemons.get(name):
                daemon.end()


@contextmanager
def running_stack(state: Path) -> Iterator[Stack]:
    """An empty stack on `state`; whatever was started in it is ended on the way out."""
    stack = Stack(state)
    try:
        yield stack
    finally:
        stack.end()
