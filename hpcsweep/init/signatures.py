"""Arguments that stand in signatures and classes: click, typer, fire, and parsers of dataclasses."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any, Final

from hpcsweep.init.argparse_options import Kind, kind_of
from hpcsweep.init.found import Argument, Interface
from hpcsweep.init.sources import UNKNOWN, Source, keywords, last_name

Function = ast.FunctionDef | ast.AsyncFunctionDef

_KINDS: Final[dict[str, Kind]] = {
    "float": "float",
    "int": "int",
    "bool": "bool",
    "str": "text",
    "Path": "text",
    "FLOAT": "float",
    "INT": "int",
    "BOOL": "bool",
    "FloatRange": "float",
    "IntRange": "int",
    "list": "list",
    "List": "list",
    "tuple": "list",
    "Tuple": "list",
    "Sequence": "list",
}
_COMMANDS: Final = ("train", "fit", "main", "run")


def _functions(source: Source) -> Iterator[Function]:
    for node in source.nodes:
        if isinstance(node, Function):
            yield node


def read_click(sources: Sequence[Source]) -> Interface | None:
    """The options in the decorators of the function that trains."""
    commands: dict[str, tuple[Argument, ...]] = {}
    groups = False
    for source in sources:
        if not any(name.partition(".")[0] in ("click", "rich_click") for name in source.imported):
            continue
        for function in _functions(source):
            calls = [each for each in function.decorator_list if isinstance(each, ast.Call)]
            words = [last_name(source.dotted(each)) for each in function.decorator_list]
            groups = groups or "group" in words
            found = [_click(source, call) for call in calls]
            options = tuple(each for each in found if each is not None)
            if options:
                commands[_command_name(source, function)] = options
    if not commands:
        return None
    name = next((name for name in _COMMANDS if name in commands), next(iter(commands)))
    prefix = name if groups else ""
    return Interface("click", "--name value", commands[name], prefix=prefix)


def _command_name(source: Source, function: Function) -> str:
    """The name of a command: the first text of its decorator, or else the function's."""
    for each in function.decorator_list:
        if isinstance(each, ast.Call) and last_name(source.dotted(each)) == "command" and each.args:
            name = source.constant(each.args[0])
            if isinstance(name, str):
                return name
    return function.name.replace("_", "-")


def _click(source: Source, call: ast.Call) -> Argument | None:
    verb = last_name(source.dotted(call))
    names = [name for name in map(source.constant, call.args) if isinstance(name, str)]
    if verb not in ("option", "argument") or not names:
        return None
    given = keywords(call)
    default = source.constant(given.get("default"))
    default = None if default is UNKNOWN else default
    kind, choices = _click_type(source, given.get("type"))
    required = source.constant(given.get("required")) is True
    if verb == "argument":
        needed = required or (default is None and "nargs" not in given)
        return Argument(names[0], "", kind or kind_of(default), default, choices, required=needed)
    option = next((name for name in names if name.startswith("--")), names[0])
    on, slash, off = option.partition("/")
    text = source.constant(given.get("help"))
    argument = Argument(
        on.strip().lstrip("-"),
        on.strip(),
        kind or kind_of(default),
        default,
        choices,
        required,
        help=text if isinstance(text, str) else "",
    )
    if slash:
        switch = "no-" if off.strip() == f"--no-{argument.name}" else "present"
        return argument._replace(kind="bool", switch="no-" if switch == "no-" else "present")
    if source.constant(given.get("is_flag")) is True:
        return argument._replace(kind="bool", switch="present", default=bool(default))
    if source.constant(given.get("multiple")) is True:
        return argument._replace(kind="list")
    if argument.kind == "bool":
        return (
            argument._replace(truth=("true", "false"))
            if "type" in given
            else argument._replace(switch="present")
        )
    return argument


def _click_type(source: Source, node: ast.expr | None) -> tuple[Kind | None, tuple[Any, ...]]:
    if node is None:
        return None, ()
    if isinstance(node, ast.Call) and last_name(source.dotted(node)) == "Choice" and node.args:
        values = source.constant(node.args[0])
        return "text", values if isinstance(values, tuple) else ()
    return _KINDS.get(last_name(source.dotted(node))), ()


def read_typer(sources: Sequence[Source]) -> Interface | None:
    """The signature of the command that trains."""
    commands: dict[str, tuple[Argument, ...]] = {}
    for source in sources:
        if not any(name.partition(".")[0] in ("typer", "cyclopts") for name in source.imported):
            continue
        run = {
            node.id
            for call in source.calls()
            if source.dotted(call) in ("typer.run", "cyclopts.run")
            for node in call.args
            if isinstance(node, ast.Name)
        }
        for function in _functions(source):
            words = [last_name(source.dotted(each)) for each in function.decorator_list]
            if "command" in words or "default" in words or function.name in run:
                commands[_command_name(source, function)] = tuple(
                    _dashed(argument) for argument in parameters(source, function)
                )
    if not commands:
        return None
    name = next((name for name in _COMMANDS if name in commands), next(iter(commands)))
    return Interface("typer", "--name value", commands[name], prefix=name if len(commands) > 1 else "")


