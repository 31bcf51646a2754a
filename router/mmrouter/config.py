"""The router's settings: what may stand in router.yaml, and the checks that only make sense together.

Secrets never stand in the file. A provider's key comes from an environment variable or a file, a virtual
key is configured by its SHA-256; so the file may be shown, copied and kept under version control.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mmproto.delivery.token import TOKEN_FILE
from mmproto.kafka.settings import KafkaSettings
from mmproto.settings import STATE_DIR, ConfigurationError, Problem, Secret, setting
from mmrouter.dialects import Dialect
from mmrouter.keys import VirtualKey
from mmrouter.server.upstream import Endpoint

DEFAULT_PIPELINE = "http://127.0.0.1:8780"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ListenSettings:
    host: str = setting("127.0.0.1", about="Address to listen on. Anything but loopback should have TLS.")
    port: int = setting(8790, about="Port; 0 lets the kernel choose one.", minimum=0, maximum=65535)
    tls_cert: Path | None = setting(
        None, about="Certificate chain (PEM); with tls_key the router speaks TLS."
    )
    tls_key: Path | None = setting(None, about="Private key (PEM) of tls_cert.")


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    url: str = setting(
        "",
        about="The pipeline's URL; empty: the one in <state>/pipeline/address, else http://127.0.0.1:8780.",
    )
    token_file: Path | None = setting(None, about="File with the ingest token; default <state>/ingest.token.")
    poll_s: float = setting(1.0, about="How often budgets are asked for.", unit="seconds", minimum=0.05)
    state_max_age_s: float = setting(
        30.0,
        about="Without an answer for this long the pipeline counts as away.",
        unit="seconds",
        minimum=0.1,
    )
    timeout_s: float = setting(
        10.0,
        about="Time for one request to the pipeline; with Kafka, to know the present state at the start.",
        unit="seconds",
        minimum=0.1,
    )


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    name: str = setting(about="Name in messages and metrics.")
    base_url: str = setting(about="e.g. https://api.openai.com; a trailing /v1 may be given or not.")
    dialect: Literal["openai", "anthropic"] = setting(about="Whose API it speaks: the paths that go there.")
    provider: str = setting("", about="OpenTelemetry's gen_ai.provider.name; default: the dialect's own.")
    api_key_env: str = setting("", about="Environment variable that holds the provider's key.")
    api_key_file: Path | None = setting(None, about="File that holds the provider's key.")
    ca_file: Path | None = setting(None, about="CA certificates (PEM) to trust instead of the system's.")
    allow_plain_http: bool = setting(False, about="Allow http:// to a host that is not loopback.")


@dataclass(frozen=True, slots=True)
class KeySettings:
    id: str = setting(about="Name of the key in records and budgets; not secret.")
    sha256: str = setting(about="SHA-256 of the key, as `mmrouter keys new` prints it.")
    team: str = setting("", about="Team whose budget its calls count against.")
    application: str = setting("", about="Application that uses the key.")
    user: str = setting("", about="User, where the key belongs to one.")
    tenant: str = setting("default", about="Tenant.")
    models: tuple[str, ...] = setting(
        (), about="Models it may call, `gpt-4o*` matches by prefix; empty: all."
    )


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    on_pipeline_loss: Literal["fail_open", "fail_closed"] = setting(
        "fail_open",
        about="While the pipeline is away: go on with the last known budgets, or refuse every call.",
    )
    unpriced_models: Literal["refuse", "allow"] = setting(
        "refuse", about="A model without a known price, where a budget blocks."
    )
    admission: Literal["until_spent", "must_fit"] = setting(
        "until_spent",
        about="until_spent admits a call while the budget is not used up, reservations in flight included: "
        "the last call may cross the limit. must_fit also wants the call's own upper bound to fit.",
    )
    bytes_per_token: float = setting(
        2.0, about="Request bytes taken for one token in the upper bound.", minimum=0.25, maximum=16
    )
    max_input_tokens: int = setting(
        1_000_000,
        about="Input of a call whose input is not in the request, and the most any call has.",
        minimum=1,
    )
    max_output_tokens: int = setting(
        16_384, about="Output assumed for a call that sets no limit of its own.", minimum=1
    )


@dataclass(frozen=True, slots=True)
class LimitSettings:
    connections: int = setting(4096, about="Connections from applications at once.", minimum=1)
    upstream_connections: int = setting(512, about="Connections to each provider at once.", minimum=1)
    body_bytes: int = setting(256 * _MIB, about="Largest request body.", unit="bytes", minimum=1024)
    hold_bytes: int = setting(
        4 * _MIB,
        about="Largest request read before it is sent, where a budget applies.",
        unit="bytes",
        minimum=1024,
    )
    head_s: float = setting(10.0, about="For the head of a request.", unit="seconds", minimum=0.1)
    idle_s: float = setting(
        75.0, about="For an idle connection from an application.", unit="seconds", minimum=0.1
    )
    body_idle_s: float = setting(
        30.0, about="For the next byte of a request body.", unit="seconds", minimum=0.1
    )
    body_total_s: float = setting(600.0, about="For a whole request body.", unit="seconds", minimum=0.1)
    stalled_s: float = setting(
        120.0, about="For a client that reads nothing of its answer.", unit="seconds", minimum=0.1
    )
    connect_s: float = setting(10.0, about="To connect to a provider.", unit="seconds", minimum=0.1)
    upstream_silence_s: float = setting(
        600.0, about="Of a provider's silence within an exchange.", unit="seconds", minimum=0.1
    )
    upstream_idle_s: float = setting(
        20.0, about="For an idle connection to a provider.", unit="seconds", minimum=0.1
    )
    drain_s: float = setting(
        10.0, about="For calls in flight when the router is stopped.", unit="seconds", minimum=0
    )


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    max_bytes: int = setting(
        512 * _MIB, about="Records kept while the pipeline is away.", unit="bytes", minimum=4096
    )


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Everything in router.yaml."""

    listen: ListenSettings = setting(factory=ListenSettings, about="Where applications connect.")
    pipeline: PipelineSettings = setting(factory=PipelineSettings, about="Where calls and budgets are.")
    kafka: KafkaSettings = setting(
        factory=KafkaSettings,
        about="With brokers, calls go to Kafka and budgets come from it, and pipeline.url is not used.",
    )
    upstreams: tuple[UpstreamSettings, ...] = setting(
        (), about="Providers; see the reference for the default."
    )
    keys: tuple[KeySettings, ...] = setting((), about="Virtual keys.")
    budgets: BudgetSettings = setting(factory=BudgetSettings, about="How budgets are enforced.")
    limits: LimitSettings = setting(factory=LimitSettings, about="Bounds on time and size.")
    spool: SpoolSettings = setting(factory=SpoolSettings, about="Records on their way to the pipeline.")
    state_dir: Path = setting(STATE_DIR, about="The state folder.")
    node: str = setting("", about="Name of this machine in records; default: its host name.")

    @property
    def folder(self) -> Path:
        """The router's own part of the state folder."""
        return self.state_dir / "router"

    @property
    def token_file(self) -> Path:
        return self.pipeline.token_file or self.state_dir / TOKEN_FILE

    @property
    def node_name(self) -> str:
        return self.node or socket.gethostname()

    def pipeline_url(self) -> str:
        """The pipeline's URL as it is known at this moment."""
        if self.pipeline.url:
            return self.pipeline.url
        try:
            return (self.state_dir / "pipeline" / "address").read_text().strip() or DEFAULT_PIPELINE
        except OSError:
            return DEFAULT_PIPELINE


