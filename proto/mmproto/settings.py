"""Strict settings for the three daemons: YAML files, environment and flags into frozen dataclasses.

The dataclasses are the schema: names, types and defaults stand there once, and `load` holds every input
against them. Later inputs win, key by key: the file, its `.d/*.yaml` in order of name, the environment,
the command line. An unknown key or a wrong type is an error that names file and line and what was probably
meant, because a setting that is silently ignored is how a budget is not enforced. All problems are
collected, so that one run shows everything there is to correct.

Mappings of the same key are merged, lists are replaced: a list in a `.d` file that was appended to one in
the main file could never be made shorter.

Errors: `ConfigurationError`, with one `Problem` for each thing that is wrong.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

T = TypeVar("T")

ETC = Path("/etc/modelmeter")
STATE_DIR = Path("/var/lib/modelmeter")
ENVIRONMENT_PREFIX = "MODELMETER_"
MASK = "********"

_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (`file:line`, a variable or a flag), what, and what to do."""

    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" + (f"; {self.hint}" if self.hint else "")


class ConfigurationError(Exception):
    """The configuration cannot be used. `problems` holds every reason; str() is one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class Secret:
    """Text that is used but never shown: `reveal()` is the one way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Secret({str(self)!r})"

    def __str__(self) -> str:
        return MASK if self._text else ""

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(("Secret", self._text))


