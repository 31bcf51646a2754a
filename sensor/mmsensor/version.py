"""The version of the installed distribution."""

from __future__ import annotations

from functools import cache


@cache
def version() -> str:
    """As in pyproject.toml; "unknown" where the code runs without being installed."""
    # Imported on use: it brings the e-mail parser with it, which the daemon otherwise does without.
    from importlib import metadata  # noqa: PLC0415

    try:
        return metadata.version("modelmeter")
    except metadata.PackageNotFoundError:
        return "unknown"
