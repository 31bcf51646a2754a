"""The strict loader: precedence, types, places in errors, secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmproto.settings import (
    ConfigurationError,
    Secret,
    configuration_files,
    describe,
    load,
    read,
    setting,
    shown,
)


@dataclass(frozen=True, slots=True)
class Ring:
    size_bytes: int = setting(8 << 20, about="bytes of the ring", unit="bytes", minimum=4096)
    wait_s: float = setting(0.05, about="longest wait", unit="seconds", minimum=0, maximum=3600)


@dataclass(frozen=True, slots=True)
class Rule:
    match: Mapping[str, str] = setting(factory=dict, about="globs")
    team: str = setting("", about="team")

    def __post_init__(self) -> None:
        if self.team == "nobody":
            raise ValueError("a rule for nobody maps nothing")


@dataclass(frozen=True, slots=True)
class Settings:
    ring: Ring = setting(factory=Ring, about="the ring")
    rules: tuple[Rule, ...] = setting((), about="rules")
    state_dir: Path = setting(Path("/var/lib/x"), about="state")
    mode: Literal["fast", "safe"] = setting("safe", about="mode")
    token: Secret = setting(Secret(""), about="token")
    names: tuple[str, ...] = setting((), about="names")
    port: int | None = setting(None, about="port", minimum=0, maximum=65535)
    verbose: bool = setting(False, about="more words")


def _problems(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(Settings, [file], {}, {})
    return [str(problem).removeprefix(f"{file}") for problem in caught.value.problems]


def test_later_inputs_win_key_by_key(tmp_path: Path) -> None:
    main = tmp_path / "s.yaml"
    main.write_text("ring:\n  size_bytes: 64KiB\n  wait_s: 250ms\nmode: fast\nnames: [a, b]\n")
    (tmp_path / "s.d").mkdir()
    (tmp_path / "s.d" / "20.yaml").write_text("ring:\n  wait_s: 2\n")
    (tmp_path / "s.d" / "10.yaml").write_text("ring: {wait_s: 1}\nnames: [c]\n")
    files = configuration_files("sensor", main)
    assert [file.name for file in files] == ["s.yaml", "10.yaml", "20.yaml"]
    env = {"MODELMETER_MODE": "safe", "MODELMETER_PORT": "81", "MODELMETER_SENSOR_PORT": "82"}
    loaded = read(Settings, files, env, {"ring.size_bytes": "1MiB", "mode": None}, product="sensor")
    settings = loaded.settings
    assert settings.ring == Ring(size_bytes=1 << 20, wait_s=2.0)
    assert (settings.mode, settings.names, settings.port) == ("safe", ("c",), 82)
    assert loaded.origins["ring.wait_s"] == f"{tmp_path}/s.d/20.yaml:2"
    assert loaded.origins["mode"] == "environment variable MODELMETER_MODE"
    assert loaded.origins["ring.size_bytes"] == "command line (ring.size_bytes)"


def test_no_input_gives_the_defaults() -> None:
    assert load(Settings, [], {}, {}) == Settings()


@pytest.mark.parametrize("text", ["", "# only a comment\n", "ring:\n", "ring: {}\n"])
def test_empty_files_and_sections_give_the_defaults(tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    assert load(Settings, [file], {}, {}) == Settings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mode: safe\nrign:\n  wait_s: 1\n", ":2: unknown key 'rign'; did you mean 'ring'?"),
        ("ring:\n\n  wait: 1\n", ":3: unknown key 'ring.wait'; did you mean 'wait_s'?"),
        ("ring:\n  zzzzzzz: 1\n", ":2: unknown key 'ring.zzzzzzz'; known here: size_bytes, wait_s"),
        ("rules:\n- team: a\n- temm: b\n", ":3: unknown key 'rules[1].temm'; did you mean 'team'?"),
        ("ring:\n  size_bytes: 12\n", ":2: 'ring.size_bytes': 12 is too small: 4096 or more is expected"),
        (
            "ring:\n  size_bytes: lots\n",
            (
                ":2: 'ring.size_bytes': a whole number of bytes is expected, e.g. 67108864 or 64MiB,"
                " found 'lots'"
            ),
        ),
        (
            "ring:\n  wait_s: .nan\n",
            ":2: 'ring.wait_s': a number of seconds is expected, e.g. 30 or 30s, found 'nan'",
        ),
        ("verbose: 1\n", ":1: 'verbose': true or false is expected, found '1'"),
        ("port: true\n", ":1: 'port': a whole number is expected, found 'True'"),
        ("mode: slow\n", ":1: 'mode': one of fast, safe is expected, found 'slow'"),
        ("token: 12345\n", ":1: 'token': text is expected, found a whole number; put it in quotes"),
        ("names: a\n", ":1: 'names': a list is expected, found text"),
        ("ring: 3\n", ":1: 'ring': a mapping is expected, found a whole number"),
        ("- a\n", ":1: a mapping of settings is expected, found a list"),
        ("mode: safe\nmode: fast\n", ":2: 'mode' is given twice; keep one of them"),
        ("rules:\n- team: nobody\n", ":2: rules[0]: a rule for nobody maps nothing"),
        ("mode: 'safe\n", ":2: not valid YAML: found unexpected end of stream"),
        (
            "mode: !!python/object:os.system {}\n",
            ":1: 'mode': one of fast, safe is expected, found a mapping",
        ),
    ],
)
def test_each_mistake_says_where_and_what_to_do(tmp_path: Path, text: str, expected: str) -> None:
    assert _problems(tmp_path, text) == [expected]


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    assert len(_problems(tmp_path, "mode: slow\nport: 70000\nxyz: 1\nring: {wait_s: -1}\n")) == 4


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: cannot be read: No such file"):
        load(Settings, configuration_files("sensor", tmp_path / "none.yaml"), {}, {})


def test_wrong_values_outside_files_name_their_source() -> None:
    with pytest.raises(ConfigurationError, match="environment variable MODELMETER_PORT: 'port'"):
        load(Settings, [], {"MODELMETER_PORT": "http"}, {})
    with pytest.raises(ConfigurationError, match=r"command line \(port\): 'port': 99999 is too large"):
        load(Settings, [], {}, {"port": 99999})


def test_environment_values_take_the_type_of_their_setting() -> None:
    env = {
        "MODELMETER_TOKEN": "12345",
        "MODELMETER_NAMES": "a, b",
        "MODELMETER_RING_WAIT_S": "5m",
        "MODELMETER_VERBOSE": "true",
        "MODELMETER_RULES": '[{"team": "x", "match": {"host": "*.example"}}]',
        "MODELMETER_SOMETHING_ELSE": "is another daemon's",
    }
    settings = load(Settings, [], env, {})
    assert settings.token.reveal() == "12345"
    assert settings.names == ("a", "b")
    assert settings.ring.wait_s == 300
    assert settings.verbose is True
    assert settings.rules == (Rule(match={"host": "*.example"}, team="x"),)


def test_secrets_are_never_shown() -> None:
    settings = load(Settings, [], {"MODELMETER_TOKEN": "sesame"}, {})
    assert "sesame" not in f"{settings!r} {settings} {shown(settings)}"
    assert shown(settings)["token"] == "********"
    assert shown(Settings())["token"] == ""


def test_describe_lists_every_setting_with_its_type_and_default() -> None:
    rows = {key: (kind, default, about) for key, kind, default, about in describe(Settings)}
    assert rows["ring.size_bytes"] == ("whole number", 8 << 20, "bytes of the ring")
    assert rows["rules"][0] == "list of rule"
    assert rows["port"] == ("whole number", None, "port")
    assert rows["mode"][0] == "fast | safe"


_scalars = st.sampled_from(
    [None, True, -1, 0, 10**30, 0.5, float("nan"), float("inf"), "", "a", "1MiB", b"x"]
)
_keys = st.sampled_from(
    ["ring", "rules", "mode", "port", "token", "names", "size_bytes", "wait_s", "match", ""]
)
_values: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["ring", "rules", "mode", "port", "token", "names", "other"]), _values)
)
def test_any_value_is_taken_or_refused_by_name(flags: dict[str, Any]) -> None:
    try:
        settings = load(Settings, [], {}, flags)
    except ConfigurationError as error:
        assert error.problems
    else:
        assert isinstance(settings, Settings)
