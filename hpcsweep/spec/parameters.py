"""Reads `space` and `constraints` into a `core.space.Space`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Final, Literal, assert_never

from pydantic import BaseModel, BeforeValidator, Field, PlainValidator, WithJsonSchema

from hpcsweep.core.expressions import Expression
from hpcsweep.core.priors import prior_to_yaml, read_prior
from hpcsweep.core.space import Choice, Constant, Domain, Float, Int, InvalidDomain, Ordinal, Parameter, Space
from hpcsweep.core.suggestions import NAME
from hpcsweep.core.text import format_value, json_problem, suggest_name
from hpcsweep.options import Section, Whole
from hpcsweep.spec.checks import Problems
from hpcsweep.worker.command import parameter_variable


def _read_bound(value: Any) -> Any:
    """A number as written, so that messages show `0` and not `0.0`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, got {format_value(value)}")
    return value


def _read_list(value: Any) -> Any:
    if not isinstance(value, list):
        raise ValueError(f"must be a list, got {format_value(value)}")
    return tuple(value)


def _read_conditions(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {str(name): tuple(item) if isinstance(item, list) else (item,) for name, item in value.items()}


Bound = Annotated[float, PlainValidator(_read_bound), WithJsonSchema({"type": "number"})]
Values = Annotated[
    tuple[Any, ...], PlainValidator(_read_list), WithJsonSchema({"type": "array", "minItems": 1})
]
When = Annotated[
    dict[str, tuple[Any, ...]],
    BeforeValidator(_read_conditions),
    WithJsonSchema({"type": "object", "minProperties": 1}),
]


#: What is in it depends on the domain: `core.priors` reads it.
NumberPrior = Annotated[
    Any,
    WithJsonSchema(
        {
            "type": ["object", "null"],
            "properties": {
                "center": {"type": "number", "description": "The likeliest value, within low and high."},
                "sigma": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "description": "Standard deviation: 0.5 with `log` is a factor of 3 up or down.",
                },
            },
            "required": ["center", "sigma"],
            "additionalProperties": False,
        }
    ),
]
ListPrior = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "object", "minProperties": 1},
                {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1},
                {"type": "null"},
            ]
        }
    ),
]


class Conditional(Section):
    """Keys of every parameter."""

    when: When = Field(default_factory=dict)
    """Active only if other parameters have these values, such as `{optimizer: sgd}` or `{depth: [3, 4]}`."""
    format: Literal["json", "comma", "repeat", "append"] | None = None
    """How a command gets a list: `json`, `comma`, `repeat` (`--layers 64 64`) or `append` (`--layers 64
    --layers 64`). See commands.md."""
    added: bool = False
    """The sweep met it on its way (`call: optuna`): earlier trials do without it. `launch` writes this."""


class FloatParameter(Conditional):
    """A number between low and high."""

    type: Literal["float"]
    low: Bound
    """The smallest value."""
    high: Bound
    """The largest value."""
    log: bool = False
    """Sample uniformly on a logarithmic scale."""
    step: Bound | None = None
    """Only low, low + step, low + 2 step, ... up to high. Default: every value in between."""
    prior: NumberPrior = None
    """Where the best value is believed to be: `{center: 3e-4, sigma: 0.5}`. sigma is in powers of ten with
    `log`, else in the unit of the parameter."""


class IntParameter(Conditional):
    """An integer between low and high."""

    type: Literal["int"]
    low: Whole
    """The smallest value."""
    high: Whole
    """The largest value."""
    log: bool = False
    """Sample uniformly on a logarithmic scale."""
    step: Whole | None = None
    """Only low, low + step, low + 2 step, ... up to high. Default: every value in between."""
    prior: NumberPrior = None
    """Where the best value is believed to be: `{center: 3e-4, sigma: 0.5}`. sigma is in powers of ten with
    `log`, else in the unit of the parameter."""


class ListedParameter(Conditional):
    """One of the listed values; for `ordinal` their order matters."""

    type: Literal["choice", "ordinal"]
    """Unordered or ordered values."""
    values: Values
    """The list of values."""
    prior: ListPrior = None
    """How probable each value is: `{adam: 3, sgd: 1}` (others weigh 1) or all weights; `ordinal`: also
    `{center: 64, sigma: 1}`, sigma in places of the list."""


