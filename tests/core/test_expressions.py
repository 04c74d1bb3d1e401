"""Constraint expressions: what they mean, and that nothing else gets through."""

from __future__ import annotations

import copy
import pickle
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.core.expressions import FUNCTIONS, MAX_LENGTH, Expression
from tests.effort import examples

CONFIG = {
    "batch_size": 64,
    "accum": 4,
    "lr": 0.5,
    "optimizer": "adam",
    "momentum": None,
    "nesterov": True,
    "zero": 0,
    "layers": [1, 2],
    "log": 8,
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("batch_size * accum <= 512", True),
        ("batch_size * accum <= 255", False),
        ("lr < 0.1 or optimizer == 'adam'", True),
        ("not nesterov", False),
        ("0 < lr < 1", True),
        ("optimizer in ('sgd', 'adam')", True),
        ("optimizer not in ['sgd', 'adam']", False),
        ("momentum is None", True),
        ("momentum == None", True),
        ("momentum is not None", False),
        ("layers == [1, 2]", True),
        ("(batch_size if nesterov else accum) == 64", True),
        ("log2(batch_size) == 6", True),
        ("log10(100 * lr / lr) == 2 and log(lr, 2) == -1", True),
        ("abs(-lr) == min(lr, 1) == max(lr, 0.1)", True),
        ("sqrt(accum) == 2 and exp(zero) == 1", True),
        ("floor(lr) == 0 and ceil(lr) == 1 and round(lr + 0.1) == 1", True),
        ("batch_size % 3 == 1 and batch_size // 3 == 21", True),
        ("2 ** -accum == 0.0625", True),
        ("log(log) > 2", True),
        ("+accum - -accum == 8", True),
    ],
)
def test_expression_means_what_python_means(text: str, holds: bool) -> None:
    assert Expression(text).evaluate(CONFIG) is holds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "lr < 1 and lr.real > 0",
            "column 12: attributes are not allowed; write a name with dots in backticks",
        ),
        ("().__class__ == lr", "column 1: attributes are not allowed; write a name with dots in backticks"),
        ("layers[0] > 1", "column 1: subscripts are not allowed"),
        (
            "1 < __import__('os')",
            f"column 5: only these functions can be called: {', '.join(FUNCTIONS)}",
        ),
        (
            "(lambda: lr)()",
            f"column 1: only these functions can be called: {', '.join(FUNCTIONS)}",
        ),
        ("max(*layers) < 3", "column 1: functions take plain arguments only"),
        ("round(lr, ndigits=1) < 3", "column 1: functions take plain arguments only"),
        ("[x for x in layers] == lr", "column 1: ListComp is not allowed"),
        ("lr < 1 & accum > 2", "column 6: '&' is not allowed, write 'and'"),
        ("accum << 3 > lr", "column 1: operator LShift is not allowed"),
        ("~accum > lr", "column 1: UnaryOp is not allowed"),
        ("(x := lr) > 3", "column 2: ':=' is not allowed"),
        ("lr is accum", "column 7: 'is' is allowed only with None, write '=='"),
        ("f'{lr}' == 1", "column 1: formatted texts are not allowed"),
        ("b'a' == lr", "column 1: b'a' is not allowed"),
        ("lr == 1j", "column 7: 1j is not allowed"),
        ("1 < 2", "names no parameter"),
        ("-" * 300 + "lr", "nested more than 60 deep"),
        ("lr" + " " * MAX_LENGTH, "must be at most 1000 characters, got 1002"),
    ],
)
def test_a_bad_expression_is_refused_with_its_column(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        Expression(text)


@pytest.mark.parametrize("text", ["", "lr <", "lr = 3", "lr\0", "(lr", "lr if", "*lr", "return lr"])
def test_a_syntax_error_names_its_column(text: str) -> None:
    with pytest.raises(ValueError, match=r"^column \d+: \S"):
        Expression(text)


@pytest.mark.parametrize(
    "text",
    [
        "9 ** 9 ** 9 > lr",
        "(9 ** 999) ** 999 > lr",
        "2.0 ** 100000 > lr",
        "exp(1e6) > lr",
        "lr / zero < 1",
        "accum % zero < 1",
        "log(zero) < 1",
        "(-accum) ** 0.5 < 1",
        "round(lr, 10000000000) < 1",
        "(" + " * ".join(["(9 ** 1000)"] * 40) + ") > lr",
    ],
)
def test_a_constraint_that_cannot_be_computed_is_not_satisfied(text: str) -> None:
    start = time.process_time()
    assert Expression(text).evaluate(CONFIG) is False
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("optimizer > 3", "'>' not supported between instances of 'str' and 'int'"),
        ("'a' * 10 ** 12 == optimizer", "needs a number, got 'a'"),
        ("'%999999999d' % accum == optimizer", "needs a number, got '%999999999d'"),
        ("[1] * accum == layers", "needs a number, got [1]"),
        ("log(optimizer) < 1", "needs a number, got 'adam'"),
    ],
)
def test_values_of_incompatible_types_are_an_error(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="cannot be computed") as caught:
        Expression(text).evaluate(CONFIG)
    assert str(caught.value).startswith(f"{text!r} cannot be computed for ")
    assert str(caught.value).endswith(problem)


