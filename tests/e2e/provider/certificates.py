"""A certificate authority of our own and a server certificate, made by the openssl command.

The certificate names localhost, 127.0.0.1 and the providers' own hosts, so that an unmodified client can be
pointed here by a base URL, or by `curl --connect-to` with the provider's real host name in SNI and Host.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HOSTS = ("localhost", "api.openai.com", "api.anthropic.com")
DAYS = 30
ONE_DAY_S = 86_400


class CertificateError(RuntimeError):
    """openssl refused; the text is its own last line, with what to do."""


@dataclass(frozen=True, slots=True)
class Certificates:
    ca: Path  # what clients trust
    chain: Path
    key: Path


def make_certificates(folder: Path, hosts: Sequence[str] = HOSTS) -> Certificates:
    """Certificates in `folder`, kept from the last run while they are good for another day."""
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    files_there = all(path.exists() for path in (made.ca, made.chain, made.key))
    if files_there and _openssl(
        "x509", "-checkend", str(ONE_DAY_S), "-noout", "-in", str(made.chain), check=False
    ):
        return made
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, request, extensions = folder / "ca.key", folder / "server.csr", folder / "server.ext"
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl(
        *("req", "-x509", *new_key, "-days", str(DAYS), "-subj", "/CN=ModelMeter local provider CA"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", str(ca_key), "-out", str(made.ca)),
    )
    _openssl("req", *new_key, "-subj", "/CN=localhost", "-keyout", str(made.key), "-out", str(request))
    names = ",".join(["IP:127.0.0.1", *(f"DNS:{host}" for host in hosts)])
    extensions.write_text(
        f"subjectAltName={names}\n"
        "basicConstraints=critical,CA:FALSE\n"
        "keyUsage=critical,digitalSignature\n"
        "extendedKeyUsage=serverAuth\n"
        "subjectKeyIdentifier=hash\n"
        "authorityKeyIdentifier=keyid\n",
        encoding="utf-8",
    )
    _openssl(
        *("x509", "-req", "-in", str(request), "-CA", str(made.ca), "-CAkey", str(ca_key), "-CAcreateserial"),
        *("-days", str(DAYS), "-extfile", str(extensions), "-out", str(made.chain)),
    )
    ca_key.unlink()  # nobody signs with it again
    return made


def _openssl(*arguments: str, check: bool = True) -> bool:
    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CertificateError("the openssl command is missing: install the package `openssl`") from error
    if check and done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CertificateError(f"openssl {arguments[0]} failed: {last}")
    return done.returncode == 0
