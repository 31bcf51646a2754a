"""The command line: every expected failure is one line that says what to do, with its exit code."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.router.conftest import PROVIDER_KEY, RouterProcess, wait_for

from mmproto.exits import Exit
from mmproto.settings import describe
from mmrouter.config import RouterSettings
from mmrouter.dialects import Refusal
from mmrouter.keys import KeyRing, VirtualKey, digest

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "router.md"


def mmrouter(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELMETER_")}
    return subprocess.run(
        [sys.executable, "-m", "mmrouter.cli", *arguments],
        capture_output=True,
        text=True,
        env=kept | environment,
        timeout=60,
        check=False,
    )


def serve(folder: Path, settings: object, **environment: str) -> subprocess.CompletedProcess[str]:
    config = folder / "router.yaml"
    config.write_text(json.dumps(settings))
    return mmrouter("serve", "--config", str(config), MODELMETER_STATE_DIR=str(folder), **environment)


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    assert line.startswith("mmrouter: ")
    return line


UPSTREAM = {"name": "up", "base_url": "https://localhost", "dialect": "openai"}


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"listn": {}}, ["router.yaml:1", "listn", "listen"]),
        ({"listen": {"port": "high"}}, ["listen.port"]),
        ({"budgets": {"on_pipeline_loss": "maybe"}}, ["fail_open", "fail_closed"]),
        (
            {"upstreams": [UPSTREAM | {"api_key_env": "NOT_SET_ANYWHERE"}]},
            ["NOT_SET_ANYWHERE", "holds no key"],
        ),
        (
            {"upstreams": [UPSTREAM | {"api_key_file": "/does/not/exist"}]},
            ["/does/not/exist", "No such file"],
        ),
        ({"upstreams": [UPSTREAM | {"ca_file": "/does/not/exist"}]}, ["ca_file", "/does/not/exist"]),
        ({"upstreams": [UPSTREAM | {"base_url": "api.openai.com"}]}, ["base_url", "https://api.openai.com"]),
        ({"upstreams": [UPSTREAM | {"base_url": "http://api.openai.com"}]}, ["in the clear"]),
        ({"upstreams": [UPSTREAM, UPSTREAM]}, ["more than one speaks openai"]),
        ({"keys": [{"id": "a", "sha256": "12"}]}, ["keys[0]", "64 hexadecimal digits"]),
        ({"listen": {"tls_cert": "/c.pem"}}, ["tls_key"]),
    ],
)
def test_a_configuration_that_cannot_be_used(tmp_path: Path, settings: object, parts: list[str]) -> None:
    done = serve(tmp_path, settings)
    assert done.returncode == Exit.CONFIGURATION
    line = one_line(done.stderr)
    assert all(part in line for part in parts), line


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve(tmp_path, {"listen": {"port": port}})
    assert done.returncode == Exit.UNHEALTHY
    last = done.stderr.splitlines()[-1]
    assert f"port {port} of 127.0.0.1 is in use" in last
    assert "Traceback" not in done.stderr


def test_a_state_folder_that_another_router_holds(running: RouterProcess) -> None:
    done = serve(running.folder, {"listen": {"port": 0}})
    assert done.returncode == Exit.UNHEALTHY
    assert "in use by another process" in one_line(done.stderr)
    assert running.status()["verdict"] == "healthy"


def test_a_state_folder_that_cannot_be_made() -> None:
    done = mmrouter("serve", "--state-dir", "/proc/no/such", "--port", "0")
    assert done.returncode in (Exit.PERMISSION, Exit.UNHEALTHY)
    assert "MODELMETER_STATE_DIR" in one_line(done.stderr)


def test_new_keys_work_and_are_stored_nowhere(tmp_path: Path) -> None:
    made = json.loads(mmrouter("keys", "new", "--id", "web", "--team", "red", "-o", "json").stdout)
    assert made["key"].startswith("mmk-")
    assert made["entry"] == {"id": "web", "sha256": digest(made["key"]), "tenant": "default", "team": "red"}
    text = mmrouter("keys", "new", "--id", "web", "--team", "red").stdout
    secret = next(line for line in text.splitlines() if line.startswith("mmk-"))
    entry = yaml.safe_load(text.partition("# Its entry in router.yaml:\n")[2])
    assert entry["keys"][0]["sha256"] == digest(secret)
    config = tmp_path / "router.yaml"
    config.write_text(yaml.safe_dump(entry))
    assert mmrouter("config", "validate", "--config", str(config)).stdout.startswith("ok: 1 virtual keys")


def test_a_key_is_found_by_both_headers() -> None:
    key = VirtualKey("k", "t", "", "", "")
    ring = KeyRing([(digest("mmk-a"), key)])
    assert ring.find(b"Bearer mmk-a", None) is key
    assert ring.find(b"bearer mmk-a", None) is key
    assert ring.find(b"Bearer wrong", b"mmk-a") is key
    assert ring.find(b"Basic mmk-a", b"mmk-") is None
    assert ring.find(None, None) is None


def test_status_of_a_healthy_router(running: RouterProcess) -> None:
    wait_for("health", lambda: running.status()["verdict"] == "healthy")
    config = str(running.folder / "router.yaml")
    for form in ("json", "yaml", "table"):
        done = mmrouter("status", "--config", config, "-o", form)
        assert done.returncode == Exit.OK, done.stderr
        assert "healthy" in done.stdout
        assert PROVIDER_KEY not in done.stdout


def test_status_without_a_router(tmp_path: Path) -> None:
    done = mmrouter("status", MODELMETER_STATE_DIR=str(tmp_path))
    assert done.returncode == Exit.UNREACHABLE
    assert "mmrouter serve" in one_line(done.stderr)
    done = mmrouter("status", "--url", "http://127.0.0.1:1", MODELMETER_STATE_DIR=str(tmp_path))
    assert done.returncode == Exit.UNREACHABLE


def test_config_show_says_where_values_come_from_and_hides_nothing_but_keys(running: RouterProcess) -> None:
    config = str(running.folder / "router.yaml")
    done = mmrouter("config", "show", "--config", config, MODELMETER_ROUTER_LISTEN_HOST="127.0.0.2")
    assert "environment variable MODELMETER_ROUTER_LISTEN_HOST" in done.stdout
    assert "router.yaml:1" in done.stdout
    assert PROVIDER_KEY not in done.stdout
    shown = json.loads(mmrouter("config", "show", "--config", config, "-o", "json").stdout)
    assert shown["budgets"]["on_pipeline_loss"] == "fail_open"


def test_no_secret_is_logged(running: RouterProcess) -> None:
    log = (running.folder / "router.log").read_text()
    state = b"".join(path.read_bytes() for path in (running.folder / "router").iterdir() if path.is_file())
    assert PROVIDER_KEY not in log
    assert PROVIDER_KEY.encode() not in state


def test_the_reference_names_every_setting_and_every_error() -> None:
    text = REFERENCE.read_text()
    for key, _, _, _ in describe(RouterSettings):
        assert f"`{key}`" in text, key
    for refusal in Refusal:
        assert f"`{refusal.code}`" in text, refusal.code
