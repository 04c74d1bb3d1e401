"""Reads YAML 1.2 and `--set` overrides into plain data, with errors that say where."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import Node, ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from hpcsweep.core.text import MAX_NESTING, format_value, text_problem, truncate
from hpcsweep.errors import SpecError
from hpcsweep.store.files import read_bytes

#: Sections that may be just a name.
NAMED_SECTIONS: Final = ("searcher", "scheduler")
#: Keys of a parameter.
PARAMETER_KEYS: Final = ("type", "low", "high", "log", "step", "values", "value", "when", "format")
#: Texts that need no quotes unless they read as another type.
_UNQUOTED: Final = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+@%=-]*(?:[: ][A-Za-z0-9_./+@%=-]+)*")
#: Bytes of a sweep file at most; larger ones take minutes and gigabytes to parse.
MAX_BYTES: Final = 2**20
#: Keys and values of a sweep file at most, repetitions by aliases included.
MAX_VALUES: Final = 50_000
#: Characters of one text at most; Linux takes no longer program argument.
MAX_TEXT: Final = 2**16
#: Digits of a number at most; the largest double has 309.
_MAX_DIGITS: Final = 400
_KEY_SHOWN: Final = 80
_PATH_SHOWN: Final = 200


class _Constructor(SafeConstructor):
    """Reads dates as text, as YAML 1.2 has none, and limits the digits of a number to what Python prints."""

    def construct_yaml_int(self, node: Any) -> Any:
        if len(node.value) > _MAX_DIGITS:
            problem = f"must have at most {_MAX_DIGITS} digits, got {len(node.value)}; quote it if it is text"
            raise MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_yaml_int(node)


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)
_Constructor.add_constructor("tag:yaml.org,2002:int", _Constructor.construct_yaml_int)


class _RefusedYAML(MarkedYAMLError):
    """Valid YAML that no spec can hold; the problem begins with its key path."""


class _Composer(Composer):
    """Refuses documents that would fill the memory, and texts that cannot be passed on, while parsing.

    An alias counts as many values as it stands for: ten levels of ten aliases are ten thousand million.
    """

    warn_double_anchors = False  # YAML allows them; the last one counts

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)
        self._path: list[str] = []
        self._values = 0
        #: Id of each complete node -> the number of values in it.
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Any:
        key = index.value if isinstance(index, ScalarNode) else index
        named = parent is not None and key is not None  # a key itself has none
        if named:
            self._path.append(f"[{key}]" if isinstance(key, int) else f".{str(key)[:_KEY_SHOWN]}")
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent):
            node = self.anchors.get(event.anchor)
            if node is not None and id(node) not in self._sizes:
                raise self._refusal(f"must not contain itself, got the alias *{event.anchor}", event)
            self._count(self._sizes.get(id(node), 1), event)
            node = super().compose_node(parent, index)
        else:
            if len(self._path) > MAX_NESTING:
                raise self._refusal(f"must be nested at most {MAX_NESTING} deep", event)
            before = self._values
            self._count(1, event)
            node = super().compose_node(parent, index)
            self._sizes[id(node)] = self._values - before
            if isinstance(node, ScalarNode):
                self._check_text(node)
        if named:
            self._path.pop()
        return node

    def _count(self, size: int, event: Any) -> None:
        self._values += size
        if self._values > MAX_VALUES:
            problem = (
                f"must leave the file below {MAX_VALUES} values, with its aliases spelled out; "
                "give a range (low and high) in place of a long list, or have training code look it up"
            )
            raise self._refusal(problem, event)

    def _check_text(self, node: ScalarNode) -> None:
        text = str(node.value)
        problem = text_problem(text)
        if "\0" in text:
            problem = (
                f"must have no zero byte, which no argument or file name can hold, got {format_value(text)}"
            )
        elif problem is None and len(text) > MAX_TEXT:
            problem = f"must be at most {MAX_TEXT} characters, got {len(text)}; put it into a file"
        if problem is not None:
            raise self._refusal(problem, node)

    def _refusal(self, problem: str, at: Any) -> _RefusedYAML:
        path = "".join(self._path).removeprefix(".")
        if len(path) > _PATH_SHOWN:
            path = f"{path[:_PATH_SHOWN]}..."
        return _RefusedYAML(problem=f"{path}: {problem}" if path else problem, problem_mark=at.start_mark)


class _Representer(SafeRepresenter):
    """Quotes every text that is not harmless, as ruamel does not read all of its unquoted texts back."""

    def represent_str(self, data: str) -> Any:
        style = None if _UNQUOTED.fullmatch(data) else "'" if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Representer.add_representer(str, _Representer.represent_str)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        text = _read_text(path)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: must be UTF-8 text, got byte {error.object[error.start]:#x}") from error
    found = parse_yaml(text, source=str(path))
    if found is None:
        raise SpecError(f"{path}: must be a mapping with train, objective and space, got an empty file")
    if not isinstance(found, dict):
        kind = "a list" if isinstance(found, list) else format_value(found)
        raise SpecError(f"{path}: must be a mapping with train, objective and space, got {kind}")
    return found


def _read_text(path: Path) -> str:
    """The file's text; pipes of the shell (`<(...)`, /dev/stdin) are read, other special files refused."""
    ordinary = path.is_file() or path.is_dir()  # as all are in /dev/shm
    if not ordinary and (path.is_relative_to("/dev") or path.is_relative_to("/proc")):
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)  # a device may have no end
    elif path.is_file() and path.stat().st_size > MAX_BYTES:
        data = bytes(MAX_BYTES + 1)
    else:
        data = read_bytes(path)
    if len(data) > MAX_BYTES:
        advice = "give ranges in place of long lists, and keep data in files of the training code"
        raise SpecError(f"{path}: must be at most {MAX_BYTES} bytes, it has more; {advice}")
    return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def parse_yaml(text: str, *, source: str) -> Any:
    """The value of a YAML 1.2 text.

    Raises:
        SpecError: It is not YAML, or more than a sweep file may hold; the message begins with source
            and line.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    yaml.Constructor = _Constructor
    try:
        return yaml.load(text)
    except _RefusedYAML as error:
        raise SpecError(f"{_with_line(source, error)}: {error.problem}") from error
    except DuplicateKeyError as error:
        key = str(error.problem).partition('"')[2].partition('"')[0]
        raise SpecError(
            f"{_with_line(source, error)}: key {key!r} must be given once, got it twice"
        ) from error
    except MarkedYAMLError as error:
        raise SpecError(f"{_with_line(source, error)}: not YAML: {error.problem or error.context}") from error
    except (YAMLError, ValueError, OverflowError, RecursionError, IndexError, TypeError) as error:
        raise SpecError(f"{source}: not YAML: {' '.join(str(error).split())}") from error


def _with_line(source: str, error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return source if mark is None else f"{source}:{mark.line + 1}"


def dump_yaml(data: Any) -> str:
    """YAML text that `parse_yaml` reads back to the same data, in the same order of keys."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # the stubs know None only
    yaml.width = 100
    yaml.allow_unicode = True
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Set the values of `--set key.path=value` texts in the data, creating missing mappings.

    Returns:
        Key path -> the override that set it, as written.

    Raises:
        SpecError: An override is malformed, or its path leads through a value that is not a mapping.
    """
    problems: list[str] = []
    applied: dict[str, str] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        path = path.strip()
        keys = path.split(".")
        if not equals or not all(keys):
            problems.append(f"--set {truncate(override)}: must be key.path=value")
            continue
        try:
            value = parse_yaml(text, source=f"--set {truncate(override)}")
            made = _set_value(data, keys, value)
        except SpecError as error:
            line = f"--set {truncate(override)}:1: "
            problems.extend(
                problem.replace(line, f"--set {truncate(override)}: ") for problem in error.problems
            )
        except ValueError as error:
            problems.append(f"--set {truncate(override)}: {error}")
        else:
            applied[made] = applied[path] = override
    if problems:
        raise SpecError(*problems)
    return applied


def _set_value(data: dict[str, Any], keys: Sequence[str], value: Any) -> str:
    """Set the value; returns the key path of the outermost mapping created for it, else its own."""
    made = ""
    keys = _join_known(data, keys)
    for depth, key in enumerate(keys[:-1], start=1):
        inner = data.get(key)
        if inner is None:
            inner = {}
            made = made or ".".join(keys[:depth])
        elif depth == 1 and key in NAMED_SECTIONS and isinstance(inner, str):
            inner = {"name": inner}
        elif not isinstance(inner, dict):
            raise ValueError(f"{'.'.join(keys[:depth])}: must be a mapping, got {format_value(inner)}")
        # An aliased mapping changes only here.
        data[key] = inner = dict(inner)
        data = inner
    data[keys[-1]] = value
    return made or ".".join(keys)


def _join_known(data: Any, keys: Sequence[str]) -> list[str]:
    """The keys, those joined by dots that are one key of the data, as in `space.optimizer.lr.low`.

    The longest known name counts; what follows `space` is a new parameter unless it ends in a key of one.
    """
    found: list[str] = []
    rest = list(keys)
    while rest:
        sizes = range(len(rest), 0, -1) if isinstance(data, dict) else ()
        size = next((size for size in sizes if ".".join(rest[:size]) in data), 0)
        if not size:
            new = found == ["space"] and rest[-1] not in PARAMETER_KEYS and "when" not in rest
            return [*found, ".".join(rest)] if new else [*found, *rest]
        key = ".".join(rest[:size])
        found.append(key)
        data, rest = data[key], rest[size:]
    return found