def setting(
    default: Any = dataclasses.MISSING,
    *,
    factory: Callable[[], Any] | None = None,
    about: str,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A field of a settings dataclass, with what the reference says of it and what values it takes.

    `unit` is "bytes" (`64MiB` and the like are understood), "seconds" (`250ms`, `5m`) or empty. A field
    without default and factory must be given by someone.
    """
    metadata = {"about": about, "unit": unit, "minimum": minimum, "maximum": maximum}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """Settings and, for every dotted key that somebody gave, where its value comes from."""

    settings: T
    origins: Mapping[str, str]


def configuration_files(product: str, config: Path | None) -> list[Path]:
    """The files to read for `product` ("sensor", "pipeline", "router"), in order.

    Without `config` that is /etc/modelmeter/PRODUCT.yaml, which need not exist. Beside either file the
    folder of the same name with `.d` adds its `*.yaml`.
    """
    main = config if config is not None else ETC / f"{product}.yaml"
    files = [main] if config is not None or _may_be_there(main) else []
    return files + _further_files(main.with_suffix(".d"))


def _further_files(folder: Path) -> list[Path]:
    """Its `*.yaml` by name; the folder itself where we may not look into it, so that reading names it."""
    try:
        return sorted(file for file in folder.iterdir() if file.suffix == ".yaml")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        return [folder]


def _may_be_there(file: Path) -> bool:
    """Also where we may not look: what cannot be read is a mistake to be named, not to be passed over."""
    try:
        return file.exists()
    except PermissionError:
        return True


def load(cls: type[T], files: Sequence[Path], env: Mapping[str, str], flags: Mapping[str, object]) -> T:
    """The settings of `cls` from `files`, `env` and `flags`. Raises ConfigurationError.

    `flags` maps dotted keys ("ingest.url") to values; None means that the flag was not given.
    """
    return read(cls, files, env, flags).settings


def read(
    cls: type[T],
    files: Sequence[Path],
    env: Mapping[str, str],
    flags: Mapping[str, object],
    product: str = "",
) -> Loaded[T]:
    """As `load`, and where each value comes from.

    A variable is MODELMETER_<SECTION>_<KEY>, or with `product` MODELMETER_<PRODUCT>_<SECTION>_<KEY>, which
    wins. Other variables with the prefix are ignored, since the three daemons may share one environment.
    """
    problems: list[Problem] = []
    tree = _Node({}, "defaults")
    for file in files:
        layer = _read_file(file, problems)
        if layer is not None:
            _merge(tree, layer)
    names = [ENVIRONMENT_PREFIX] + ([f"{ENVIRONMENT_PREFIX}{product.upper()}_"] if product else [])
    for prefix in names:
        for path, kind in _leaves(cls):
            variable = prefix + "_".join(path).upper()
            if variable in env:
                _put(tree, path, _from_text(env[variable], kind, f"environment variable {variable}"))
    for key, value in flags.items():
        if value is not None:
            _put(tree, tuple(key.split(".")), _from_python(value, f"command line ({key})"))
    reader = _Reader(problems)
    settings = reader.section(cls, tree, "")
    if problems:
        raise ConfigurationError(problems)
    return Loaded(typing.cast(T, settings), reader.origins)


def shown(settings: object) -> Any:
    """`settings` as plain dicts, lists and scalars for people to read; secrets are masked."""
    if isinstance(settings, Secret | Path):
        return str(settings)
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return {f.name: shown(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
    if isinstance(settings, Mapping):
        return {str(key): shown(value) for key, value in settings.items()}
    if isinstance(settings, tuple | list | frozenset):
        return [shown(item) for item in settings]
    return settings


def describe(cls: type[Any], prefix: str = "") -> list[tuple[str, str, Any, str]]:
    """(dotted key, type, default, about) of every setting of `cls`: what the reference is written from."""
    hints = typing.get_type_hints(cls)
    rows: list[tuple[str, str, Any, str]] = []
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        key = prefix + field.name
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            rows += describe(kind, key + ".")
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        shown_default = None if default is dataclasses.MISSING else shown(default)
        rows.append((key, _name_of(kind), shown_default, str(field.metadata.get("about", ""))))
    return rows


@dataclass(slots=True)
class _Node:
    """A value with the place it comes from. `value`: dict of nodes, list of nodes, or a scalar."""

    value: Any
    where: str


def _read_file(file: Path, problems: list[Problem]) -> _Node | None:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        problems.append(Problem(str(file), f"cannot be read: {reason}"))
        return None
    try:
        document = yaml.compose(text, Loader=yaml.SafeLoader)
        if document is None:
            return None
        node = _from_yaml(document, file, problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        problems.append(Problem(where, f"not valid YAML: {error.problem or error.context}"))
        return None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problems.append(Problem(str(file), f"not valid YAML: {str(error).splitlines()[0]}"))
        return None
    if not isinstance(node.value, dict):
        problems.append(
            Problem(node.where, f"a mapping of settings is expected, found {_kind_of(node.value)}")
        )
        return None
    return node


def _from_yaml(node: Any, file: Path, problems: list[Problem]) -> _Node:
    where = f"{file}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        members: dict[str, _Node] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            key_where = f"{file}:{key_node.start_mark.line + 1}"
            if key in members:
                problems.append(Problem(key_where, f"'{key}' is given twice", "keep one of them"))
            members[key] = _from_yaml(value_node, file, problems)
            if not isinstance(value_node, yaml.SequenceNode):
                members[key].where = key_where
        return _Node(members, where)
    if isinstance(node, yaml.SequenceNode):
        return _Node([_from_yaml(item, file, problems) for item in node.value], where)
    constructor = yaml.constructor.SafeConstructor()
    return _Node(constructor.construct_object(node), where)


def _from_text(text: str, kind: Any, where: str) -> _Node:
    """The value of an environment variable: plain text for scalars, YAML where the setting has parts."""
    kind = _without_none(kind)
    if kind in (str, Path, Secret) or typing.get_origin(kind) is typing.Literal:
        return _Node(text, where)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return _Node(text, where)
    if isinstance(value, str) and typing.get_origin(kind) is tuple:
        value = [part.strip() for part in value.split(",")]
    return _from_python(value, where)


def _from_python(value: object, where: str) -> _Node:
    if isinstance(value, Mapping):
        return _Node({str(key): _from_python(item, where) for key, item in value.items()}, where)
    if isinstance(value, list | tuple):
        return _Node([_from_python(item, where) for item in value], where)
    return _Node(value, where)


def _merge(base: _Node, over: _Node) -> None:
    for key, node in over.value.items():
        present = base.value.get(key)
        if present is not None and isinstance(present.value, dict) and isinstance(node.value, dict):
            _merge(present, node)
        else:
            base.value[key] = node


def _put(tree: _Node, path: tuple[str, ...], node: _Node) -> None:
    for part in reversed(path):
        node = _Node({part: node}, node.where)
    _merge(tree, node)


def _leaves(cls: type[Any], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    leaves: list[tuple[tuple[str, ...], Any]] = []
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            leaves += _leaves(kind, (*prefix, name))
        else:
            leaves.append(((*prefix, name), kind))
    return leaves


class _Wrong(Exception):
    """A value does not fit its type; the message says what was expected."""


class _Reader:
    """Holds a tree of nodes against the dataclasses; collects problems instead of stopping at the first."""

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self.origins: dict[str, str] = {}

    def section(self, cls: type[Any], node: _Node, key: str) -> Any:
        """An instance of `cls`, or None where something in it was wrong (and noted)."""
        before = len(self._problems)
        if not isinstance(node.value, dict):
            # `section:` with nothing below it is what is left when all its keys are commented out.
            if node.value is not None:
                self._note(node, key, f"a mapping is expected, found {_kind_of(node.value)}")
                return None
            node = _Node({}, node.where)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        hints = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        for name, member in node.value.items():
            path = f"{key}.{name}" if key else name
            if name not in fields:
                near = difflib.get_close_matches(name, fields, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(sorted(fields))}"
                self._problems.append(Problem(member.where, f"unknown key '{path}'", hint))
                continue
            values[name] = self._value(hints[name], member, path, fields[name].metadata)
        for name, field in fields.items():
            has_default = field.default is not dataclasses.MISSING
            if name not in values and not has_default and field.default_factory is dataclasses.MISSING:
                self._note(node, f"{key}.{name}" if key else name, "is required and not given")
        if len(self._problems) > before:
            return None
        try:
            return cls(**values)
        except ValueError as error:
            self._problems.append(Problem(node.where, f"{key}: {error}" if key else str(error)))
            return None

    def _value(self, kind: Any, node: _Node, key: str, metadata: Mapping[str, Any]) -> Any:
        optional, kind = _without_none(kind) is not kind, _without_none(kind)
        if node.value is None and optional:
            self.origins[key] = node.where
            return None
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            return self.section(kind, node, key)
        self.origins[key] = node.where
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is tuple or (isinstance(origin, type) and issubclass(origin, Mapping)):
            return self._collection(origin is tuple, arguments, node, key, metadata)
        try:
            return _scalar(kind, node.value, metadata)
        except _Wrong as wrong:
            self._note(node, key, str(wrong))
            return None

    def _collection(
        self, is_list: bool, kinds: tuple[Any, ...], node: _Node, key: str, metadata: Mapping[str, Any]
    ) -> Any:
        value = node.value
        if is_list and isinstance(value, list):
            items = enumerate(value)
            return tuple(self._value(kinds[0], item, f"{key}[{i}]", metadata) for i, item in items)
        if not is_list and isinstance(value, dict):
            members = value.items()
            return {name: self._value(kinds[1], item, f"{key}.{name}", metadata) for name, item in members}
        wanted = "a list" if is_list else "a mapping"
        self._note(node, key, f"{wanted} is expected, found {_kind_of(value)}")
        return None

    def _note(self, node: _Node, key: str, message: str) -> None:
        self._problems.append(Problem(node.where, f"'{key}': {message}" if key else message))


def _scalar(kind: Any, value: Any, metadata: Mapping[str, Any]) -> Any:
    """`value` as `kind`. Raises _Wrong."""
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise _Wrong(f"one of {', '.join(map(str, choices))} is expected, found {_quoted(value)}")
        return value
    if kind in (str, Path, Secret):
        if isinstance(value, Path):
            value = str(value)
        if not isinstance(value, str):
            # The value itself may be a secret that YAML took for a number: it is not repeated here.
            raise _Wrong(f"text is expected, found {_kind_of(value)}; put it in quotes")
        return Path(value).expanduser() if kind is Path else kind(value)
    if kind is bool:
        if not isinstance(value, bool):
            raise _Wrong(f"true or false is expected, found {_quoted(value)}")
        return value
    if kind in (int, float):
        return _number(kind, value, metadata)
    raise TypeError(f"settings of type {kind!r} are not supported")


def _number(kind: type[int] | type[float], value: Any, metadata: Mapping[str, Any]) -> int | float:
    unit = metadata.get("unit", "")
    number: Any = value
    if isinstance(value, str) and unit in ("bytes", "seconds"):
        digits = value.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ").strip()
        suffix = value.strip()[len(digits) :].strip()
        factor = _SIZES.get(suffix.upper()) if unit == "bytes" else _DURATIONS.get(suffix)
        try:
            number = float(digits) * factor if factor is not None else value
        except ValueError:
            number = value
        if isinstance(number, float) and kind is int and number.is_integer():
            number = int(number)
    wanted = "a whole number" if kind is int else "a number"
    example = {"bytes": ", e.g. 67108864 or 64MiB", "seconds": ", e.g. 30 or 30s"}.get(unit, "")
    of = f" of {unit}" if unit else ""
    allowed = (int,) if kind is int else (int, float)
    if isinstance(number, bool) or not isinstance(number, allowed) or math.isnan(number):
        raise _Wrong(f"{wanted}{of} is expected{example}, found {_quoted(value)}")
    minimum, maximum = metadata.get("minimum"), metadata.get("maximum")
    if minimum is not None and number < minimum:
        raise _Wrong(f"{number} is too small: {minimum:g} or more is expected")
    if maximum is not None and number > maximum:
        raise _Wrong(f"{number} is too large: {maximum:g} or less is expected")
    return kind(number)


def _without_none(kind: Any) -> Any:
    """`X` for `X | None`, else `kind` itself."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        rest = [argument for argument in typing.get_args(kind) if argument is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return kind


def _name_of(kind: Any) -> str:
    kind = _without_none(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin is tuple:
        return f"list of {_name_of(arguments[0])}"
    if origin is not None:
        return f"mapping of {_name_of(arguments[1])}"
    names = {str: "text", Path: "path", Secret: "secret", bool: "true or false", int: "whole number"}
    return names.get(kind, "number" if kind is float else kind.__name__.lower())


def _kind_of(value: Any) -> str:
    if value is None:
        return "nothing"
    names: dict[type, str] = {
        dict: "a mapping",
        list: "a list",
        bool: "true/false",
        int: "a whole number",
        float: "a number",
        str: "text",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def _quoted(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str | int | float) else _kind_of(value)