def test_constraint_on_inactive_parameter_holds() -> None:
    assert Expression("dropout > 3 and lr > 100").evaluate(CONFIG)


def test_an_expression_may_stand_for_a_number() -> None:
    number = Expression("2 + 0.5 * layers").number({"layers": 3, "lr": 0.1})
    assert (number, type(number)) == (3.5, float)
    assert Expression("layers ** 2").number({"layers": 3}) == 9.0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("layers / lr", "'layers / lr' cannot be computed for layers=3, lr=0: division by zero"),
        ("layers * depth", "'layers * depth' cannot be computed where depth is inactive"),
        ("name", "'name' cannot be computed for name='a': needs a number, got 'a'"),
        ("name * 2", "'name * 2' cannot be computed for name='a': needs a number, got 'a'"),
        ("-log(lr)", "'-log(lr)' cannot be computed for lr=0: math domain error"),
        ("10.0 ** 300 * 1e300 * layers", "must be a finite number, got inf for layers=3"),
        ("2 ** 2000 * layers", "int too large to convert to float"),
    ],
)
def test_an_expression_that_gives_no_number_is_an_error(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"must be a finite number|cannot be computed") as caught:
        Expression(text).number({"layers": 3, "lr": 0, "name": "a"})
    assert problem in str(caught.value)


def test_names_are_the_parameters_without_the_functions() -> None:
    assert Expression("log(lr) < abs(accum) or log > 3").names == {"lr", "accum", "log"}


def test_expression_is_frozen_and_equal_by_its_text() -> None:
    expression = Expression("lr < 1")
    assert expression == Expression("lr < 1") != Expression("lr < 2")
    assert len({expression, Expression("lr < 1")}) == 1
    assert pickle.loads(pickle.dumps(expression)) == copy.deepcopy(expression) == expression
    with pytest.raises(AttributeError):
        expression.text = "lr < 2"  # type: ignore[misc]


@examples(300, 5000)
@given(st.text(max_size=60) | st.text(alphabet="lr09.*+-/%<>=()[]{},'\"_ andornotif:@\\\n", max_size=60))
def test_any_text_is_an_expression_or_a_value_error(text: str) -> None:
    try:
        expression = Expression(text)
        held: Any = expression.evaluate(dict.fromkeys(expression.names, 2))
    except ValueError:
        return
    assert isinstance(held, bool)


@pytest.mark.parametrize(
    ("text", "config", "holds"),
    [
        ("`optimizer.lr` < 0.1", {"optimizer.lr": 0.05}, True),
        ("`optimizer.lr` < 0.1", {"optimizer.lr": 0.5}, False),
        (
            "`model/depth` * `model/width` <= _0 and _0 < 9",
            {"model/depth": 2, "model/width": 3, "_0": 7},
            True,
        ),
        ("name == '`a.b`' and `a.b` == 1", {"name": "`a.b`", "a.b": 1}, True),
    ],
)
def test_names_that_are_no_identifiers_stand_in_backticks(
    text: str, config: dict[str, Any], holds: bool
) -> None:
    expression = Expression(text)
    assert expression.names == config.keys()
    assert expression.evaluate(config) is holds


def test_a_column_counts_backticks() -> None:
    with pytest.raises(ValueError, match=r"column 16: subscripts are not allowed"):
        Expression("`a.b` < 1 and (x[0])")
