"""PostgreSQL on this machine: a cluster of its own in a folder, on a loopback port.

Everything that it stores is below its folder, so a server that was stopped or killed goes on where it was,
on the same port. It does not run as root: where we are root it runs as an unprivileged user, to whom the
folder belongs. It trusts every local connection: for tests and for trying things.

Its roles: `owner` may make the product's roles and owns its tables; `worker` and `app` log in as processes
do. Their memberships come with the migration: `grant` gives them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg

from mmlocal.process import ServiceFailed
from mmlocal.services.ports import LoopbackPort

BINARIES = Path("/usr/lib/postgresql/15/bin")
# The folders above its own may be root's alone, as those of tests are; it needs to pass through them.
THROUGH_FOLDERS = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
# Users that are there on every Debian, the first that exists.
USERS = ("postgres", "nobody")
# It must not outlive the tests or the supervisor, however these end.
WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
OWNER = "mm_owner"
# Login role and the role that it is a member of.
LOGINS = {"mm_worker": "modelmeter_worker", "mm_app": "modelmeter_app"}


class PostgreSQL:
    """`start`, `stop`, `kill`, and `start` again: same port, same data. Raises ServiceFailed.

    `durable` False gives up surviving a crash of the machine (not of the server) for speed.
    `close` gives the port back.
    """

    def __init__(
        self, folder: Path, *, durable: bool = True, port: int = 0, binaries: Path = BINARIES
    ) -> None:
        self.folder = folder
        self.log = folder / "postgresql.log"
        self._data = folder / "data"
        self._durable = durable
        self._binaries = binaries
        self._port = LoopbackPort(port)
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _unprivileged() if os.geteuid() == 0 else None

    @property
    def port(self) -> int:
        return self._port.number

    @property
    def pid(self) -> int:
        """Its first process. Raises ServiceFailed where there is none."""
        if self._process is None:
            raise ServiceFailed("postgresql does not run")
        return self._process.pid

    def url(self, role: str, database: str = "modelmeter") -> str:
        """postgresql://... of `owner`, `worker` or `app`."""
        return f"postgresql://mm_{role}@127.0.0.1:{self.port}/{database}"

    def start(self, timeout_s: float = 60.0) -> None:
        """Returns when it takes connections. The thread that calls must live as long as the server shall."""
        if not (self._binaries / "postgres").exists():
            raise ServiceFailed(f"no PostgreSQL in {self._binaries}: install the package postgresql-15")
        is_new = not (self._data / "PG_VERSION").exists()
        if is_new:
            self._initialise()
        deadline = time.monotonic() + timeout_s
        self._process = self._run()
        while not self._answers():
            if self._process.poll() is not None:
                # After a kill its children hold the shared memory until they saw that it is gone, and a new
                # server refuses to start beside them.
                if time.monotonic() > deadline or is_new:
                    code, self._process = self._process.returncode, None
                    raise ServiceFailed(f"postgresql ended with {code}; its log: {self.log}")
                self._process = self._run()
            if time.monotonic() > deadline:
                self.kill()
                raise ServiceFailed(f"postgresql is not ready after {timeout_s:.0f} s; its log: {self.log}")
            time.sleep(0.02)
        if is_new:
            self._make_logins()
            self.make_database("modelmeter")

    def make_database(self, name: str, like: str = "template1") -> None:
        """A database that `owner` owns: an empty one, or a copy of one that nobody is connected to."""
        with self._admin() as admin:
            admin.execute(f'CREATE DATABASE "{name}" OWNER {OWNER} TEMPLATE "{like}"'.encode())

    def drop_database(self, name: str) -> None:
        """Remove a database, with whoever is connected to it."""
        with self._admin() as admin:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())

    def grant(self) -> None:
        """Make `worker` and `app` members of the product's roles: once a migration has made those."""
        with self._admin() as admin:
            for login, role in LOGINS.items():
                admin.execute(f"GRANT {role} TO {login}".encode())

    def stop(self, patience_s: float = 20.0) -> None:
        """Ends it, with its connections. Safe to call when it does not run."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)  # fast shutdown
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """kill -9 of the first process; the others see it and end. Safe to call when it does not run."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def close(self) -> None:
        """`stop`, and the port is no longer held."""
        self.stop()
        self._port.close()

    def _run(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self._as_user(), *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )

    def _initialise(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._data.mkdir(mode=0o700, exist_ok=True)
        if self._user is not None:
            shutil.chown(self._data, self._user.pw_uid, self._user.pw_gid)
        done = subprocess.run(
            [
                *self._as_user(),
                str(self._binaries / "initdb"),
                "-D", str(self._data),
                "-U", "postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )  # fmt: skip
        if done.returncode:
            raise ServiceFailed(f"postgresql's cluster in {self._data} cannot be made: {done.stderr.strip()}")

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "64MB",
            "max_connections": "60",
            "fsync": "on" if self._durable else "off",
            "max_wal_size": "1GB",
            "log_min_messages": "warning",
            "deadlock_timeout": "200ms",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self._data), *options]

    def _as_user(self) -> list[str]:
        if self._user is None:
            return [*WITH_PARENT, "--"]
        ids = (f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups")
        return [*WITH_PARENT, *ids, *THROUGH_FOLDERS, "--"]

    def _admin(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", autocommit=True
        )

    def _answers(self) -> bool:
        try:
            self._admin().close()
        except psycopg.OperationalError:
            return False
        return True

    def _make_logins(self) -> None:
        with self._admin() as admin:
            admin.execute(f"CREATE ROLE {OWNER} LOGIN CREATEROLE".encode())
            for login in LOGINS:
                admin.execute(f"CREATE ROLE {login} LOGIN".encode())


def _unprivileged() -> pwd.struct_passwd:
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServiceFailed(f"postgresql does not run as root, and there is none of {', '.join(USERS)}")
