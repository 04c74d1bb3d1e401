"""Parameters of a space.

Made by `python -m tests.docs.reference`: change the code that it is made from, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

from hpcsweep.api.parts import Listed, Parameter, listed

__all__ = ["Choice", "Constant", "Float", "Int", "Ordinal"]


@dataclass(frozen=True, repr=False)
class Float(Parameter):
    """A number between low and high.

    Attributes:
        low: The smallest value.
        high: The largest value.
        format: How a command gets a list: `json`, `comma`, `repeat` (`--layers 64 64`) or `append` (`--layers
            64 --layers 64`). See commands.md.
        added: The sweep met it on its way (`call: optuna`): earlier trials do without it. `launch` writes
            this.
        log: Sample uniformly on a logarithmic scale.
        step: Only low, low + step, low + 2 step, ... up to high. Default: every value in between.
        prior: Where the best value is believed to be: `{center: 3e-4, sigma: 0.5}`. sigma is in powers of ten
            with `log`, else in the unit of the parameter.
        when: Active only if other parameters have these values, such as `{optimizer: sgd}` or `{depth: [3,
            4]}`.
    """

    type: ClassVar[str] = "float"

    low: float
    high: float
    _: KW_ONLY
    format: Literal["json", "comma", "repeat", "append"] | None = None
    added: bool = False
    log: bool = False
    step: float | None = None
    prior: Mapping[str, Any] | None = None
    when: Mapping[str, Any] | None = None


@dataclass(frozen=True, repr=False)
class Int(Parameter):
    """An integer between low and high.

    Attributes:
        low: The smallest value.
        high: The largest value.
        format: How a command gets a list: `json`, `comma`, `repeat` (`--layers 64 64`) or `append` (`--layers
            64 --layers 64`). See commands.md.
        added: The sweep met it on its way (`call: optuna`): earlier trials do without it. `launch` writes
            this.
        log: Sample uniformly on a logarithmic scale.
        step: Only low, low + step, low + 2 step, ... up to high. Default: every value in between.
        prior: Where the best value is believed to be: `{center: 3e-4, sigma: 0.5}`. sigma is in powers of ten
            with `log`, else in the unit of the parameter.
        when: Active only if other parameters have these values, such as `{optimizer: sgd}` or `{depth: [3,
            4]}`.
    """

    type: ClassVar[str] = "int"

    low: int
    high: int
    _: KW_ONLY
    format: Literal["json", "comma", "repeat", "append"] | None = None
    added: bool = False
    log: bool = False
    step: int | None = None
    prior: Mapping[str, Any] | None = None
    when: Mapping[str, Any] | None = None


@dataclass(frozen=True, repr=False, init=False)
class Ordinal(Listed):
    """One of these values, whose order matters: `Ordinal(1, 2)`, or `Ordinal([1, 2])`.

    Args:
        values: The list of values.
        format: How a command gets a list: `json`, `comma`, `repeat` (`--layers 64 64`) or `append` (`--layers
            64 --layers 64`). See commands.md.
        added: The sweep met it on its way (`call: optuna`): earlier trials do without it. `launch` writes
            this.
        prior: How probable each value is: `{adam: 3, sgd: 1}` (others weigh 1) or all weights; `ordinal`:
            also `{center: 64, sigma: 1}`, sigma in places of the list.
        when: Active only if other parameters have these values, such as `{optimizer: sgd}` or `{depth: [3,
            4]}`.
    """

    type: ClassVar[str] = "ordinal"

    values: tuple[Any, ...]
    format: Literal["json", "comma", "repeat", "append"] | None = None
    added: bool = False
    prior: Mapping[str, Any] | Sequence[Any] | None = None
    when: Mapping[str, Any] | None = None

    def __init__(
        self,
        *values: object,
        format: Literal["json", "comma", "repeat", "append"] | None = None,
        added: bool = False,
        prior: Mapping[str, Any] | Sequence[Any] | None = None,
        when: Mapping[str, Any] | None = None,
    ) -> None:
        self._set(values=listed(values), format=format, added=added, prior=prior, when=when)


@dataclass(frozen=True, repr=False, init=False)
class Choice(Listed):
    """One of these values, in no order: `Choice(1, 2)`, or `Choice([1, 2])`.

    Args:
        values: The list of values.
        format: How a command gets a list: `json`, `comma`, `repeat` (`--layers 64 64`) or `append` (`--layers
            64 --layers 64`). See commands.md.
        added: The sweep met it on its way (`call: optuna`): earlier trials do without it. `launch` writes
            this.
        prior: How probable each value is: `{adam: 3, sgd: 1}` (others weigh 1) or all weights; `ordinal`:
            also `{center: 64, sigma: 1}`, sigma in places of the list.
        when: Active only if other parameters have these values, such as `{optimizer: sgd}` or `{depth: [3,
            4]}`.
    """

    type: ClassVar[str] = "choice"

    values: tuple[Any, ...]
    format: Literal["json", "comma", "repeat", "append"] | None = None
    added: bool = False
    prior: Mapping[str, Any] | Sequence[Any] | None = None
    when: Mapping[str, Any] | None = None

    def __init__(
        self,
        *values: object,
        format: Literal["json", "comma", "repeat", "append"] | None = None,
        added: bool = False,
        prior: Mapping[str, Any] | Sequence[Any] | None = None,
        when: Mapping[str, Any] | None = None,
    ) -> None:
        self._set(values=listed(values), format=format, added=added, prior=prior, when=when)


@dataclass(frozen=True, repr=False)
class Constant(Parameter):
    """Always the same value.

    Attributes:
        value: The value.
        format: How a command gets a list: `json`, `comma`, `repeat` (`--layers 64 64`) or `append` (`--layers
            64 --layers 64`). See commands.md.
        added: The sweep met it on its way (`call: optuna`): earlier trials do without it. `launch` writes
            this.
        when: Active only if other parameters have these values, such as `{optimizer: sgd}` or `{depth: [3,
            4]}`.
    """

    type: ClassVar[str] = "constant"

    value: Any
    _: KW_ONLY
    format: Literal["json", "comma", "repeat", "append"] | None = None
    added: bool = False
    when: Mapping[str, Any] | None = None
