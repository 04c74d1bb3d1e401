"""Arguments that a program declares one by one: argparse, absl flags, `sys.argv`, environment variables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from hpcsweep.init.found import Argument, Interface
from hpcsweep.init.sources import UNKNOWN, Source, assignments, keywords, last_name

Kind = Literal["float", "int", "bool", "text", "list"]

#: Subcommands that train.
_TRAIN: Final = ("train", "fit", "run")
#: Names of types that read booleans from text.
_BOOLEANS: Final = re.compile(r"str(ing)?_?(2|to)_?bool|boolean|strtobool", re.IGNORECASE)


def kind_of(value: Any) -> Kind:
    """The kind that a default value shows."""
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case tuple():
            return "list"
        case _:
            return "text"


def read_argparse(sources: Sequence[Source]) -> Interface | None:
    """What `add_argument` calls declare, wherever in the program they stand."""
    declared: list[tuple[str, Argument]] = []
    defaults: dict[str, Any] = {}
    order: list[str] = []
    for source in sources:
        if not any(name.partition(".")[0] in _PARSERS for name in source.imported):
            continue
        parsers = dict(_subcommands(source))
        order += parsers.values()
        for call in source.calls():
            if not isinstance(call.func, ast.Attribute):
                continue
            if call.func.attr == "set_defaults":
                found = {name: source.constant(node) for name, node in keywords(call).items()}
                defaults |= {name: value for name, value in found.items() if value is not UNKNOWN}
            if call.func.attr != "add_argument":
                continue
            argument = _declared(source, call)
            if argument is not None:
                owner = call.func.value
                declared.append((parsers.get(owner.id, "") if isinstance(owner, ast.Name) else "", argument))
    if not declared:
        return None
    command = next((name for name in _TRAIN if name in order), order[0] if order else "")
    # With subcommands the options of the main parser stand before the subcommand: they keep their defaults.
    chosen = [argument for owner, argument in declared if owner == command] if command else []
    arguments = chosen or [argument for _, argument in declared]
    unique = {argument.name: argument for argument in reversed(arguments)}
    return Interface(
        "argparse",
        _dashes(arguments),
        tuple(
            argument._replace(default=defaults.get(argument.name, argument.default))
            for argument in reversed(unique.values())
        ),
        prefix=command if chosen else "",
        notes=() if chosen else tuple(_several(sources)),
    )


def _several(sources: Sequence[Source]) -> Iterator[str]:
    """Says that a program has several parsers, as not each may be that of its training."""
    parsers = [
        call
        for source in sources
        for call in source.calls()
        if last_name(source.dotted(call)) == "ArgumentParser" and "parents" not in keywords(call)
    ]
    if len(parsers) > 1:
        yield f"of {len(parsers)} parsers: take out what the one for training does not know"


#: Packages whose parsers have `add_argument`.
_PARSERS: Final = {"argparse", "configargparse", "jsonargparse", "transformers", "simple_parsing", "tap"}


def _dashes(arguments: Sequence[Argument]) -> Literal["--name value", "-name value"]:
    """Whether long options have one dash, as in `-lr`."""
    single = [each for each in arguments if re.match(r"-[A-Za-z]\w", each.option)]
    return "-name value" if len(single) > len(arguments) / 2 else "--name value"


def _subcommands(source: Source) -> Iterator[tuple[str, str]]:
    """Variables that hold parsers of subcommands, with the subcommand's name."""
    for node in source.nodes:
        for name, value in assignments(node):
            if isinstance(value, ast.Call) and last_name(source.dotted(value)) == "add_parser" and value.args:
                command = source.constant(value.args[0])
                if isinstance(command, str):
                    yield name, command


