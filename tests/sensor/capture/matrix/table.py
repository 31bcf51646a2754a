"""The clients of the coverage matrix, a row each: how it starts, what carries its TLS, what is expected.

A row whose client is missing fails: a client that was never tried must not look like one that is covered.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.sensor.capture.matrix import software

CLIENTS = Path(__file__).parents[1] / "clients"
#: Sizes of the bodies that every client posts in turn, each of which comes back.
SIZES = (1, 1000, 16_384, 40_009, 1_500_007)


#: The reason of a file in which the sensor sees nothing of TLS.
NOT_RECOGNISED = "not_recognised"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a client is told. `folder` is its own; `bodies` are the files that it posts."""

    port: int
    ca: Path
    bodies: tuple[Path, ...]
    folder: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/"


@dataclass(frozen=True, slots=True)
class Whole:
    """Every byte is captured, and `strategy` is how the sensor found the functions."""

    strategy: str

    def __str__(self) -> str:
        return "captured whole"


@dataclass(frozen=True, slots=True)
class Uncovered:
    """The sensor says that it does not cover the file, with this reason."""

    reason: str
    strategy = ""

    def __str__(self) -> str:
        return f"not covered: {self.reason}"


@dataclass(frozen=True, slots=True)
class Client:
    """`library` is the file that carries TLS, by the path that the process maps it under. `protocols` is what
    the server offers. A shell holds the client until it is told to go: `around` is put before that shell,
    `setup` and `release` it does before and after."""

    name: str
    tls: str
    command: Callable[[Plan], list[str]]
    library: Callable[[Plan], Path]
    expected: Whole | Uncovered
    protocols: tuple[str, ...] = ("http/1.1",)
    grpc: bool = False
    around: tuple[str, ...] = ()
    setup: Callable[[Plan], str] | None = None
    release: str = ""


def curl(
    *flags: str, program: str = "curl", before: Callable[[Plan], list[str]] = lambda _plan: []
) -> Callable[[Plan], list[str]]:
    """One curl process, one transfer a body, one connection."""

    def command(plan: Plan) -> list[str]:
        transfers: list[str] = []
        for body in plan.bodies:
            transfers += ["--next"] if transfers else []
            transfers += ["--silent", "--show-error", "--fail", "--cacert", str(plan.ca), *flags]
            transfers += ["--resolve", f"localhost:{plan.port}:127.0.0.1", "--data-binary", f"@{body}"]
            transfers += ["--output", str(plan.folder / "answer"), plan.url]
        return [*before(plan), program, *transfers]

    return command


def script(interpreter: Callable[[], Path], name: str, mode: str) -> Callable[[Plan], list[str]]:
    def command(plan: Plan) -> list[str]:
        # env, for the one client that takes its authorities from nowhere else.
        extra = f"NODE_EXTRA_CA_CERTS={plan.ca}"
        return [
            *("env", extra, str(interpreter()), str(CLIENTS / name), mode, plan.url, str(plan.ca)),
            *map(str, plan.bodies),
        ]

    return command


def python(mode: str) -> Callable[[Plan], list[str]]:
    return script(lambda: Path(sys.executable), "python.py", mode)


def javascript(interpreter: Callable[[], Path], mode: str) -> Callable[[Plan], list[str]]:
    return script(interpreter, "node.mjs", mode)


def go(program: Callable[[], Path]) -> Callable[[Plan], list[str]]:
    return lambda plan: [str(program()), plan.url, str(plan.ca), *map(str, plan.bodies)]


def at(path: Callable[[], Path]) -> Callable[[Plan], Path]:
    return lambda _plan: path()


def system_libssl() -> Path:
    return software.linked("libssl", Path(shutil.which("curl") or software.missing("curl")))


def python_libssl() -> Path:
    import _ssl

    return software.linked("libssl", Path(_ssl.__file__))


def in_package(name: str, pattern: str) -> Callable[[Plan], Path]:
    """The one file of an installed package, or of the libraries beside it, that matches."""

    def library(_plan: Plan) -> Path:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            software.missing(name)
        site = Path(spec.origin).parent
        site = site if spec.submodule_search_locations is None else site.parent
        return next(site.resolve().glob(pattern), None) or software.missing(f"{pattern} of {name}")

    return library


# -- the same library in other places ----------------------------------------------------------------


def copied(plan: Plan) -> Path:
    """A libssl under a name that says nothing."""
    target = plan.folder / "innocent.bin"
    if not target.exists():
        shutil.copy(system_libssl(), target)
    return target


