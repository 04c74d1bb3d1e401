"""Loops over epochs and steps: where they begin, where they end, and what stands in one."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from hpcsweep.init.names import is_step, words
from hpcsweep.init.sources import UNKNOWN, Source, last_name


def _loops(source: Source, node: ast.AST) -> Iterator[ast.For | ast.While]:
    for outer in source.around(node):
        if isinstance(outer, ast.For | ast.While):
            yield outer


def is_repeated(source: Source, call: ast.AST) -> bool:
    """Whether a call stands in a loop, or in a function that is called in one."""
    if any(_loops(source, call)):
        return True
    function = source.function_of(call)
    if function is None:
        return False
    callers = (each for each in source.calls() if last_name(source.dotted(each)) == function.name)
    return any(any(_loops(source, caller)) for caller in callers)


def _unwrapped(source: Source, node: ast.expr) -> ast.expr:
    """The iterable inside of `tqdm(...)`, `iter(...)` and their like."""
    while (
        isinstance(node, ast.Call)
        and node.args
        and last_name(source.dotted(node)) in ("tqdm", "iter", "list")
    ):
        node = node.args[0]
    return node


def _start(source: Source, loop: ast.For) -> ast.expr | int | None:
    """What a loop over numbers starts from; None where it is not known."""
    match _unwrapped(source, loop.iter):
        case ast.Call(args=[_]) as call if last_name(source.dotted(call)) in ("range", "trange"):
            return 0
        case ast.Call(args=[first, _, *_]) as call if last_name(source.dotted(call)) in ("range", "trange"):
            return first
        case ast.Call(args=[_, *rest], keywords=named) as call if source.dotted(call) == "enumerate":
            given = [*rest, *(keyword.value for keyword in named)]
            return given[0] if given else 0
        case ast.Call(args=args) as call if last_name(source.dotted(call)) == "count":
            return args[0] if args else 0
        case _:
            return None


def _targets(loop: ast.For) -> list[str]:
    target = loop.target.elts[0] if isinstance(loop.target, ast.Tuple) and loop.target.elts else loop.target
    return [target.id] if isinstance(target, ast.Name) else []


def counts_from(source: Source, node: ast.expr) -> int | None:
    """The first value of a printed step; None if that is not known.

    Counters of `while` loops often say how much is done: they tell nothing.
    """
    offset, name = 0, node
    match node:
        case ast.BinOp(op=ast.Add(), left=ast.Name() as left, right=ast.Constant(value=int(more))):
            offset, name = more, left
        case ast.BinOp(op=ast.Add(), left=ast.Constant(value=int(more)), right=ast.Name() as right):
            offset, name = more, right
    if not isinstance(name, ast.Name):
        return None
    for loop in source.nodes:
        if isinstance(loop, ast.For) and name.id in _targets(loop):
            start = _start(source, loop)
            value = start if isinstance(start, int) or start is None else _initial(source, start)
            return None if value is None else value + offset
    return None


def _initial(source: Source, node: ast.expr) -> int | None:
    """The number that a variable such as `start_epoch` has at first."""
    value = source.constant(node)
    if isinstance(value, int):
        return value
    if isinstance(node, ast.Name):
        for each in source.nodes:
            if isinstance(each, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == node.id for target in each.targets
            ):
                found = source.constant(each.value)
                if isinstance(found, int):
                    return found
    if isinstance(node, ast.Attribute) and "start" in words(node.attr):
        return 0
    return None


def ends(sources: Sequence[Source]) -> Iterator[str | int]:
    """What loops over epochs or steps run to: names as in `args.epochs`, or numbers."""
    for source in sources:
        for loop in source.nodes:
            if not isinstance(loop, ast.For) or not any(map(is_step, _targets(loop))):
                continue
            match _unwrapped(source, loop.iter):
                case ast.Call(args=args) as call if (
                    last_name(source.dotted(call)) in ("range", "trange") and args
                ):
                    end = args[0] if len(args) == 1 else args[1]
                    more = 0 if len(args) == 1 else source.constant(args[0])
                    yield from _end(source, end, more if isinstance(more, int) else 0)


def _end(source: Source, end: ast.expr, start: int) -> Iterator[str | int]:
    value = source.constant(end)
    if isinstance(value, int) and value > start:
        yield value - start
    for node in ast.walk(end):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name) and source.constant(node) is UNKNOWN:
            yield node.id


def starts_from_checkpoint(sources: Sequence[Source]) -> bool:
    """Whether a loop over epochs or steps starts at a variable, as after a checkpoint was loaded."""
    for source in sources:
        for loop in source.nodes:
            if isinstance(loop, ast.For) and any(map(is_step, _targets(loop))):
                start = _start(source, loop)
                if isinstance(start, ast.expr) and not isinstance(source.constant(start), int):
                    return True
                if isinstance(start, ast.Name):
                    stores = [
                        node
                        for node in source.nodes
                        if isinstance(node, ast.Name)
                        and node.id == start.id
                        and isinstance(node.ctx, ast.Store)
                    ]
                    if len(stores) > 1:
                        return True
            if isinstance(loop, ast.While) and any(
                isinstance(node, ast.AugAssign)
                and isinstance(node.target, ast.Name)
                and is_step(node.target.id)
                for node in ast.walk(loop)
            ):
                return True
    return False