def _declared(source: Source, call: ast.Call) -> Argument | None:
    """One `add_argument` call; None for what takes no value of ours."""
    names = [source.constant(node) for node in call.args]
    options = [name for name in names if isinstance(name, str)]
    if not options:
        return None
    given = keywords(call)
    action = given.get("action")
    acts = source.constant(action) if action is not None else "store"
    acts = last_name(source.dotted(action)) if acts is UNKNOWN and action is not None else acts
    if acts in ("help", "version", "append_const", "count"):
        return None
    option = next((name for name in options if name.startswith("--")), options[0])
    positional = not option.startswith("-")
    name = option.lstrip("-")
    default = source.constant(given["default"]) if "default" in given else None
    default = None if default is UNKNOWN else default
    choices = source.constant(given.get("choices"))
    choices = choices if isinstance(choices, tuple) else _range_choices(source, given.get("choices"))
    text = source.constant(given.get("help"))
    argument = Argument(
        name,
        "" if positional else option,
        default=default,
        choices=choices,
        required=(positional and "nargs" not in given) or source.constant(given.get("required")) is True,
        help=text if isinstance(text, str) else "",
    )
    if acts in ("store_true", "store_false", "store_const"):
        return argument._replace(kind="bool", switch="present", default=acts == "store_false")
    if acts == "BooleanOptionalAction":
        return argument._replace(kind="bool", switch="no-")
    return _with_type(source, argument, given.get("type"), several=_takes_several(source, given.get("nargs")))


def _takes_several(source: Source, nargs: ast.expr | None) -> bool:
    value = source.constant(nargs)
    return value in ("+", "*") or (isinstance(value, int) and value > 1)


def _range_choices(source: Source, node: ast.expr | None) -> tuple[Any, ...]:
    """The values of `range(...)` or of the keys of a dictionary; empty for anything else."""
    if isinstance(node, ast.Call) and last_name(source.dotted(node)) == "range":
        ends = [source.constant(argument) for argument in node.args]
        if all(isinstance(end, int) for end in ends) and 1 <= len(ends) <= 3:
            return tuple(range(*ends))[:100]
    return ()


def _with_type(source: Source, argument: Argument, node: ast.expr | None, *, several: bool) -> Argument:
    """The argument with the kind of its type, or else of its default."""
    name = last_name(source.dotted(node)) if node is not None else ""
    if isinstance(node, ast.Lambda):
        name = "bool" if "true" in ast.unparse(node).lower() else ""
        if name:
            return argument._replace(kind="bool", truth=("true", "false"))
    if several:
        return argument._replace(kind="list")
    if name == "bool":  # bool("False") is True: a value cannot switch it off
        return argument._replace(kind="bool", truth=("1", ""))
    if _BOOLEANS.search(name):
        return argument._replace(kind="bool", truth=("true", "false"))
    kinds: dict[str, Kind] = {"float": "float", "int": "int", "Path": "text", "str": "text"}
    # Names such as `positive_float` and `_float_01`.
    named = next((kind for word, kind in kinds.items() if word in re.split(r"[^A-Za-z]+|_", name)), None)
    return argument._replace(kind=named or kind_of(argument.default))


def read_absl(sources: Sequence[Source]) -> Interface | None:
    """What `flags.DEFINE_...` calls declare."""
    kinds: dict[str, Kind] = {
        "DEFINE_float": "float",
        "DEFINE_integer": "int",
        "DEFINE_bool": "bool",
        "DEFINE_boolean": "bool",
        "DEFINE_string": "text",
        "DEFINE_enum": "text",
        "DEFINE_list": "list",
        "DEFINE_multi_integer": "list",
        "DEFINE_multi_float": "list",
    }
    arguments = []
    for source in sources:
        for call in source.calls():
            verb = last_name(source.dotted(call))
            name = source.constant(call.args[0]) if call.args else UNKNOWN
            if verb not in kinds or not isinstance(name, str):
                continue
            default = source.constant(call.args[1] if len(call.args) > 1 else keywords(call).get("default"))
            choices = source.constant(call.args[2]) if verb == "DEFINE_enum" and len(call.args) > 2 else []
            truth = ("true", "false") if kinds[verb] == "bool" else ()
            arguments.append(
                Argument(
                    name,
                    f"--{name}",
                    kinds[verb],
                    default=None if default is UNKNOWN else default,
                    choices=choices if isinstance(choices, tuple) else (),
                    truth=truth,
                )
            )
    required = {name for source in sources for name in _marked_required(source)}
    given = tuple(each._replace(required=each.name in required) for each in arguments)
    return Interface("absl flags", "--name=value", given) if arguments else None


