"""Expressions over parameters: constraints such as `batch_size * accum <= 512`, and resources of a run.

Parsed with `ast`, checked against a list of what is allowed, compiled once. Nothing of Python
but numbers, texts, comparisons, boolean logic and a few maths functions can be reached. A name that is no
identifier stands in backticks: `` `optimizer.lr` < 0.1 ``.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Final

MAX_LENGTH: Final = 1000
MAX_DEPTH: Final = 60
#: Integers above this many bits are refused: `9**9**9` would fill the memory.
MAX_BITS: Final = 4096


def _number(value: Any) -> Any:
    if not isinstance(value, int | float):
        raise TypeError(f"needs a number, got {value!r}")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise OverflowError("integer too large")
    return value


def _times(left: Any, right: Any) -> Any:
    return _number(left) * _number(right)


def _modulo(left: Any, right: Any) -> Any:
    return _number(left) % _number(right)


def _power(base: Any, exponent: Any) -> Any:
    _number(base), _number(exponent)
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1:
        if exponent < 0:
            return float(base) ** exponent
        if base.bit_length() * exponent > MAX_BITS:
            raise OverflowError("integer too large")
    result = base**exponent
    if isinstance(result, complex):
        raise ArithmeticError("root of a negative number")
    return result


def _log(value: Any, base: Any = None) -> float:
    return math.log(_number(value)) if base is None else math.log(_number(value), _number(base))


def _round(value: Any, digits: int | None = None) -> Any:
    if digits is not None and abs(digits) > 100:
        raise OverflowError("too many digits")
    return round(_number(value), digits)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": abs,
    "min": min,
    "max": max,
    "round": _round,
    "log": _log,
    "log2": math.log2,
    "log10": math.log10,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "floor": math.floor,
    "ceil": math.ceil,
}

# Operators that can blow up go through a guard. Names that start with a dot cannot be written
# in an expression, so a parameter called `log` does not collide with the function.
_GUARDS: Final[Mapping[type[ast.operator], str]] = {
    ast.Mult: ".times",
    ast.Mod: ".modulo",
    ast.Pow: ".power",
}
_GLOBALS: Final[dict[str, Any]] = {
    "__builtins__": {},
    ".times": _times,
    ".modulo": _modulo,
    ".power": _power,
    **{f".{name}": function for name, function in FUNCTIONS.items()},
}
_PLAIN_OPERATORS: Final = (ast.Add, ast.Sub, ast.Div, ast.FloorDiv)
_HINTS: Final[Mapping[type[ast.AST], str]] = {
    ast.BitAnd: "'&' is not allowed, write 'and'",
    ast.BitOr: "'|' is not allowed, write 'or'",
    ast.Attribute: "attributes are not allowed; write a name with dots in backticks",
    ast.Subscript: "subscripts are not allowed",
    ast.Lambda: "functions cannot be defined",
    ast.NamedExpr: "':=' is not allowed",
    ast.Set: "sets are not allowed, write a tuple",
    ast.JoinedStr: "formatted texts are not allowed",
}


class _Checker(ast.NodeTransformer):
    """Refuses what is not allowed, collects names, and puts the guards in."""

    def __init__(self, quoted: Mapping[str, str]) -> None:
        self.names: set[str] = set()
        self.depth = 0
        self._quoted = quoted

    def visit(self, node: ast.AST) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        result = super().visit(node)
        self.depth -= 1
        return result

    def generic_visit(self, node: ast.AST) -> ast.AST:
        match node:
            case ast.Expression() | ast.BoolOp() | ast.And() | ast.Or() | ast.IfExp() | ast.Load():
                return super().generic_visit(node)
            case ast.Tuple() | ast.List():
                return super().generic_visit(node)
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
                node.operand = self.visit(operand)
                return node
        raise _refusal(node, _HINTS.get(type(node), f"{type(node).__name__} is not allowed"))

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, int | float | str | None):
            raise _refusal(node, f"{node.value!r} is not allowed")
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._quoted.get(node.id, node.id)
        self.names.add(node.id)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        for operator, right in zip(node.ops, node.comparators, strict=True):
            none = isinstance(right, ast.Constant) and right.value is None
            if isinstance(operator, ast.Is | ast.IsNot) and not none:
                raise _refusal(right, "'is' is allowed only with None, write '=='")
        node.left = self.visit(node.left)
        node.comparators = [self.visit(right) for right in node.comparators]
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        left, right = self.visit(node.left), self.visit(node.right)
        guard = _GUARDS.get(type(node.op))
        if guard is not None:
            function = ast.copy_location(ast.Name(guard, ast.Load()), node)
            return ast.copy_location(ast.Call(function, [left, right], []), node)
        if not isinstance(node.op, _PLAIN_OPERATORS):
            hint = _HINTS.get(type(node.op), f"operator {type(node.op).__name__} is not allowed")
            raise _refusal(node, hint)
        node.left, node.right = left, right
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
            known = ", ".join(FUNCTIONS)
            raise _refusal(node, f"only these functions can be called: {known}")
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise _refusal(node, "functions take plain arguments only")
        node.func = ast.copy_location(ast.Name(f".{node.func.id}", ast.Load()), node.func)
        node.args = [self.visit(argument) for argument in node.args]
        return node


def _refusal(node: ast.AST, why: str) -> ValueError:
    column = getattr(node, "col_offset", None)
    return ValueError(why if column is None else f"column {column + 1}: {why}")


#: A text, which stays as it is, or a name in backticks.
_QUOTED: Final = re.compile(r"""'[^']*'|"[^"]*"|`([^`]+)`""")


