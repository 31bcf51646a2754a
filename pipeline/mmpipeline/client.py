"""Asks the running pipeline, whose address is in `<state>/pipeline/address`.

Errors: `NotRunning` (nobody answers), `Refused` (the pipeline answered with an error).
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

_TIMEOUT_S = 30.0


class NotRunning(Exception):
    """Nobody answers; str() says where and what to do."""


class Refused(Exception):
    """The pipeline answered with an error; str() is its own explanation."""


def address(file: Path) -> str:
    """Where the pipeline listens. Raises NotRunning."""
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        raise NotRunning(f"no pipeline runs with {file.parent}; start it with `mmpipeline serve`") from None


def get(url: str, path: str, query: dict[str, Any] | None = None, timeout_s: float = _TIMEOUT_S) -> Any:
    """The JSON answer to a GET. Raises NotRunning, Refused."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise NotRunning(f"'{url}' is no address of a pipeline; http://HOST:PORT is expected")
    given = {name: value for name, value in (query or {}).items() if value is not None}
    target = path + (f"?{urlencode(given, doseq=True)}" if given else "")
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    try:
        connection.request("GET", target, headers={"accept": "application/json"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotRunning(
            f"no pipeline answers at {url}: {error}; start it with `mmpipeline serve`"
        ) from error
    finally:
        connection.close()
    try:
        form = json.loads(body)
    except ValueError:
        raise Refused(f"{url}{path} answered {response.status} without JSON; is it a pipeline?") from None
    if response.status != 200:
        detail = form.get("detail") if isinstance(form, dict) else None
        raise Refused(str(detail or f"{url}{path} answered {response.status}"))
    return form