def _marked_required(source: Source) -> Iterator[str]:
    for call in source.calls():
        if last_name(source.dotted(call)) == "mark_flag_as_required" and call.args:
            name = source.constant(call.args[0])
            if isinstance(name, str):
                yield name


def read_argv(sources: Sequence[Source]) -> Interface | None:
    """Positions of `sys.argv`, by the names that the values are assigned to."""
    found: dict[int, Argument] = {}
    source = sources[0]
    for node in source.nodes:
        pairs = list(assignments(node))
        match node:
            case ast.Assign(
                targets=[ast.Tuple(elts=targets)],
                value=ast.Subscript(slice=ast.Slice(lower=ast.Constant(value=int(first)))) as value,
            ) if source.dotted(value.value) == "sys.argv":
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                for position, name in enumerate(names, first):
                    found[position] = Argument(name, kind=_converted(source, name) or "text", required=True)
        for name, expression in pairs:
            for inner in ast.walk(expression):
                match inner:
                    case ast.Subscript(value=argv, slice=ast.Constant(value=int(position))):
                        if source.dotted(argv) != "sys.argv" or position < 1:
                            continue
                        kind = _kind_around(source, inner, expression)
                        default = _default(source, expression)
                        argument = Argument(name, kind=kind, default=default, required=default is None)
                        found.setdefault(position, argument)
    positions = sorted(found)
    if not positions or positions != list(range(1, len(positions) + 1)):
        return None
    return Interface("sys.argv", "positional", tuple(found[position] for position in positions))


def _converted(source: Source, name: str) -> Kind | None:
    """The type that a name is converted to somewhere, as in `float(lr)`."""
    for call in source.calls():
        match call:
            case ast.Call(func=ast.Name(id="float" | "int" as kind), args=[ast.Name(id=of)]) if of == name:
                return "float" if kind == "float" else "int"
    return None


def _kind_around(source: Source, node: ast.AST, whole: ast.AST) -> Kind:
    """The type that a value is converted to within an assignment."""
    for outer in source.around(node):
        if isinstance(outer, ast.Call) and isinstance(outer.func, ast.Name):
            match outer.func.id:
                case "float":
                    return "float"
                case "int":
                    return "int"
        if outer is whole:
            break
    return "text"


def _default(source: Source, value: ast.expr) -> Any:
    """What an assignment takes without the argument, as in `x = float(argv[1]) if ... else 0.1`."""
    for inner in ast.walk(value):
        match inner:
            case ast.IfExp(orelse=other, body=body):
                for side in (other, body):
                    found = source.constant(side)
                    if found is not UNKNOWN:
                        return _number(found)
    return None


def _number(value: Any) -> Any:
    """A number that is written as text, as environment variables have them."""
    if isinstance(value, str):
        for read in (int, float):
            try:
                return read(value)
            except ValueError:
                continue
    return value


def read_environment(sources: Sequence[Source]) -> Interface | None:
    """Variables of the environment that the program reads with a type or a default of a number."""
    found: dict[str, Argument] = {}
    for source in sources:
        nodes = [node for node in source.nodes if isinstance(node, ast.Call | ast.Subscript)]
        for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
            name, default = _variable(source, node)
            if not name or name.startswith("HPCSWEEP_"):
                continue
            kind = _kind_around(source, node, source.tree)
            number = _number(default)
            kind = kind_of(number) if kind == "text" else kind
            if kind in ("float", "int"):
                needed = default is None
                found.setdefault(name, Argument(name.lower(), name, kind, default=number, required=needed))
    return Interface("environment variables", "environment", tuple(found.values())) if found else None


def _variable(source: Source, node: ast.AST) -> tuple[str, Any]:
    """Name and default of `os.environ.get(...)`, `os.getenv(...)` or `os.environ[...]`; else no name."""
    match node:
        case ast.Call(args=[first, *others]) if source.dotted(node) in ("os.environ.get", "os.getenv"):
            name, default = source.constant(first), source.constant(others[0]) if others else None
        case ast.Subscript(value=value, slice=key) if source.dotted(value) == "os.environ":
            name, default = source.constant(key), None
        case _:
            return "", None
    return (name if isinstance(name, str) else ""), (None if default is UNKNOWN else default)