def rooted(plan: Plan) -> Path:
    """A folder that is enough to run curl in as its root; returns it."""
    root = plan.folder / "root"
    if not root.exists():
        program = Path(shutil.which("curl") or software.missing("curl"))
        for file in (program, *software.libraries(program)):
            place = root / file.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
        for file in (plan.ca, *plan.bodies):
            shutil.copy(file, root / file.name)
    return root


def curl_in_root(plan: Plan) -> list[str]:
    root = rooted(plan)
    inside = Plan(
        plan.port, Path("/", plan.ca.name), tuple(Path("/", body.name) for body in plan.bodies), Path("/")
    )
    return ["chroot", str(root), *curl(program=shutil.which("curl") or "curl")(inside)]


def library_in_root(plan: Plan) -> Path:
    soname = next(
        file for file in software.libraries(Path(shutil.which("curl") or "")) if "libssl" in file.name
    )
    return rooted(plan) / soname.relative_to("/")


MOUNTED = Path("/mnt/libssl.so.3")


def mounting(plan: Plan) -> str:
    """A libssl on a file system that only this namespace sees, in use there before the client starts."""
    return (
        f"mount -t tmpfs none {MOUNTED.parent} && cp {system_libssl()} {MOUNTED} && "
        f"{{ LD_PRELOAD={MOUNTED} sleep 120 </dev/null >/dev/null & keep=$!; }}"
    )


def preloading(library: Callable[[Plan], Path]) -> Callable[[Plan], list[str]]:
    return lambda plan: ["env", f"LD_PRELOAD={library(plan)}"]


EXPORTED, SEARCHED, GO = Whole("exported"), Whole("boringssl"), Whole("go")
HTTP2 = ("h2", "http/1.1")

SYSTEM, COPY = "OpenSSL of the system", "OpenSSL, a copy"
WHEEL, BORING_WHEEL = "OpenSSL in the wheel", "BoringSSL in the wheel"
NODE = "OpenSSL in node"

TABLE = (
    Client("curl, HTTP/1.1", SYSTEM, curl("--http1.1"), at(system_libssl), EXPORTED),
    Client("curl, HTTP/2", SYSTEM, curl("--http2"), at(system_libssl), EXPORTED, HTTP2),
    Client("CPython, http.client", SYSTEM, python("http.client"), at(python_libssl), EXPORTED),
    Client("CPython, asyncio", SYSTEM, python("asyncio"), at(python_libssl), EXPORTED),
    Client("CPython, requests", SYSTEM, python("requests"), at(python_libssl), EXPORTED),
    Client("CPython, httpx", SYSTEM, python("httpx"), at(python_libssl), EXPORTED),
    Client("CPython, aiohttp", SYSTEM, python("aiohttp"), at(python_libssl), EXPORTED),
    Client(
        "CPython, pycurl", WHEEL, python("pycurl"),
        in_package("pycurl", "pycurl.libs/libssl-*"), EXPORTED, HTTP2,
    ),
    Client(
        "CPython, curl_cffi", BORING_WHEEL, python("curl_cffi"),
        in_package("curl_cffi", "curl_cffi/_wrapper*.so"), Whole("local"), HTTP2,
    ),
    Client(
        "CPython, grpcio", BORING_WHEEL, python("grpcio"),
        in_package("grpc", "grpc/_cython/cygrpc*.so"), SEARCHED, ("h2",),
        grpc=True,
    ),
    Client(
        "CPython, httpr", "rustls in the wheel", python("httpr"),
        in_package("httpr", "httpr/httpr*.so"), Uncovered("rustls"), HTTP2,
    ),
    Client("node, https", NODE, javascript(software.node, "https"), at(software.node), EXPORTED),
    Client("node, fetch", NODE, javascript(software.node, "fetch"), at(software.node), EXPORTED),
    Client("node, http2", NODE, javascript(software.node, "http2"), at(software.node), EXPORTED, HTTP2),
    Client(
        "bun, fetch", "BoringSSL in bun, stripped", javascript(software.bun, "fetch"),
        at(software.bun), SEARCHED,
    ),
    Client("Go, net/http", "crypto/tls", go(software.go), at(software.go), GO, HTTP2),
    Client(
        "Go, net/http, -s -w", "crypto/tls, stripped", go(software.stripped_go),
        at(software.stripped_go), GO, HTTP2,
    ),
    Client("libssl under another name", COPY, curl(before=preloading(copied)), copied, EXPORTED, HTTP2),
    Client(
        "libssl in another mount namespace", COPY, curl(before=preloading(lambda _plan: MOUNTED)),
        lambda _plan: MOUNTED, EXPORTED, HTTP2,
        around=("unshare", "--mount"), setup=mounting, release="kill $keep",
    ),
    Client("curl in a chroot", COPY, curl_in_root, library_in_root, EXPORTED, HTTP2),
)  # fmt: skip
