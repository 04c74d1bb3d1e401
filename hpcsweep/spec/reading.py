"""YAML 1.2 text and `--set` overrides -> plain data, with errors that say where."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.representer import SafeRepresenter

from hpcsweep.core.domains import shown
from hpcsweep.errors import SpecError
from hpcsweep.store.files import read_bytes

#: Sections that may be a name alone.
NAMED_SECTIONS: Final = ("searcher", "scheduler")
#: Texts that may stand without quotes, unless they read as something else.
_HARMLESS: Final = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+@%=-]*(?:[: ][A-Za-z0-9_./+@%=-]+)*")


class _Constructor(SafeConstructor):
    """YAML 1.2 has no dates: `2024-01-01` is text."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


class _Representer(SafeRepresenter):
    """Quotes every text that is not harmless: ruamel writes some so that they do not come back."""

    def represent_str(self, data: str) -> Any:
        style = None if _HARMLESS.fullmatch(data) else "'" if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Representer.add_representer(str, _Representer.represent_str)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the file.

    Raises:
        SpecError: It cannot be read, is no YAML, or no mapping.
    """
    try:
        text = _text(path)
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: must be UTF-8 text, got byte {error.object[error.start]:#x}") from error
    data = parse_yaml(text, source=str(path))
    if data is None:
        raise SpecError(f"{path}: must be a mapping with train, objective and space, got an empty file")
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else shown(data)
        raise SpecError(f"{path}: must be a mapping with train, objective and space, got {kind}")
    return data


def _text(path: Path) -> str:
    """The file's text; a pipe of the shell (`<(...)`, /dev/stdin) is read to its end, another one refused."""
    if path.is_relative_to("/dev") or path.is_relative_to("/proc"):
        return path.read_text(encoding="utf-8-sig")
    return read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def parse_yaml(text: str, *, source: str) -> Any:
    """The value of a YAML 1.2 text.

    Raises:
        SpecError: It is no YAML; the message begins with the source and the line.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        return yaml.load(text)
    except DuplicateKeyError as error:
        key = str(error.problem).partition('"')[2].partition('"')[0]
        raise SpecError(f"{_located(source, error)}: key {key!r} must be given once, got it twice") from error
    except MarkedYAMLError as error:
        raise SpecError(f"{_located(source, error)}: not YAML: {error.problem or error.context}") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{source}: not YAML: {' '.join(str(error).split())}") from error


def _located(source: str, error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return source if mark is None else f"{source}:{mark.line + 1}"


def dump_yaml(data: Any) -> str:
    """YAML text that `parse_yaml` reads back to the same data, keys in their order."""
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
    """Put the values of `--set key.path=value` into the data; missing mappings are made.

    Returns:
        Key path -> the override, as written, that gave what is there.

    Raises:
        SpecError: Overrides are malformed, or lead through something that is no mapping.
    """
    problems: list[str] = []
    applied: dict[str, str] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        path = path.strip()
        keys = path.split(".")
        if not equals or not all(keys):
            problems.append(f"--set {override}: must be key.path=value")
            continue
        try:
            value = parse_yaml(text, source=f"--set {override}")
            made = _put(data, keys, value)
        except SpecError as error:
            line = f"--set {override}:1: "
            problems.extend(problem.replace(line, f"--set {override}: ") for problem in error.problems)
        except ValueError as error:
            problems.append(f"--set {override}: {error}")
        else:
            applied[made] = applied[path] = override
    if problems:
        raise SpecError(*problems)
    return applied


def _put(data: dict[str, Any], keys: Sequence[str], value: Any) -> str:
    """Put the value there; gives the key path of the outermost mapping made for it, or its own."""
    made = ""
    for depth, key in enumerate(keys[:-1], start=1):
        inner = data.get(key)
        if inner is None:
            inner = {}
            made = made or ".".join(keys[:depth])
        elif depth == 1 and key in NAMED_SECTIONS and isinstance(inner, str):
            inner = {"name": inner}
        elif not isinstance(inner, dict):
            raise ValueError(f"{'.'.join(keys[:depth])}: must be a mapping, got {shown(inner)}")
        # A mapping that is used twice through an alias changes only where it was asked for.
        data[key] = inner = dict(inner)
        data = inner
    data[keys[-1]] = value
    return made or ".".join(keys)