def _dashed(argument: Argument) -> Argument:
    """As typer and tyro spell it: dashes for underscores, booleans with `--no-`."""
    if not argument.option or argument.option != f"--{argument.name}":
        return argument  # positional, or named by the program
    name = argument.name.replace("_", "-")
    return argument._replace(name=name, option=f"--{name}", switch="no-" if argument.kind == "bool" else "")


def parameters(source: Source, function: Function) -> Iterator[Argument]:
    """The parameters of a function as arguments; positional where they have no default."""
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(spec.defaults))
    pairs = [
        *zip(positional, [*missing, *spec.defaults], strict=True),
        *zip(spec.kwonlyargs, spec.kw_defaults, strict=True),
    ]
    for parameter, default in pairs:
        if parameter.arg not in ("self", "cls", "ctx"):
            yield _field(source, parameter.arg, parameter.annotation, default)


def _field(source: Source, name: str, annotation: ast.expr | None, default: ast.expr | None) -> Argument:
    """One parameter or field, with what `typer.Option`, `Annotated` and `field` say of it."""
    option, needed, note = f"--{name}", default is None, ""
    kind, choices, extra = _annotated(source, annotation)
    for call in [*extra, *([default] if isinstance(default, ast.Call) else [])]:
        verb = last_name(source.dotted(call))
        given = keywords(call)
        texts = [text for text in map(source.constant, call.args) if isinstance(text, str)]
        text = source.constant(given.get("help"))
        note = text if isinstance(text, str) else note
        if verb in ("Option", "Argument") and call is default:
            default = call.args[0] if call.args else given.get("default")
            needed = default is None or (
                source.constant(default) in (UNKNOWN, None) and _is_ellipsis(default)
            )
        elif verb in ("field", "Field", "choice") and call is default:
            default = given.get("default") or _factory(given.get("default_factory"))
            default = call.args[0] if default is None and call.args and verb == "Field" else default
            needed = default is None and "default_factory" not in given
        if verb == "Argument":
            option = ""
        named = [each for each in texts if each.startswith("--")]
        option = named[0].partition("/")[0] if named else option
    value = source.constant(default) if default is not None else None
    value = None if value is UNKNOWN else value
    shown = option.lstrip("-") if option and option != f"--{name}" else name
    return Argument(
        shown,
        option if not needed or option != f"--{name}" else "",
        kind or kind_of(value),
        default=value,
        choices=choices,
        required=needed,
        help=note,
    )


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _factory(node: ast.expr | None) -> ast.expr | None:
    """The value of `lambda: [...]`."""
    return node.body if isinstance(node, ast.Lambda) else None


def _annotated(source: Source, node: ast.expr | None) -> tuple[Kind | None, tuple[Any, ...], list[ast.Call]]:
    """Kind, choices and further words of an annotation."""
    match node:
        case ast.Constant(value=str(text)):
            try:
                return _annotated(source, ast.parse(text, mode="eval").body)
            except SyntaxError:
                return None, (), []
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            sides = [_annotated(source, side) for side in (left, right)]
            return next((side for side in sides if side[0] is not None), sides[0])
        case ast.Subscript(value=value, slice=inner):
            word = last_name(source.dotted(value))
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            if word == "Annotated":
                kind, choices, _ = _annotated(source, items[0])
                return kind, choices, [item for item in items[1:] if isinstance(item, ast.Call)]
            if word == "Literal":
                values = [source.constant(item) for item in items]
                return kind_of(values[0]), tuple(value for value in values if value is not UNKNOWN), []
            if word in ("Optional", "Union"):
                return _annotated(source, items[0])
            return _KINDS.get(word), (), []
        case None:
            return None, (), []
        case _:
            name = source.dotted(node)
            return _KINDS.get(last_name(name)), _enum_values(source, name), []


def _enum_values(source: Source, name: str) -> tuple[Any, ...]:
    """The values of an enumeration of the same module."""
    for node in source.tree.body:
        named = isinstance(node, ast.ClassDef) and node.name == name
        if isinstance(node, ast.ClassDef) and named and "Enum" in " ".join(map(ast.unparse, node.bases)):
            values = [source.constant(each.value) for each in node.body if isinstance(each, ast.Assign)]
            return tuple(value for value in values if isinstance(value, str | int | float))
    return ()


