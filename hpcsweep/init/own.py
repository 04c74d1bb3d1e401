"""Scripts that are written for hpcsweep: what they ask a trial for, and report to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from hpcsweep.init.argparse_options import kind_of
from hpcsweep.init.found import Argument, Interface, OwnTrial
from hpcsweep.init.sources import UNKNOWN, Source, keywords

#: Arguments of `current_trial` that are no parameters.
_SETTINGS = ("resource", "seed", "folder")


def read_own(sources: Sequence[Source]) -> Interface | None:
    """The parameters that are read from `trial.config`, with the defaults that `current_trial` has."""
    if not _uses_hpcsweep(sources[0]):
        return None
    defaults = dict(_stand_alone(sources[0]))
    names = dict.fromkeys([*defaults, *(name for source in sources for name in _asked(source))])
    arguments = tuple(
        Argument(name, kind=kind_of(defaults.get(name)), default=defaults.get(name))
        for name in names
        if name not in _SETTINGS
    )
    return Interface("the script asks hpcsweep for its parameters", "asked", arguments) if arguments else None


def read_own_trial(sources: Sequence[Source]) -> OwnTrial | None:
    """How such a script is started, how long it trains by itself, and what it reports."""
    first = sources[0]
    if not _uses_hpcsweep(first):
        return None
    resource = dict(_stand_alone(first)).get("resource")
    calls = {
        source: [call for call in source.calls() if isinstance(call.func, ast.Attribute)]
        for source in sources
    }
    methods = {
        call.func.attr for each in calls.values() for call in each if isinstance(call.func, ast.Attribute)
    }
    attributes = {node.attr for source in sources for node in source.nodes if isinstance(node, ast.Attribute)}
    metrics = dict.fromkeys(
        name for source in sources for call in calls[source] for name in _reported(source, call)
    )
    return OwnTrial(
        "" if any(_is_current(first, call) for call in first.calls()) else _function(first),
        resource if isinstance(resource, int) else None,
        bool(metrics)
        or any(name.startswith("hpcsweep.training.") for source in sources for name in source.imported),
        tuple(metrics),
        rungs="steps" in methods or "resource" in attributes,
        resumes="resume_from" in attributes,
    )


def _uses_hpcsweep(source: Source) -> bool:
    return any(name.partition(".")[0] == "hpcsweep" for name in source.imported)


def _is_current(source: Source, call: ast.Call) -> bool:
    return source.dotted(call.func).endswith("current_trial")


def _stand_alone(source: Source) -> Iterator[tuple[str, object]]:
    """What `current_trial` is given for runs by hand."""
    for call in source.calls():
        if not _is_current(source, call):
            continue
        for node in call.args:
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    name = source.constant(key)
                    if isinstance(name, str):
                        yield name, _known(source, value)
        for name, value in keywords(call).items():
            yield name, _known(source, value)


def _known(source: Source, node: ast.expr) -> object:
    value = source.constant(node)
    return None if value is UNKNOWN else value


def _asked(source: Source) -> Iterator[str]:
    """Keys of `trial.config`, or of what is called `config`."""
    for node in source.nodes:
        match node:
            case ast.Subscript(value=config, slice=key, ctx=ast.Load()):
                pass
            case ast.Call(func=ast.Attribute(value=config, attr="get"), args=[key, *_]):
                pass
            case _:
                continue
        name = source.constant(key)
        if source.dotted(config).rpartition(".")[2] == "config" and isinstance(name, str):
            yield name


def _reported(source: Source, call: ast.Call) -> Iterator[str]:
    """The metrics of `trial.report(step, name=value)` and `trial.report(step, **{"name": value})`."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "report":
        return
    yield from keywords(call)
    for each in call.keywords:
        if each.arg is None and isinstance(each.value, ast.Dict):
            yield from (name for key in each.value.keys if isinstance(name := source.constant(key), str))


def _function(source: Source) -> str:
    """The function that is given the trial."""
    for statement in source.tree.body:
        match statement:
            case ast.FunctionDef(name=name, args=ast.arguments(args=[only])):
                if only.arg == "trial" or (
                    only.annotation is not None and source.dotted(only.annotation) == "hpcsweep.Trial"
                ):
                    return name
    return ""
