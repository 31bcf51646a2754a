"""`mmrouter`: serve, status, version, config and keys."""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import logging
import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import click
import yaml

from mmproto import settings as loader
from mmproto.exits import Exit
from mmproto.settings import ConfigurationError
from mmrouter import config, keys
from mmrouter.config import RouterSettings
from mmrouter.daemon import CannotStart, run
from mmrouter.status import VERDICTS

_CONTEXT = {"help_option_names": ["-h", "--help"]}
_config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Configuration file instead of /etc/modelmeter/router.yaml.",
)
_output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    help="Form of the output.",
)


@click.group(context_settings=_CONTEXT)
def main() -> None:
    """The ModelMeter router: one base URL for LLM APIs, with virtual keys and budgets that hold."""


@main.command()
@_config_option
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 lets the kernel choose.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="State folder.")
def serve(config_file: Path | None, host: str | None, port: int | None, state_dir: Path | None) -> None:
    """Run the router until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    flags = {"listen.host": host, "listen.port": port, "state_dir": state_dir}
    settings = _settings(config_file, flags)
    try:
        run(settings, os.environ, _version())
    except ConfigurationError as error:
        _fail(error, Exit.CONFIGURATION)
    except CannotStart as error:
        _fail(error, error.exit)


@main.command()
@_config_option
@_output_option
@click.option("--url", help="Where the router listens; default: what it wrote into its state folder.")
def status(config_file: Path | None, output: str, url: str | None) -> None:
    """Show how the running router is. Exit code: 0 healthy, 1 unhealthy, 3 degraded, 4 unreachable."""
    settings = _settings(config_file, {})
    try:
        address = url or (settings.folder / "address").read_text().strip()
    except PermissionError:
        _fail(f"{settings.folder / 'address'} may not be read by this user", Exit.PERMISSION)
    except OSError:
        _fail(
            f"no router has written its address into {settings.folder}; is `mmrouter serve` running? "
            "(--url, or MODELMETER_STATE_DIR for another state folder)",
            Exit.UNREACHABLE,
        )
    document = _ask(address, settings)
    if output == "table":
        click.echo(_table(document), nl=False)
    else:
        _print(document, output)
    sys.exit(VERDICTS[document["verdict"]])


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"mmrouter {_version()}")


@main.group(name="config")
def config_group() -> None:
    """Check and show the configuration."""


@config_group.command()
@_config_option
def validate(config_file: Path | None) -> None:
    """Check the configuration, the providers' keys and certificates included."""
    settings = _settings(config_file, {})
    try:
        count = len(config.virtual_keys(settings))
        names = [p.name for p in config.providers(settings, os.environ)]
        config.listener_tls(settings)
    except ConfigurationError as error:
        _fail(error, Exit.CONFIGURATION)
    click.echo(f"ok: {count} virtual keys, upstreams: {', '.join(names) or 'none'}")


@config_group.command()
@_config_option
@_output_option
def show(config_file: Path | None, output: str) -> None:
    """Show every setting with the value in force and where it comes from."""
    loaded = _read(config_file, {})
    if output != "table":
        _print(loader.shown(loaded.settings), output)
        return
    rows = [
        (key, json.dumps(value), loaded.origins.get(key, "default"))
        for key, value in _flat(loader.shown(loaded.settings))
    ]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    for key, value, origin in rows:
        click.echo(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}")


@main.group(name="keys")
def keys_group() -> None:
    """Virtual keys."""


@keys_group.command()
@click.option("--id", "key_id", default="change-me", help="Name of the key in records and budgets.")
@click.option("--tenant", default="default", help="Tenant.")
@click.option("--team", default="", help="Team whose budget its calls count against.")
@click.option("--application", default="", help="Application that uses the key.")
@click.option("--user", default="", help="User, where the key belongs to one.")
@_output_option
def new(*, key_id: str, tenant: str, team: str, application: str, user: str, output: str) -> None:
    """Make a virtual key: prints the key, once, and the entry for router.yaml."""
    secret = keys.new_secret()
    entry = {"id": key_id, "sha256": keys.digest(secret), "tenant": tenant, "team": team}
    entry |= {name: value for name, value in (("application", application), ("user", user)) if value}
    if output != "table":
        _print({"key": secret, "entry": entry}, output)
        return
    text = yaml.safe_dump([entry], sort_keys=False, width=200)
    indented = "".join(f"  {line}\n" for line in text.splitlines())
    click.echo(f"# The key, shown only now: give it to its owner.\n{secret}\n")
    click.echo(f"# Its entry in router.yaml:\nkeys:\n{indented}", nl=False)