def read_fire(sources: Sequence[Source]) -> Interface | None:
    """The signature of the function that `fire.Fire` is given."""
    for source in sources[:1]:
        for call in source.calls():
            if source.dotted(call) not in ("fire.Fire", "defopt.run"):
                continue
            names = [node.id for node in call.args if isinstance(node, ast.Name)]
            function, owner = _find_function(sources, names[0]) if names else _only_function(source)
            if function is None:
                continue
            arguments = tuple(
                argument._replace(
                    option=f"--{argument.name}",
                    truth=("True", "False") if argument.kind == "bool" else (),
                )
                for argument in parameters(owner, function)
            )
            prefix = "" if names else function.name
            return Interface("fire", "--name=value", arguments, prefix=prefix)
    return None


def _find_function(sources: Sequence[Source], name: str) -> tuple[Function | None, Source]:
    for source in sources:
        for function in _functions(source):
            if function.name == name:
                return function, source
    return None, sources[0]


def _only_function(source: Source) -> tuple[Function | None, Source]:
    """For `fire.Fire()`: the function that trains, by its name."""
    named = {function.name: function for function in source.tree.body if isinstance(function, Function)}
    return next((named[name] for name in _COMMANDS if name in named), None), source


#: Parsers of dataclasses: whether names are spelled with dashes.
_DATACLASS_PARSERS: Final = {
    "tyro.cli": True,
    "HfArgumentParser": False,
    "add_arguments": False,
    "parse": False,
    "wrap": False,
    "CLI": False,
    "auto_cli": False,
    "ArgumentParser": False,
}
#: Packages that have them.
_DATACLASS_PACKAGES: Final = {
    "tyro",
    "transformers",
    "trl",
    "simple_parsing",
    "pyrallis",
    "draccus",
    "jsonargparse",
}


def read_dataclasses(sources: Sequence[Source]) -> Interface | None:
    """Fields of the dataclasses, or the signature of the function, that a parser is given."""
    for source in sources:
        packages = {name.partition(".")[0] for name in source.imported} & _DATACLASS_PACKAGES
        if not packages:
            continue
        for call in source.calls():
            word = source.dotted(call)
            dashes = _DATACLASS_PARSERS.get(word, _DATACLASS_PARSERS.get(last_name(word)))
            if dashes is None:
                continue
            given = [*call.args, *(keywords(call).get(key) for key in ("dataclass_types", "config_class"))]
            names = [
                node.id for item in given if item for node in ast.walk(item) if isinstance(node, ast.Name)
            ]
            found = [argument for name in names for argument in _fields(sources, name)]
            if not found:
                continue
            if dashes:
                shown = tuple(_dashed(argument) for argument in found)
            else:
                truth = ("true", "false")
                shown = tuple(each._replace(truth=truth) if each.kind == "bool" else each for each in found)
            trainer = any(_is_trainers(sources, name) for name in names)
            evaluates = "--do_train --do_eval --eval_strategy epoch" if trainer else ""
            kind = f"dataclasses ({min(packages)})"
            return Interface(kind, "--name value", shown, suffix=evaluates)
    return None


#: Of `transformers.TrainingArguments`, what a sweep may set or must know.
_TRAINING_ARGUMENTS: Final = (
    Argument("learning_rate", "--learning_rate", "float", 5e-5),
    Argument("per_device_train_batch_size", "--per_device_train_batch_size", "int", 8),
    Argument("weight_decay", "--weight_decay", "float", 0.0),
    Argument("warmup_ratio", "--warmup_ratio", "float", 0.0),
    Argument("num_train_epochs", "--num_train_epochs", "float", 3.0),
    Argument("output_dir", "--output_dir", "text", "trainer_output"),
    Argument("seed", "--seed", "int", 42),
)


def _is_trainers(sources: Sequence[Source], name: str) -> bool:
    """Whether the class is that of the arguments of transformers' Trainer."""
    origin = last_name(sources[0].dotted(ast.Name(name)))
    return origin in ("TrainingArguments", "Seq2SeqTrainingArguments")


def _fields(sources: Sequence[Source], name: str) -> Iterator[Argument]:
    """The fields of a class with those of its bases, or the parameters of a function."""
    if _is_trainers(sources, name):
        yield from _TRAINING_ARGUMENTS
        return
    for source in sources:
        for node in source.tree.body:
            if isinstance(node, Function) and node.name == name:
                yield from (each._replace(option=f"--{each.name}") for each in parameters(source, node))
                return
            if isinstance(node, ast.ClassDef) and node.name == name:
                for base in node.bases:
                    if isinstance(base, ast.Name):
                        yield from _fields(sources, base.id)
                for each in node.body:
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                        field = _field(source, each.target.id, each.annotation, each.value)
                        yield field._replace(option=f"--{field.name}")
                return