class ConstantParameter(Conditional):
    """Always the same value."""

    type: Literal["constant"]
    value: Any
    """The value."""


AnyParameter = FloatParameter | IntParameter | ListedParameter | ConstantParameter
PARAMETER_MODELS: Final[Mapping[str, type[AnyParameter]]] = {
    "float": FloatParameter,
    "int": IntParameter,
    "ordinal": ListedParameter,
    "choice": ListedParameter,
    "constant": ConstantParameter,
}


def read_space(space: Any, constraints: Any, problems: Problems) -> Space | None:
    """The search space, or None after adding its problems."""
    before = problems.count
    parameters = _read_parameters(space, problems)
    names = list(map(str, space)) if isinstance(space, dict) else []
    expressions = _read_constraints(constraints, names, problems)
    return Space(tuple(parameters), tuple(expressions)) if problems.count == before else None


def _read_parameters(space: Any, problems: Problems) -> list[Parameter]:
    if not isinstance(space, dict):
        problems.add("space", f"must be a mapping of parameters, got {format_value(space)}")
        return []
    if not space:
        problems.add("space", "must have at least one parameter, got none")
    parameters: list[Parameter] = []
    variables: dict[str, str] = {}
    for name, raw in space.items():
        path = f"space.{name}"
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            expected = "must consist of letters, digits and _, with dots or slashes between"
            problems.add(path, f"{expected}, got {format_value(name)}")
            continue
        variable = parameter_variable(name)
        other = variables.setdefault(variable, name)
        if other != name:
            expected = f"must differ from {other!r} in more than case, dots and slashes"
            problems.add(path, f"{expected}: both are the variable {variable}")
        parameter = _read_parameter(name, raw, path, problems)
        if parameter is not None:
            parameters.append(parameter)
    # Conditions of all parameters, including those with other mistakes.
    when = {
        str(name): _read_conditions(raw["when"])
        for name, raw in space.items()
        if isinstance(raw, dict) and isinstance(raw.get("when"), dict)
    }
    domains = {parameter.name: parameter.domain for parameter in parameters}
    _check_conditions(when, domains, names=list(map(str, space)), problems=problems)
    return parameters


def _read_parameter(name: str, raw: Any, path: str, problems: Problems) -> Parameter | None:
    if isinstance(raw, dict):
        return _read_long_form(name, raw, path, problems)
    if raw is None:
        problems.add(path, "must not be empty; for a null write {type: constant, value: null}")
        return None
    try:
        return Parameter(name, Choice(tuple(raw)) if isinstance(raw, list) else Constant(raw))
    except InvalidDomain as error:
        for _, problem in error.problems:
            problems.add(path, problem)
        return None


def _read_long_form(name: str, raw: dict[Any, Any], path: str, problems: Problems) -> Parameter | None:
    kind = raw.get("type")
    model = PARAMETER_MODELS.get(kind) if isinstance(kind, str) else None
    if model is None:
        kinds = list(PARAMETER_MODELS)
        if "type" not in raw:
            problems.add(f"{path}.type", f"missing; expected one of: {', '.join(kinds)}")
        else:
            problems.add(f"{path}.type", suggest_name(str(kind), kinds, kind=f"type {format_value(kind)}"))
        return None
    if model is ConstantParameter and "prior" in raw:
        problems.add(f"{path}.prior", "a constant has one value only: remove the prior")
        return None
    section: BaseModel | None = problems.validated(model, raw, path=path)
    if section is None:
        return None
    try:
        match section:
            case FloatParameter():
                domain: Domain = Float(section.low, section.high, section.log, section.step)
            case IntParameter():
                domain = Int(section.low, section.high, section.log, section.step)
            case ListedParameter(type="ordinal"):
                domain = Ordinal(section.values)
            case ListedParameter():
                domain = Choice(section.values)
            case ConstantParameter():
                domain = Constant(section.value)
            case _:
                raise AssertionError(section)
        believed = getattr(section, "prior", None)
        prior = None
        if believed is not None and not isinstance(domain, Constant):
            prior = read_prior(believed, domain)
    except InvalidDomain as error:
        for key, problem in error.problems:
            problems.add(f"{path}.{key}", problem)
        return None
    return Parameter(name, domain, section.when, section.format or "", section.added, prior)


