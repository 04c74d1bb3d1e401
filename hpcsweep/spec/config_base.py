"""Reads the base of `train.config` (YAML, JSON, TOML or INI) for the config files of runs."""

from __future__ import annotations

import configparser
import difflib
import functools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from hpcsweep.errors import SpecError
from hpcsweep.store.batch import ConfigFile
from hpcsweep.store.files import read_bytes
from hpcsweep.worker.config_file import Tree, encode, encode_key, locate

KINDS: Final[Mapping[str, str]] = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".toml": "toml",
    ".ini": "ini",
    ".cfg": "ini",
    ".conf": "ini",
}
#: A manifest holds it, for every array.
MAX_BYTES: Final = 2**20
_TAG: Final = "tag:yaml.org,2002:"
#: Unquoted scalars that some version of YAML reads as a number, date, boolean or null: they stay as they are.
_PLAIN: Final = re.compile(r"[-+.0-9A-Za-z_~]+|[0-9][-+.0-9:TtZz ]*[0-9Zz]|")


def read_config_base(path: Path) -> ConfigFile:
    """The base in the file, its format known by its suffix.

    Raises:
        SpecError: It cannot be read as that; the message names `train.config`.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        expected = ", ".join(KINDS)
        raise SpecError(f"train.config: must be a file whose name ends in {expected}, got {path}")
    try:
        data = read_bytes(path, at_most=MAX_BYTES)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise SpecError(f"train.config: {path} cannot be read: {reason}") from error
    read = {"yaml": _read_yaml, "json": _read_json, "toml": _read_toml, "ini": _read_ini}[kind]
    try:
        return ConfigFile(path.name, kind, read(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f":{mark.line + 1}"
        raise SpecError(f"train.config: {path}{line}: not YAML: {error.problem or error.context}") from error
    except (YAMLError, ValueError, configparser.Error, RecursionError) as error:
        words = " ".join(str(error).split())
        raise SpecError(f"train.config: {path}: not {kind.upper()}: {words}") from error


def near_key(base: ConfigFile, name: str) -> str:
    """The key of the base that is nearly the parameter's name, which it has not; empty if there is none.

    Raises:
        TrainerError: The name leads through a value that is no mapping.
    """
    place = locate(base, name)
    known = {tuple(keys): ".".join(map(_shown, keys)) for keys in _paths(base.tree)}
    if tuple(place) in known or not known:
        return ""
    last = name.rpartition(".")[2]
    same = [key for key in known.values() if key.rpartition(".")[2] == last]
    near = difflib.get_close_matches(name, known.values(), n=1)
    return next(iter([*same, *near]), "")


def _paths(tree: Tree) -> Iterator[list[str]]:
    for key, value in tree.items():
        yield [key]
        if isinstance(value, dict):
            yield from ([key, *rest] for rest in _paths(value))


def _shown(key: str) -> str:
    return key.strip('"')


def _read_json(text: str) -> Tree:
    return _encoded(_mapping(json.loads(text)), "json")


def _read_toml(text: str) -> Tree:
    return _encoded(tomllib.loads(text), "toml")


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be a mapping")
    return value


def _encoded(data: Mapping[str, Any], kind: str) -> Tree:
    """Nested mappings with encoded keys and values; those in lists are values."""
    return {
        encode_key(key, kind): _encoded(value, kind) if isinstance(value, dict) else encode(value, kind)
        for key, value in data.items()
    }


def _read_ini(text: str) -> Tree:
    # Another default section, so that DEFAULT is one like all others.
    parser = configparser.RawConfigParser(default_section="\0", allow_no_value=True)
    parser.optionxform = str  # type: ignore[method-assign,assignment]  # keys as written
    parser.read_string(text)
    return {section: dict(parser.items(section)) for section in parser.sections()}


# ------------------------------------------------------------------ YAML


def _read_yaml(text: str) -> Tree:
    yaml = YAML(typ="safe", pure=True)
    node = yaml.compose(text)
    if node is None:
        return {}
    if not isinstance(node, MappingNode):
        raise ValueError("must be a mapping")
    return _yaml_tree(node, ())


def _yaml_tree(node: MappingNode, above: tuple[int, ...]) -> Tree:
    """The mapping, with what `<<` merges into it."""
    above = _deeper(node, above)
    merged: Tree = {}
    own: Tree = {}
    for key, value in node.value:
        if not isinstance(key, ScalarNode):
            raise ValueError(f"line {key.start_mark.line + 1}: keys must be plain texts")
        if key.value == "<<" and key.style is None:
            for each in value.value if isinstance(value, SequenceNode) else [value]:
                if not isinstance(each, MappingNode):
                    raise ValueError(f"line {each.start_mark.line + 1}: << must name mappings")
                merged = {**_yaml_tree(each, above), **merged}
        elif isinstance(value, MappingNode):
            own[_yaml_scalar(key, key=True)] = _yaml_tree(value, above)
        else:
            own[_yaml_scalar(key, key=True)] = _yaml_value(value, above)
    return {**merged, **own}


def _yaml_value(node: Node, above: tuple[int, ...]) -> str:
    """A value in one line."""
    match node:
        case ScalarNode():
            return _yaml_scalar(node)
        case SequenceNode():
            above = _deeper(node, above)
            return f"[{', '.join(_yaml_value(item, above) for item in node.value)}]"
        case MappingNode():
            return _flow(_yaml_tree(node, above))
        case _:
            raise ValueError(f"line {node.start_mark.line + 1}: unknown kind of value")


def _flow(tree: Tree) -> str:
    pairs = (f"{key}: {_flow(value) if isinstance(value, dict) else value}" for key, value in tree.items())
    return f"{{{', '.join(pairs)}}}"


def _yaml_scalar(node: ScalarNode, *, key: bool = False) -> str:
    text, tag = str(node.value), str(node.tag)
    if not tag.startswith(_TAG):
        raise ValueError(f"line {node.start_mark.line + 1}: tag {tag} is not supported")
    kind = tag.removeprefix(_TAG)
    if node.style is None and _PLAIN.fullmatch(text) and _is_resolved(text, tag):
        return text or ('""' if key else "null")
    if kind == "str":
        return encode_key(text, "yaml") if key else encode(text, "yaml")
    if kind in ("int", "float", "bool", "null", "timestamp"):
        return f"!!{kind} {text}"
    raise ValueError(f"line {node.start_mark.line + 1}: tag !!{kind} is not supported")


@functools.cache
def _resolver() -> Any:
    return YAML(typ="safe", pure=True).resolver


def _is_resolved(text: str, tag: str) -> bool:
    """Whether the plain text has this tag without being told."""
    return str(_resolver().resolve(ScalarNode, text, (True, False))) == tag


def _deeper(node: Node, above: tuple[int, ...]) -> tuple[int, ...]:
    if id(node) in above:
        raise ValueError(f"line {node.start_mark.line + 1}: must not contain itself")
    return (*above, id(node))
