"""A real browser for tests: what the page's scripts do, what the browser complains about, how it looks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DRIVER = Path(__file__).with_name("browser.mjs")
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of a visit: values of the `run` steps, and all that the browser complained about."""

    results: list[Any]
    complaints: list[str]


def visit(
    url: str,
    steps: Sequence[dict[str, Any]] = (),
    *,
    scheme: str = "light",
    width: int = 1400,
    height: int = 1000,
    screenshot: Path | None = None,
) -> Visit:
    """Open `url` in a fresh headless Chromium and do `steps` (browser.mjs lists them).

    Fails, and never skips, where there is no Chromium or no node of the environment.
    """
    chromium = next((found for name in _NAMES if (found := shutil.which(name))), None)
    assert chromium, f"no Chromium found ({', '.join(_NAMES)}); `make setup-dev` installs one"
    node = Path(sys.executable).with_name("node")
    with tempfile.TemporaryDirectory(prefix="mm-browser-", ignore_cleanup_errors=True) as profile:
        task = {
            "chromium": chromium,
            "profile": profile,
            "url": url,
            "width": width,
            "height": height,
            "scheme": scheme,
            "screenshot": str(screenshot) if screenshot else None,
            "steps": list(steps),
        }
        done = subprocess.run(
            [str(node), str(_DRIVER)],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    form = json.loads(done.stdout)
    return Visit(form["results"], form["complaints"])
