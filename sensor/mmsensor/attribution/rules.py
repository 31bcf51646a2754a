"""Rules that map what is known of a call to tenant, team, application and user.

The rules stand in order; for each of the four the first rule that matches and gives a value wins. A rule
matches when every pattern in it does. What no rule maps stays empty: unallocated spend is a number of its
own, and a guess would hide it.

A value may refer to facts, `user: "{header.x-user}"`: where a fact it refers to is not known, the rule
gives no value and the next one is asked.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmproto.exchange import CREDENTIAL_HEADERS
from mmproto.settings import setting
from mmproto.v1.call_pb2 import Call

FACTS = (
    "host",
    "provider",
    "exe",
    "command",
    "user",
    "systemd_unit",
    "cgroup",
    "api_key_hash",
    "organization",
    "project",
    "end_user",
)
TARGETS = ("tenant", "team", "application", "user")
_REFERENCE = re.compile(r"\{([^{}]*)\}")
_MAX_VALUE = 256


@dataclass(frozen=True, slots=True)
class Match:
    """Globs (`*`, `?`, `[abc]`), all of which must match. An empty one says nothing."""

    host: str = setting("", about="host that was called")
    provider: str = setting("", about="provider by its OpenTelemetry name")
    exe: str = setting("", about="path of the executable")
    command: str = setting("", about="name of the process")
    user: str = setting("", about="system user that runs the process")
    systemd_unit: str = setting("", about="systemd unit of the process")
    cgroup: str = setting("", about="cgroup path of the process")
    api_key_hash: str = setting("", about="keyed hash of the API key (mmsensor config hash-key)")
    organization: str = setting("", about="OpenAI-Organization of the request")
    project: str = setting("", about="OpenAI-Project of the request")
    end_user: str = setting("", about="end user named in the request body")
    header: Mapping[str, str] = setting(factory=dict, about="request headers by name")

    def __post_init__(self) -> None:
        refused = sorted(name for name in self.header if name.lower() in CREDENTIAL_HEADERS)
        if refused:
            raise ValueError(f"header '{refused[0]}' is a credential and is never matched; use api_key_hash")


@dataclass(frozen=True, slots=True)
class Assign:
    """What a matching rule says; "" says nothing."""

    tenant: str = setting("", about="tenant")
    team: str = setting("", about="team")
    application: str = setting("", about="application")
    user: str = setting("", about="user")

    def __post_init__(self) -> None:
        for target in TARGETS:
            for reference in _REFERENCE.findall(getattr(self, target)):
                header = reference.removeprefix("header.")
                if header != reference and header.lower() in CREDENTIAL_HEADERS:
                    raise ValueError(f"{target} refers to '{header}', which is a credential")
                if header == reference and reference not in FACTS:
                    known = ", ".join(("header.NAME", *FACTS))
                    raise ValueError(f"{target} refers to '{{{reference}}}'; known are {known}")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the list."""

    match: Match = setting(factory=Match, about="what must be true")
    set: Assign = setting(factory=Assign, about="what is said of the call then")

    def __post_init__(self) -> None:
        if self.set == Assign():
            raise ValueError("the rule sets nothing; give tenant, team, application or user under 'set'")


class Attribution:
    """The compiled rules. `headers`: the lower-case names of the request headers they look at."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [(_compiled(rule.match), rule.set) for rule in rules]
        self.headers = frozenset(
            name.lower() for rule in rules for name in (*rule.match.header, *_referenced_headers(rule.set))
        )

    def apply(self, call: Call, headers: Mapping[str, str]) -> None:
        """Fills tenant, team, application and user of `call`, as far as rules give them.

        The process and origin of the call must be filled; `headers` are by lower-case name.
        """
        if not self._rules:
            return
        facts = _facts(call)
        facts.update({f"header.{name}": value for name, value in headers.items()})
        missing = [target for target in TARGETS if not getattr(call, target)]
        for patterns, assign in self._rules:
            if not missing:
                return
            if all(pattern(facts.get(name, "")) for name, pattern in patterns):
                for target in list(missing):
                    if value := _expanded(getattr(assign, target), facts):
                        setattr(call, target, value)
                        missing.remove(target)


def _facts(call: Call) -> dict[str, str]:
    process, origin = call.process, call.origin
    return {
        "host": call.host.lower(),
        "provider": call.provider,
        "exe": process.exe,
        "command": process.command,
        "user": process.user,
        "systemd_unit": process.systemd_unit,
        "cgroup": process.cgroup,
        "api_key_hash": origin.api_key_hash,
        "organization": origin.organization,
        "project": origin.project,
        "end_user": origin.end_user,
    }


def _compiled(match: Match) -> list[tuple[str, Callable[[str], object]]]:
    patterns = [(name, getattr(match, name)) for name in FACTS]
    patterns += [(f"header.{name.lower()}", pattern) for name, pattern in match.header.items()]
    return [(name, _glob(pattern, name == "host")) for name, pattern in patterns if pattern]


def _glob(pattern: str, fold_case: bool) -> Callable[[str], object]:
    """A matcher of non-empty values: `*` asks that the fact is known."""
    whole = re.compile(fnmatch.translate(pattern.lower() if fold_case else pattern)).match
    return lambda value: bool(value) and whole(value)


def _referenced_headers(assign: Assign) -> list[str]:
    references = [name for target in TARGETS for name in _REFERENCE.findall(getattr(assign, target))]
    return [name.removeprefix("header.") for name in references if name.startswith("header.")]


def _expanded(template: str, facts: Mapping[str, str]) -> str:
    """`template` with its references replaced; "" where one of them is not known."""
    names = _REFERENCE.findall(template)
    values = {name: facts.get(name.lower() if name.startswith("header.") else name, "") for name in names}
    if not all(values.values()):
        return ""
    # Header values come from outside: whatever they hold, the result is one short printable word.
    text = _REFERENCE.sub(lambda found: values[found[1]], template)
    return "".join(character for character in text if character.isprintable())[:_MAX_VALUE]