@dataclass(frozen=True, slots=True)
class Provider:
    """An upstream, ready for use."""

    name: str
    provider: str
    dialect: Dialect
    endpoint: Endpoint
    key: Secret


# What is there without an `upstreams` section: each where its variable is set.
_DEFAULT_UPSTREAMS = (
    UpstreamSettings("openai", "https://api.openai.com", "openai", api_key_env="OPENAI_API_KEY"),
    UpstreamSettings("anthropic", "https://api.anthropic.com", "anthropic", api_key_env="ANTHROPIC_API_KEY"),
)


def virtual_keys(settings: RouterSettings) -> list[tuple[str, VirtualKey]]:
    """(digest, key) of every virtual key. Raises ConfigurationError."""
    problems: list[Problem] = []
    found: dict[str, VirtualKey] = {}
    ids: set[str] = set()
    for index, key in enumerate(settings.keys):
        where = f"keys[{index}]"
        digest = key.sha256.strip().lower()
        if len(digest) != 64 or digest.strip("0123456789abcdef"):
            problems.append(
                Problem(where, "sha256 is not 64 hexadecimal digits", "`mmrouter keys new` makes one")
            )
        if not key.id or key.id in ids:
            problems.append(Problem(where, f"the id '{key.id}' is empty or used twice"))
        if digest in found:
            problems.append(Problem(where, f"the same key as '{found[digest].id}'"))
        ids.add(key.id)
        found[digest] = VirtualKey(
            key.id, key.tenant, key.team, key.application, key.user, frozenset(key.models)
        )
    if problems:
        raise ConfigurationError(problems)
    return list(found.items())


