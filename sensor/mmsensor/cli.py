"""The `mmsensor` command.

Expected failures are one line on standard error and an exit code of `mmproto.exits`; the code is the same
in every output format. What the daemon alone needs is imported by `run` alone, so that the other commands
start fast and work where nothing can be captured.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

import click
import yaml

from mmproto.exits import Exit
from mmproto.settings import ConfigurationError, Loaded, configuration_files, shown
from mmsensor import render
from mmsensor.config import SensorSettings, load_settings
from mmsensor.control import ask
from mmsensor.version import version as installed_version

P = ParamSpec("P")

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_VERDICT_EXITS = {"healthy": Exit.OK, "degraded": Exit.DEGRADED, "unhealthy": Exit.UNHEALTHY}

config_option = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    help="Configuration file instead of /etc/modelmeter/sensor.yaml.",
)
state_option = click.option(
    "--state-dir", "state_dir", type=click.Path(path_type=Path), help="State folder (state_dir)."
)
output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="Form of the output.",
)


def _one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Turns what may be expected to go wrong into its line and exit code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ConfigurationError as error:
            for problem in error.problems:
                click.echo(f"mmsensor: {problem}", err=True)
            sys.exit(Exit.CONFIGURATION)
        except BrokenPipeError:
            # The reader of our output has seen enough; say so to Python as well, which would flush again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(Exit.OK)

    return wrapped


def _fail(message: str, code: Exit) -> NoReturn:
    click.echo(f"mmsensor: {message}", err=True)
    sys.exit(code)


@click.group(context_settings=_CONTEXT)
def main() -> None:
    """Measures the LLM calls of this machine: reads the plaintext of TLS calls with kernel probes."""


@main.command()
@config_option
@state_option
@click.option("--sink", help="`ingest`, `kafka://HOST:PORT,...`, or `jsonl:PATH` for JSON lines (sink).")
@click.option("--ingest-url", help="Base URL of the pipeline (ingest.url).")
@click.option("--metrics-listen", help="host:port of /metrics, port 0 for a free one (metrics.listen).")
@click.option("--log-level", help="debug, info, warning or error (log_level).")
@click.option("--only-pid", multiple=True, type=int, help="Measure this process only; may be repeated.")
@_one_line_errors
def run(
    *,
    config: Path | None,
    state_dir: Path | None,
    sink: str | None,
    ingest_url: str | None,
    metrics_listen: str | None,
    log_level: str | None,
    only_pid: tuple[int, ...],
) -> None:
    """Run the sensor until SIGTERM or Ctrl-C."""
    given = {
        "state_dir": str(state_dir) if state_dir else None,
        "sink": sink,
        "ingest.url": ingest_url,
        "metrics.listen": metrics_listen,
        "log_level": log_level,
    }
    flags = {key: value for key, value in given.items() if value is not None}
    load_settings(config, flags)
    from mmsensor.launch import launch  # noqa: PLC0415

    launch(config, flags, only_pid)


@main.command()
@config_option
@state_option
@output_option
@_one_line_errors
def status(config: Path | None, state_dir: Path | None, output: str) -> None:
    """Show how the running sensor does: verdict, events, targets, sink, overhead.

    Exit code: 0 healthy, 1 unhealthy, 3 degraded, 4 no sensor answers, 77 no permission, 78 configuration.
    """
    document = _asked(config, state_dir, "/status")
    _print(document, output, lambda: render.status_text(document))
    sys.exit(_VERDICT_EXITS.get(document["verdict"], Exit.UNHEALTHY))


@main.command()
@config_option
@state_option
@output_option
@_one_line_errors
def targets(config: Path | None, state_dir: Path | None, output: str) -> None:
    """List the files with TLS functions: which are attached, and why the others are not."""
    document = _asked(config, state_dir, "/targets")
    _print(document, output, lambda: render.targets_text(document))


@main.command()
@config_option
@state_option
@output_option
@_one_line_errors
def doctor(config: Path | None, state_dir: Path | None, output: str) -> None:
    """Look at everything the sensor needs here: kernel, rights, probes, storage, pipeline.

    Needs neither root nor a running sensor; what it cannot find out without them it says.
    Exit code: 0 healthy, 1 a check failed, 3 something to be improved or not found out.
    """
    from mmsensor.doctor.checks import CHECKS  # noqa: PLC0415
    from mmsensor.doctor.examination import document as summed_up  # noqa: PLC0415
    from mmsensor.doctor.examination import examine  # noqa: PLC0415
    from mmsensor.doctor.report import text  # noqa: PLC0415
    from mmsensor.doctor.surroundings import Surroundings  # noqa: PLC0415

    flags = {"state_dir": str(state_dir) if state_dir else None}
    document = summed_up(list(examine(CHECKS, Surroundings(config, flags))))
    _print(document, output, lambda: text(document, shutil.get_terminal_size((100, 24)).columns))
    sys.exit(_VERDICT_EXITS[document["verdict"]])


@main.command()
@click.argument("archives", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE.har...")
@config_option
@_one_line_errors
def replay(archives: tuple[Path, ...], config: Path | None) -> None:
    """Print the LLM calls in HTTP archives (HAR 1.2) as JSON lines; `-` reads standard input.

    What was dropped or failed is counted on standard error. Attribution rules apply where --config is given.
    """
    from mmproto import har  # noqa: PLC0415
    from mmproto.callform import call_to_json  # noqa: PLC0415
    from mmproto.exchange import ReadingRules  # noqa: PLC0415
    from mmproto.v1.call_pb2 import Call  # noqa: PLC0415
    from mmsensor.attribution.keyhash import HASH_KEY_FILE, KeyHash  # noqa: PLC0415
    from mmsensor.attribution.rules import Attribution  # noqa: PLC0415
    from mmsensor.replay import ReplayCounts  # noqa: PLC0415
    from mmsensor.replay import replay as replay_outcomes  # noqa: PLC0415

    settings = load_settings(config, {}).settings if config is not None else SensorSettings()
    attribution = Attribution(settings.attribution.rules)
    rules = ReadingRules(hosts=settings.hosts, keep_headers=attribution.headers)
    key_file = settings.folder / HASH_KEY_FILE
    if config is not None and os.access(key_file, os.R_OK):
        rules = ReadingRules(rules.hosts, rules.keep_headers, KeyHash(key_file))
    counts, unreadable = ReplayCounts(), False

    def emit(call: Call) -> None:
        click.echo(json.dumps(call_to_json(call), ensure_ascii=False, separators=(",", ":")))

    for archive in archives:
        try:
            data = sys.stdin.buffer.read() if str(archive) == "-" else archive.read_bytes()
            replay_outcomes(har.read(data, rules), attribution, emit, counts)
        except (OSError, har.ArchiveError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            reason = error.strerror if isinstance(error, OSError) else str(error)
            click.echo(f"mmsensor: {archive}: {reason}", err=True)
            unreadable = True
    for line in counts.lines():
        click.echo(line, err=True)
    sys.exit(Exit.UNHEALTHY if unreadable else Exit.OK)


@main.group()
def config() -> None:
    """Check and show the configuration."""


@config.command()
@config_option
@_one_line_errors
def validate(config: Path | None) -> None:
    """Check the configuration; every mistake is named with its file and line (exit code 78)."""
    settings = load_settings(config, {}).settings
    kafka = settings.to_kafka
    if kafka is not None:
        from mmproto.kafka.connection import kafka_needed  # noqa: PLC0415

        with kafka_needed():
            from mmproto.kafka.producer import KafkaClient  # noqa: PLC0415
        KafkaClient(kafka, settings.node_name).close()
    files = configuration_files("sensor", config)
    click.echo(f"valid: {', '.join(map(str, files)) if files else 'no file, the defaults apply'}")


@config.command()
@config_option
@state_option
@output_option
@_one_line_errors
def show(config: Path | None, state_dir: Path | None, output: str) -> None:
    """Show the settings in force and where each comes from; secrets are masked."""
    loaded = load_settings(config, {"state_dir": state_dir})
    document = shown(loaded.settings)
    _print(document, output, lambda: render.table(list(_setting_rows(loaded, document))))


@config.command("hash-key")
@config_option
@state_option
@_one_line_errors
def hash_key(config: Path | None, state_dir: Path | None) -> None:
    """Read an API key on standard input and print its hash, as api_key_hash of a rule matches it."""
    from mmproto.delivery import SpoolUnavailable  # noqa: PLC0415
    from mmsensor.attribution.keyhash import HASH_KEY_FILE, KeyHash  # noqa: PLC0415

    settings = load_settings(config, {"state_dir": state_dir}).settings
    key = sys.stdin.readline().strip()
    if not key:
        _fail(
            'no key on standard input; try: printf %s "$OPENAI_API_KEY" | mmsensor config hash-key',
            Exit.USAGE,
        )
    try:
        click.echo(KeyHash(settings.folder / HASH_KEY_FILE)(key))
    except SpoolUnavailable as error:
        _fail(str(error), Exit.PERMISSION if error.permission else Exit.UNHEALTHY)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"mmsensor {installed_version()}")


def _asked(config: Path | None, state_dir: Path | None, target: str) -> Any:
    """The running sensor's answer, decoded. Ends the command where there is none."""
    path = load_settings(config, {"state_dir": state_dir}).settings.control_socket
    try:
        code, body = ask(path, target)
    except PermissionError:
        _fail(
            f"no permission to ask the sensor at {path}: run as root or as the sensor's user", Exit.PERMISSION
        )
    except OSError as error:
        reason = error.strerror or str(error)
        _fail(
            f"no sensor answers at {path} ({reason}): is it running, with this state folder?",
            Exit.UNREACHABLE,
        )
    if code != 200:
        _fail(f"the sensor at {path} answered {code}: {body.strip()}", Exit.UNREACHABLE)
    return json.loads(body)


def _print(document: Any, output: str, text: Callable[[], str]) -> None:
    if output == "json":
        # Bytes of a file name that are no text are escaped, as JSON can.
        whole = json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
        click.echo(whole.decode("utf-8"))
    elif output == "yaml":
        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip())
    else:
        click.echo(render.legible(text()))


def _setting_rows(loaded: Loaded[SensorSettings], document: Any) -> Iterable[tuple[str, str, str]]:
    yield ("SETTING", "VALUE", "FROM")
    for key, value in _flat(document, ""):
        origins = (loaded.origins.get(part) for part in _prefixes(key))
        yield (key, json.dumps(value, ensure_ascii=False), next(filter(None, origins), "default"))


def _flat(document: Any, key: str) -> Iterable[tuple[str, Any]]:
    if isinstance(document, dict) and document:
        for name, value in document.items():
            yield from _flat(value, f"{key}.{name}" if key else name)
    else:
        yield key, document


def _prefixes(key: str) -> Iterable[str]:
    while key:
        yield key
        key = key.rpartition(".")[0]
