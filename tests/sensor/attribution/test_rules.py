"""Rules: order, globs, references, and what must never be matched."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmproto.settings import ConfigurationError
from mmproto.v1.call_pb2 import Call, Origin, Process
from mmsensor.attribution.keyhash import KeyHash
from mmsensor.attribution.rules import Attribution
from mmsensor.config import load_settings


def _rules(rules: list[dict[str, Any]]) -> Attribution:
    loaded = load_settings(Path("/dev/null"), {"attribution.rules": rules}, env={})
    return Attribution(loaded.settings.attribution.rules)


def _call(**fields: Any) -> Call:
    call = Call(
        host="api.openai.com",
        provider="openai",
        process=Process(
            exe="/usr/bin/python3.11", command="python3", user="web", systemd_unit="shop.service"
        ),
        origin=Origin(
            api_key_hash="0123456789abcdef", organization="org-1", project="proj_search", end_user="u7"
        ),
    )
    call.MergeFrom(Call(**fields))
    return call


def _owner(attribution: Attribution, call: Call, headers: dict[str, str] | None = None) -> list[str]:
    attribution.apply(call, headers or {})
    return [call.tenant, call.team, call.application, call.user]


def test_without_rules_everything_is_unallocated() -> None:
    assert _owner(_rules([]), _call()) == ["", "", "", ""]


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ({}, True),
        ({"host": "*.OpenAI.com"}, True),
        ({"host": "api.anthropic.com"}, False),
        ({"provider": "open?i", "user": "web"}, True),
        ({"provider": "openai", "user": "root"}, False),
        ({"exe": "/usr/bin/python3*"}, True),
        ({"exe": "/USR/*"}, False),
        ({"command": "[pq]ython3"}, True),
        ({"systemd_unit": "shop.*"}, True),
        ({"cgroup": "*"}, False),
        ({"api_key_hash": "0123456789abcdef"}, True),
        ({"organization": "org-1", "project": "proj_*"}, True),
        ({"end_user": "u?"}, True),
        ({"header": {"X-Team": "gr*n"}}, True),
        ({"header": {"x-team": "green", "x-other": "*"}}, False),
    ],
)
def test_every_pattern_of_a_rule_must_match(match: dict[str, Any], matches: bool) -> None:
    attribution = _rules([{"match": match, "set": {"team": "t"}}])
    assert _owner(attribution, _call(), {"x-team": "green"})[1] == ("t" if matches else "")


def test_the_first_rule_wins_for_each_field() -> None:
    attribution = _rules(
        [
            {"match": {"user": "web"}, "set": {"team": "first"}},
            {"match": {"user": "nobody"}, "set": {"application": "never"}},
            {"set": {"team": "second", "application": "shop", "tenant": "acme"}},
        ]
    )
    assert _owner(attribution, _call()) == ["acme", "first", "shop", ""]


def test_values_may_refer_to_facts_and_fall_through_where_one_is_unknown() -> None:
    attribution = _rules(
        [
            {"set": {"user": "{header.X-User}@{organization}", "application": "{cgroup}"}},
            {"set": {"user": "{end_user}", "application": "{systemd_unit}"}},
        ]
    )
    assert attribution.headers == {"x-user"}
    assert _owner(attribution, _call(), {"x-user": "ann"}) == ["", "", "shop.service", "ann@org-1"]
    assert _owner(attribution, _call()) == ["", "", "shop.service", "u7"]


def test_what_is_set_already_stays() -> None:
    assert _owner(_rules([{"set": {"team": "x", "user": "y"}}]), _call(team="own"))[1::2] == ["own", "y"]


@given(st.text(max_size=600))
def test_whatever_a_header_holds_the_value_is_one_short_printable_line(value: str) -> None:
    attribution = _rules([{"set": {"user": "u {header.x}"}}])
    user = _owner(attribution, _call(), {"x": value})[3]
    assert len(user) <= 256
    assert user.isprintable()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"match": {"header": {"Authorization": "*"}}, "set": {"team": "x"}},
            "is a credential and is never matched",
        ),
        ({"set": {"team": "{header.x-api-key}"}}, "which is a credential"),
        ({"set": {"team": "{procss}"}}, "known are header.NAME, host"),
        ({"match": {"user": "x"}}, "the rule sets nothing"),
        ({"match": {"usr": "x"}, "set": {"team": "x"}}, "did you mean 'user'"),
        ({"set": {"taem": "x"}}, "did you mean 'team'"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _rules([rule])


def test_key_hashes_are_stable_keyed_and_short(tmp_path: Path) -> None:
    one, other = KeyHash(tmp_path / "a"), KeyHash(tmp_path / "b")
    assert one("sk-1") == KeyHash(tmp_path / "a")("sk-1")
    assert len({one("sk-1"), one("sk-2"), other("sk-1")}) == 3
    assert len(one("sk-1")) == 16
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert one("not \udcff utf-8")