def providers(settings: RouterSettings, env: Mapping[str, str]) -> list[Provider]:
    """The upstreams with their keys read. Raises ConfigurationError, which never repeats a key."""
    given = settings.upstreams or tuple(u for u in _DEFAULT_UPSTREAMS if env.get(u.api_key_env))
    problems: list[Problem] = []
    found: list[Provider] = []
    for index, upstream in enumerate(given):
        where = f"upstreams[{index}] ({upstream.name})"
        try:
            found.append(
                Provider(
                    upstream.name,
                    upstream.provider or upstream.dialect,
                    Dialect(upstream.dialect),
                    _endpoint(upstream, where),
                    _key(upstream, env, where),
                )
            )
        except ConfigurationError as error:
            problems += error.problems
    for dialect in Dialect:
        names = [p.name for p in found if p.dialect is dialect]
        if len(names) > 1:
            problems.append(Problem("upstreams", f"more than one speaks {dialect.value}: {', '.join(names)}"))
    if problems:
        raise ConfigurationError(problems)
    return found


def listener_tls(settings: RouterSettings) -> ssl.SSLContext | None:
    """TLS for the router's own port, None for plain HTTP. Raises ConfigurationError."""
    listen = settings.listen
    if listen.tls_cert is None and listen.tls_key is None:
        return None
    if listen.tls_cert is None or listen.tls_key is None:
        raise ConfigurationError([Problem("listen", "tls_cert and tls_key are only useful together")])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(listen.tls_cert, listen.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError([Problem("listen", f"the certificate cannot be used: {error}")]) from None
    return context


def _key(upstream: UpstreamSettings, env: Mapping[str, str], where: str) -> Secret:
    if upstream.api_key_env and upstream.api_key_file:
        raise ConfigurationError([Problem(where, "api_key_env and api_key_file are both given")])
    text = ""
    if upstream.api_key_env:
        text = env.get(upstream.api_key_env, "").strip()
        if not text:
            hint = "set it for the router's process, or use api_key_file"
            raise ConfigurationError(
                [Problem(where, f"the environment variable {upstream.api_key_env} holds no key", hint)]
            )
    elif upstream.api_key_file:
        try:
            text = upstream.api_key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = (
                os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not plain ASCII"
            )
            problem = Problem(where, f"the key file {upstream.api_key_file} cannot be read: {reason}")
            raise ConfigurationError([problem]) from None
        if not text:
            raise ConfigurationError([Problem(where, f"the key file {upstream.api_key_file} is empty")])
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError([Problem(where, "the provider's key holds characters that no key has")])
    return Secret(text)


def _endpoint(upstream: UpstreamSettings, where: str) -> Endpoint:
    parts = urlsplit(upstream.base_url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port == -1
        or parts.query
        or parts.fragment
    ):
        hint = "expected e.g. https://api.openai.com"
        raise ConfigurationError(
            [Problem(where, f"base_url '{upstream.base_url}' is not a URL to call", hint)]
        )
    prefix = parts.path.rstrip("/")
    if prefix.endswith("/v1"):
        prefix = prefix[: -len("/v1")]
    if parts.scheme == "http":
        local = parts.hostname == "localhost" or parts.hostname.startswith("127.") or parts.hostname == "::1"
        if not local and not upstream.allow_plain_http:
            hint = "use https://, or set allow_plain_http for a network you trust"
            raise ConfigurationError([Problem(where, "the provider's key would travel in the clear", hint)])
        return Endpoint(parts.hostname, port or 80, prefix, None)
    try:
        context = ssl.create_default_context(cafile=upstream.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            [Problem(where, f"ca_file {upstream.ca_file} cannot be used: {error}")]
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    return Endpoint(parts.hostname, port or 443, prefix, context)
