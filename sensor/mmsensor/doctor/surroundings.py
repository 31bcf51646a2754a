"""Where the checks look: the folders of the kernel, the configuration as far as it can be read."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from mmproto.settings import ConfigurationError, Loaded, configuration_files
from mmsensor.capture.kernel import privileges
from mmsensor.config import SensorSettings, load_settings


class Surroundings:
    """One look at the machine. What several checks need is found out once, when the first one asks."""

    def __init__(
        self,
        config: Path | None = None,
        flags: Mapping[str, object] | None = None,
        *,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
    ) -> None:
        self.proc = proc
        self.sys = sys
        self.files = configuration_files("sensor", config)
        self.problems: tuple[str, ...] = ()
        self._flags = flags or {}
        try:
            self.settings = load_settings(config, self._flags).settings
        except ConfigurationError as error:
            self.problems = tuple(map(str, error.problems))
            self.settings = self._without_files().settings

    def _without_files(self) -> Loaded[SensorSettings]:
        """The rest can be looked at all the same, with the defaults and the state folder that was given."""
        try:
            return load_settings(Path("/dev/null"), self._flags)
        except ConfigurationError:
            return load_settings(Path("/dev/null"), {}, env={})

    @functools.cached_property
    def held(self) -> frozenset[str]:
        """Names of the capabilities this process may use."""
        return privileges.held(self.proc / "self" / "status")

    @property
    def needs(self) -> tuple[privileges.When, ...]:
        """When the sensor as it is configured needs rights."""
        return privileges.needs(self.settings.capture.hold_first_exec)

    @functools.cached_property
    def missing_to_load(self) -> str:
        """The capabilities for want of which the kernel cannot be asked, for people; "" for none."""
        lacking = privileges.missing(among=self.held)
        return ", ".join(right.name for right in lacking if right.without is privileges.Without.REFUSES)

    @functools.cached_property
    def types(self) -> bytes:
        """The kernel's type information as it is; empty where it cannot be read."""
        try:
            return (self.sys / "kernel" / "btf" / "vmlinux").read_bytes()
        except OSError:
            return b""

    @property
    def lacks_multi_links(self) -> bool:
        """Whether the kernel certainly has no uprobe_multi links: its types show the function behind them."""
        return bool(self.types) and b"\0bpf_uprobe_multi_link_attach\0" not in self.types

    def number(self, setting: str) -> int | None:
        """A sysctl by its path below /proc/sys; None where it cannot be read."""
        try:
            return int((self.proc / "sys" / setting).read_text())
        except (OSError, ValueError):
            return None