def _read(config_file: Path | None, flags: Mapping[str, object]) -> loader.Loaded[RouterSettings]:
    if config_file is not None and not config_file.exists():
        _fail(f"{config_file}: there is no such configuration file", Exit.CONFIGURATION)
    try:
        files = loader.configuration_files("router", config_file)
        return loader.read(RouterSettings, files, os.environ, flags, product="router")
    except ConfigurationError as error:
        _fail(error, Exit.CONFIGURATION)


def _settings(config_file: Path | None, flags: Mapping[str, object]) -> RouterSettings:
    return _read(config_file, flags).settings


def _ask(address: str, settings: RouterSettings) -> dict[str, Any]:
    """The status document of the router at `address`; ends the command where there is none."""
    parts = urlsplit(address)
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            # The certificate is for the name applications use, which is not the address asked here.
            context = ssl.create_default_context(cafile=settings.listen.tls_cert)
            context.check_hostname = False
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=5, context=context
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        connection.request("GET", "/-/status")
        reply = connection.getresponse()
        document = json.loads(reply.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        _fail(
            f"the router at {address} does not answer: {reason}; is `mmrouter serve` running?",
            Exit.UNREACHABLE,
        )
    if reply.status != 200 or not isinstance(document, dict) or document.get("verdict") not in VERDICTS:
        _fail(f"{address} answers, but not as a ModelMeter router does", Exit.UNREACHABLE)
    return document


def _table(document: dict[str, Any]) -> str:
    pipeline, spool, counts = document["pipeline"], document["spool"], document["counts"]
    age = pipeline["state_age_s"]
    lines = [
        f"{document['verdict']}  mmrouter {document['version']} on {document['node']}, {document['address']}"
    ]
    lines += [f"  because {reason}" for reason in document["reasons"]]
    lines.append(
        f"budgets    {document['blocking_budgets']} that block, last heard of "
        + ("never" if age is None else f"{age:.1f} s ago")
        + f"; when the pipeline is away: {pipeline['on_loss']}"
    )
    lines.append(f"keys       {document['virtual_keys']} virtual keys")
    for name, up in document["upstreams"].items():
        health = f"FAILS: {up['last_error']}" if up["failing"] else "ok"
        lines.append(
            f"upstream   {name} ({up['provider']}) {up['host']}: {health}; connections: {up['open']} open, "
            f"{up['opened']} made, {up['reused']} reuses"
        )
    lines.append(f"calls      {counts['calls']} recorded; forwarded by end: {_pairs(counts['ended'])}")
    lines.append(f"refused    {_pairs(counts['refused'])}")
    lines.append(
        f"spool      {spool['records']} records, {spool['payload_bytes']} of {spool['max_bytes']} bytes"
    )
    delivery = document["delivery"]
    lines.append(f"delivery   {delivery['delivered']} delivered {delivery['last_error']}".rstrip())
    for name in ("rejected", "unread", "reader_errors", "dropped"):
        if counts[name]:
            lines.append(f"{name:<10} {_pairs(counts[name])}")
    return "\n".join(lines) + "\n"


def _pairs(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [
            row for key, item in value.items() for row in _flat(item, f"{prefix}.{key}" if prefix else key)
        ]
    return [(prefix, value)]


def _print(document: Any, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(yaml.safe_dump(document, sort_keys=False), nl=False)


def _version() -> str:
    return importlib.metadata.version("modelmeter")


def _fail(problem: object, code: Exit) -> NoReturn:
    for line in str(problem).splitlines():
        click.echo(f"mmrouter: {line}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
