"""The config file of a run: a base that the driver has read, merged with the run's parameters.

The base comes as nested mappings of texts in its own format (`spec.config_base` makes it), so that what no
parameter changes is written as it was, and a worker needs no library to write YAML or TOML.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hpcsweep.errors import TrainerError
from hpcsweep.store.batch import ConfigFile
from hpcsweep.worker.template import as_text

#: Section of an INI file whose keys count in all others.
DEFAULT_SECTION: Final = "DEFAULT"

#: Mapping of encoded keys to encoded values or further mappings.
Tree = dict[str, Any]

_YAML_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
#: What YAML 1.1 or 1.2 reads as another type than text.
_YAML_WORDS: Final = re.compile(r"(?i:y|n|yes|no|on|off|true|false|null|nan|inf)")
_TOML_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
#: Beyond what JSON escapes: controls, line separators of YAML, marks of byte order, beyond 16 bits.
_UNSAFE: Final = re.compile("[\x7f-\x9f\xad\u2028\u2029\ufeff\ufffe\uffff\U00010000-\U0010ffff]")


def render(config: ConfigFile, values: Mapping[str, Any]) -> str:
    """The text of the file with these parameters at their dotted keys.

    Raises:
        TrainerError: A key leads through a value that is no mapping.
    """
    tree = _copied(config.tree)
    for name, value in values.items():
        _set(tree, locate(config, name), value, config.kind)
    lines = {"yaml": _yaml_lines, "json": _json_lines, "toml": _toml_lines, "ini": _ini_lines}[config.kind]
    return "".join(f"{line}\n" for line in lines(tree))


def write(config: ConfigFile, values: Mapping[str, Any], path: Path) -> None:
    """Write the file, which a killed attempt may have left half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(config, values), encoding="utf-8", newline="\n")


def locate(config: ConfigFile, name: str) -> list[str]:
    """The encoded keys at which the parameter belongs; names that the base has with dots count as one key.

    Raises:
        TrainerError: They lead through a value that is no mapping.
    """
    if config.kind == "ini":
        return _locate_ini(config.tree, name)
    keys: list[str] = []
    node: Any = config.tree
    rest = name.split(".")
    while rest:
        if not isinstance(node, dict):
            raise TrainerError(
                f"train.config: {name} leads through {'.'.join(keys)}, which is no mapping in {config.name}"
            )
        for size in range(len(rest), 0, -1):
            part = ".".join(rest[:size])
            known = next((key for key in _forms(part, config.kind) if key in node), None)
            if known is not None:
                keys.append(known)
                node, rest = node[known], rest[size:]
                break
        else:
            return keys + [_forms(part, config.kind)[0] for part in rest]
    return keys


def _locate_ini(tree: Tree, name: str) -> list[str]:
    """The section, the longest that the name begins with, and the key."""
    parts = name.split(".")
    cuts = [(".".join(parts[:size]), ".".join(parts[size:])) for size in range(len(parts) - 1, 0, -1)]
    known = [(section, key) for section, key in cuts if section in tree]
    section, key = (known or cuts[-1:] or [(DEFAULT_SECTION, name)])[0]
    same = (each for each in tree.get(section, {}) if each.lower() == key.lower())
    return [section, next(same, key)]


def _forms(key: str, kind: str) -> list[str]:
    """How the key is written, the usual form first."""
    quoted = encode(key, kind)
    match kind:
        case "yaml":
            plain = _YAML_KEY.fullmatch(key) is not None and _YAML_WORDS.fullmatch(key) is None
        case "toml":
            plain = _TOML_KEY.fullmatch(key) is not None
        case _:
            return [quoted]
    return [key, quoted] if plain else [quoted, key]


def encode_key(key: str, kind: str) -> str:
    """The key in the form in which `locate` looks for it first."""
    return _forms(key, kind)[0]


def _copied(tree: Tree) -> Tree:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in tree.items()}


def _set(tree: Tree, keys: list[str], value: Any, kind: str) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    if value is None and kind in ("toml", "ini"):  # these have no null
        tree.pop(keys[-1], None)
    else:
        tree[keys[-1]] = encode(value, kind)


# ------------------------------------------------------------------ values


def encode(value: Any, kind: str) -> str:
    """A value in one line."""
    match kind, value:
        case "ini", _:
            return as_text(value)
        case "json", _:
            return json.dumps(value)
        case _, bool():
            return "true" if value else "false"
        case _, None:
            return "null"
        case _, str():
            return _quoted(value)
        case _, float():
            return _float(value, kind)
        case _, list() | tuple():
            return (
                f"[{', '.join(encode(item, kind) for item in value if item is not None or kind == 'yaml')}]"
            )
        case _, dict():
            sign = ": " if kind == "yaml" else " = "
            pairs = [(key, item) for key, item in value.items() if item is not None or kind == "yaml"]
            texts = (f"{_quoted(str(key))}{sign}{encode(item, kind)}" for key, item in pairs)
            return f"{{{', '.join(texts)}}}"
        case _:
            return str(value)


def _quoted(text: str) -> str:
    """A text in quotes as JSON, YAML and TOML read it alike."""
    return _UNSAFE.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _float(value: float, kind: str) -> str:
    """The number so that also YAML 1.1, which wants a point in it, reads it as one."""
    if math.isnan(value) or math.isinf(value):
        return f"{'.' if kind == 'yaml' else ''}{value}".replace(".-", "-.")
    mantissa, e, exponent = repr(value).partition("e")
    return f"{mantissa}.0e{exponent}" if e and "." not in mantissa else repr(value)


# ------------------------------------------------------------------ files


def _yaml_lines(tree: Tree, indent: str = "") -> Iterator[str]:
    if not tree and not indent:
        yield "{}"
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _yaml_lines(value, f"{indent}  ")
        else:
            yield f"{indent}{key}: {'{}' if isinstance(value, dict) else value}"


def _json_lines(tree: Tree, indent: str = "", *, end: str = "") -> Iterator[str]:
    yield "{"
    for number, (key, value) in enumerate(tree.items(), 1):
        comma = "," if number < len(tree) else ""
        if isinstance(value, dict):
            lines = list(_json_lines(value, f"{indent}  ", end=comma))
            yield f"{indent}  {key}: {lines[0]}"
            yield from lines[1:]
        else:
            yield f"{indent}  {key}: {value}{comma}"
    yield f"{indent}}}{end}"


def _toml_lines(tree: Tree, path: str = "") -> Iterator[str]:
    values = [(key, value) for key, value in tree.items() if not isinstance(value, dict)]
    tables = [(key, value) for key, value in tree.items() if isinstance(value, dict)]
    if path and (values or not tables):
        yield f"[{path}]"
    for key, value in values:
        yield f"{key} = {value}"
    for key, table in tables:
        yield from _toml_lines(table, f"{path}.{key}" if path else key)


def _ini_lines(tree: Tree) -> Iterator[str]:
    for section, values in tree.items():
        yield f"[{section}]"
        for key, value in values.items():
            yield key if value is None else f"{key} = {value}".replace("\n", "\n\t")
        yield ""