def _check_conditions(
    when: Mapping[str, Mapping[str, tuple[Any, ...]]],
    domains: Mapping[str, Domain],
    *,
    names: list[str],
    problems: Problems,
) -> None:
    """Check that conditions name other parameters and values of their domains, without a cycle."""
    for name, conditions in when.items():
        for other, values in conditions.items():
            path = f"space.{name}.when.{other}"
            if other == name:
                problems.add(path, "must be another parameter")
            elif other not in names:
                problems.add(path, suggest_name(other, names, kind="parameter"))
            elif other in domains:
                for problem in _condition_problems(domains[other], values):
                    problems.add(path, problem)
    needs = {name: sorted((when.get(name, {}).keys() & set(names)) - {name}) for name in names}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        cycle = error.args[1][:0:-1]  # each needs the next one
        first = min(map(names.index, cycle))
        start = cycle.index(names[first])
        cycle = [*cycle[start:], *cycle[:start], names[first]]
        problems.add(f"space.{names[first]}.when", f"must not form a cycle: {' -> '.join(cycle)}")


def _condition_problems(domain: Domain, values: tuple[Any, ...]) -> list[str]:
    if not values:
        return ["must have at least one value, got an empty list"]
    match domain:
        case Float(step=None):
            return ["must be a parameter with discrete values, not a float without step"]
        case Constant():  # any value, so that `--set space.optimizer=adam` leaves its dependants valid
            return [problem for value in values if (problem := json_problem(value)) is not None]
        case Float() | Int() | Ordinal() | Choice():
            return [problem for value in values if (problem := domain.problem(value)) is not None]
        case _:
            assert_never(domain)


def _read_constraints(raw: Any, names: list[str], problems: Problems) -> list[Expression]:
    if raw is None:
        return []
    if not isinstance(raw, list):
        problems.add("constraints", f"must be a list of expressions, got {format_value(raw)}")
        return []
    found: list[Expression] = []
    for index, text in enumerate(raw):
        path = f"constraints[{index}]"
        if not isinstance(text, str):
            problems.add(path, f"must be an expression, got {format_value(text)}")
            continue
        try:
            expression = Expression(text)
        except ValueError as error:
            problems.add(path, f"{error}, got {text!r}")
            continue
        for name in sorted(expression.names - set(names)):
            problems.add(path, f"{suggest_name(name, names, kind=f'parameter {name!r}')}, got {text!r}")
        found.append(expression)
    return found


def space_to_yaml(space: Space) -> dict[str, Any]:
    """The parameters in the long form of YAML, JSON-able."""
    plain = {parameter.name: _parameter_to_yaml(parameter) for parameter in space.parameters}
    for parameter in space.parameters:
        if parameter.format:
            plain[parameter.name]["format"] = parameter.format
    return plain


def domains_to_yaml(space: Space) -> dict[str, Any]:
    """The same without what only says how a program gets the values."""
    return {parameter.name: _parameter_to_yaml(parameter) for parameter in space.parameters}


def _parameter_to_yaml(parameter: Parameter) -> dict[str, Any]:
    plain: dict[str, Any]
    match parameter.domain:
        case Float(low, high, log, step) | Int(low, high, log, step):
            kind = "float" if isinstance(parameter.domain, Float) else "int"
            plain = {"type": kind, "low": low, "high": high, "log": log}
            if step is not None:
                plain["step"] = step
        case Ordinal(values):
            plain = {"type": "ordinal", "values": _as_lists(values)}
        case Choice(values):
            plain = {"type": "choice", "values": _as_lists(values)}
        case Constant(value):
            plain = {"type": "constant", "value": _as_lists(value)}
        case _:
            assert_never(parameter.domain)
    if parameter.added:
        plain["added"] = True
    if parameter.prior is not None:
        plain["prior"] = prior_to_yaml(parameter.prior)
    if parameter.when:
        plain["when"] = {other: _as_lists(values) for other, values in parameter.when.items()}
    return plain


def _as_lists(value: Any) -> Any:
    match value:
        case list() | tuple():
            return [_as_lists(item) for item in value]
        case dict():
            return {key: _as_lists(item) for key, item in value.items()}
        case _:
            return value