def _without_backticks(text: str) -> tuple[str, dict[str, str]]:
    """The text with identifiers of the same length for names in backticks, and what they stand for."""
    quoted: dict[str, str] = {}
    unused = (name for name in map("_{}".format, itertools.count()) if name not in text)

    def identifier(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        free = next(unused).ljust(len(match[0]), "_")
        if len(free) > len(match[0]):  # columns in messages are those of the text
            raise ValueError(f"too many names in backticks, the last one is {match[1]!r}")
        quoted[free] = match[1]
        return free

    return _QUOTED.sub(identifier, text), quoted


def _compile(text: str) -> tuple[CodeType, frozenset[str]]:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"must be at most {MAX_LENGTH} characters, got {len(text)}")
    plain, quoted = _without_backticks(text.strip().replace("\n", " "))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(plain, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"column {error.offset or 1}: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    checker = _Checker(quoted)
    tree = checker.visit(tree)
    if not checker.names:
        raise ValueError("names no parameter")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(tree, "<constraint>", "eval"), frozenset(checker.names)


@dataclass(frozen=True, slots=True)
class Expression:
    """A constraint or a number that can be evaluated safely, whoever wrote it.

    Attributes:
        text: As written.
        names: The parameters that it speaks of.

    Raises:
        ValueError: The text is no allowed expression; the message says what and at which column.
    """

    text: str
    names: frozenset[str] = field(init=False, compare=False, repr=False)
    _code: CodeType = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        code, names = _compile(self.text)
        object.__setattr__(self, "_code", code)
        object.__setattr__(self, "names", names)

    def __reduce__(self) -> tuple[type[Expression], tuple[str]]:
        return Expression, (self.text,)

    def evaluate(self, config: Mapping[str, Any]) -> bool:
        """Whether the configuration satisfies the constraint.

        It holds if one of its names is inactive (absent from the configuration). It does not
        hold where it cannot be computed, such as a division by zero or a logarithm of 0.

        Raises:
            ValueError: It compares or computes with values that do not go together.
        """
        if not self.names <= config.keys():
            return True
        try:
            return bool(eval(self._code, _GLOBALS, config))  # the tree was checked
        except TypeError as error:
            raise ValueError(f"{self.text!r} cannot be computed for {self._given(config)}: {error}") from None
        except (ArithmeticError, ValueError):
            return False

    def number(self, config: Mapping[str, Any]) -> float:
        """The value for a configuration, where the expression stands for a number.

        Raises:
            ValueError: A name is inactive (absent), it cannot be computed, or it is no finite number.
        """
        inactive = sorted(self.names - config.keys())
        if inactive:
            raise ValueError(f"{self.text!r} cannot be computed where {', '.join(inactive)} is inactive")
        number: float = self.value(config, only_numbers=True)
        if not math.isfinite(number):
            raise ValueError(f"{self.text!r} must be a finite number, got {number} for {self._given(config)}")
        return number

    def value(self, config: Mapping[str, Any], *, only_numbers: bool = False) -> Any:
        """What it gives for values of all its names.

        Raises:
            ValueError: It cannot be computed, or with `only_numbers` gives no number.
        """
        try:
            found = eval(self._code, _GLOBALS, config)  # the tree was checked
            return float(_number(found)) if only_numbers else found
        except (TypeError, ArithmeticError, ValueError) as error:
            raise ValueError(f"{self.text!r} cannot be computed for {self._given(config)}: {error}") from None

    def _given(self, config: Mapping[str, Any]) -> str:
        return ", ".join(f"{name}={config[name]!r}" for name in sorted(self.names))
