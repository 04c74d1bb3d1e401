"""Commands are checked against the parameters before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsweep.core.domains import Choice, Float
from hpcsweep.core.space import Parameter
from hpcsweep.errors import SpecError
from hpcsweep.spec import load_spec
from hpcsweep.spec.command_checks import absent_problems

SPEC = """
train: {{command: "{command}"{train}, metrics: 'error=(?P<error>.*)'}}
objective: {{metric: error}}
space: {space}
"""
BOOLEAN = "{lr: 1, amp: [true, false]}"
LISTS = "{layers: {type: choice, values: [[64], [64, 128]]}}"


def load(tmp_path: Path, command: str, space: str, train: str = "", *overrides: str) -> Any:
    path = tmp_path / "s.yaml"
    path.write_text(SPEC.format(command=command, train=f", {train}" if train else "", space=space))
    return load_spec(path, overrides)


def problems(tmp_path: Path, command: str, space: str, train: str = "") -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, command, space, train)
    return [line.removeprefix(f"{tmp_path / 's.yaml'}: ") for line in caught.value.problems]


def formatted(form: str, values: str = "[[64], [64, 128]]") -> str:
    return f"{{layers: {{type: choice, values: {values}, format: {form}}}}}"


@pytest.mark.parametrize(
    ("command", "space", "train", "told"),
    [
        (
            "x {args}",
            BOOLEAN,
            "",
            (
                "train.flags: missing; say how {args} writes the boolean 'amp': present (--amp, or "
                "nothing if false), no- (--amp or --no-amp), or texts such as true/false"
            ),
        ),
        (
            "x {args:-name value}",
            BOOLEAN,
            "",
            (
                "train.flags: missing; say how {args:-name value} writes the boolean 'amp': present "
                "(--amp, or nothing if false), no- (--amp or --no-amp), or texts such as true/false"
            ),
        ),
        (
            "x {args:name=value}",
            BOOLEAN,
            "flags: present",
            (
                "train.flags: must be the texts for true and false, such as true/false, with "
                "{args:name=value}, got present"
            ),
        ),
        (
            "x {args}",
            BOOLEAN,
            "flags: yes",
            (
                "train.flags: must be present, no- or the texts for true and false such as true/false or "
                "1/0, got 'yes'"
            ),
        ),
        ("x {amp}", BOOLEAN, "flags: no-", "train.flags: no- is of no use without {args} in train.command"),
        (
            "x {amp}",
            BOOLEAN,
            "dashes: true",
            "train.dashes: is of no use without {args} in train.command",
        ),
        (
            "x {args}",
            LISTS,
            "",
            (
                "space.layers.format: missing; say how {args} writes the list [64, 128]: repeat (--layers 64 "
                "128), append (--layers once for each), comma (--layers 64,128) or json"
            ),
        ),
        (
            "x n={layers}",
            formatted("repeat"),
            "",
            "space.layers.format: must not be repeat, as {layers} stands within an argument",
        ),
        (
            "x {layers}",
            formatted("append"),
            "",
            "space.layers.format: append is only for {args}, and the command names {layers}: use repeat",
        ),
        (
            "x {args}",
            formatted("comma", "[['a,b']]"),
            "",
            "space.layers.format: must be json, as a comma is within 'a,b', got comma",
        ),
        (
            "x {args}",
            formatted("comma", "[64]"),
            "",
            "space.layers.format: must be json, as no value is a list, got comma",
        ),
        (
            "x {args}",
            formatted("repeat", "[['-O2', '-g']]"),
            "",
            "space.layers.format: must be append, comma or json, as '-O2' looks like an option, got repeat",
        ),
        (
            "x {args}",
            formatted("csv"),
            "",
            "space.layers.format: must be 'json', 'comma', 'repeat' or 'append', got 'csv'",
        ),
        (
            "x {config_file}",
            BOOLEAN,
            "",
            "train.command: {config_file} needs train.config, the file that the parameters are merged with",
        ),
        (
            "x {amp}",
            BOOLEAN,
            "config: a.json",
            "train.command: must have {config_file}, as train.config is given",
        ),
        (
            "x {config_file} {args:--name=value}",
            BOOLEAN,
            "config: a.json",
            "train.command: must not have {args} with train.config, which gives all parameters",
        ),
        (
            "x {config_file}",
            "{o: [a, b], o.lr: 1}",
            "config: a.json",
            "space.o.lr: must not be within 'o', which is a value of its own",
        ),
        (
            "x {config_file}",
            "{a.t: ['50%']}",
            "config: a.ini",
            (
                "space.a.t: must be one line without % and blanks at its ends, to stand in an INI file, "
                "got '50%'"
            ),
        ),
        (
            "x {args}",
            "{a.b: 1, a/b: 2}",
            "",
            (
                "space.a/b: must differ from 'a.b' in more than case, dots and slashes: both are the "
                "variable HPCSWEEP_PARAM_A_B"
            ),
        ),
    ],
)
def test_what_no_program_could_read_is_refused(
    tmp_path: Path, command: str, space: str, train: str, told: str
) -> None:
    assert problems(tmp_path, command, space, train) == [told]


@pytest.mark.parametrize(
    ("command", "space", "train"),
    [
        ("x {args}", BOOLEAN, "flags: present"),
        ("x {args}", BOOLEAN, "flags: no-, dashes: true"),
        ("x {args:--name=value}", BOOLEAN, ""),
        ("x {args:name=value}", BOOLEAN, ""),
        ("x {args} {amp}", BOOLEAN, ""),
        ("x {args:name=value}", LISTS, ""),
        ("x {args}", formatted("append"), ""),
        ("x {layers}", formatted("repeat"), ""),
        ("x {args}", formatted("repeat", "[[-1, 2]]"), ""),
        ("x {config_file} {o}", "{o: [a, b], o.lr: 1}", "config: a.json"),
    ],
)
def test_what_a_program_can_read_is_accepted(tmp_path: Path, command: str, space: str, train: str) -> None:
    load(tmp_path, command, space, train)


@pytest.mark.parametrize(
    ("command", "space", "name", "why"),
    [
        ("x --a {a}", "{a: [null, 1]}", "a", "may be null"),
        (
            "x {o?--m {m}} {o}",
            "{o: [sgd, adam], m: {type: constant, value: 1, when: {o: sgd}}}",
            "m",
            "is active only when o has the right value",
        ),
    ],
)
def test_an_argument_that_would_be_empty_is_found(
    tmp_path: Path, command: str, space: str, name: str, why: str
) -> None:
    (problem,) = absent_problems(load(tmp_path, command, space))
    assert problem == (
        "train.command",
        (
            f"{{{name}}} {why}, and would then be empty: write {{{name}?--{name} {{{name}}}}}, which is "
            "left out then, or {args}, which gives every parameter that has a value"
        ),
    )


@pytest.mark.parametrize(
    ("command", "space"),
    [
        ("x {a?--a {a}}", "{a: [null, 1]}"),
        ("x {args}", "{a: [null, 1]}"),
        ("x {a}", "{a: {type: choice, values: [null, 1], format: json}}"),
        ("x {resume_from} {a}", "{a: [1]}"),
    ],
)
def test_an_argument_that_is_never_empty_is_none_of_them(tmp_path: Path, command: str, space: str) -> None:
    assert list(absent_problems(load(tmp_path, command, space))) == []


def test_names_with_dots_are_set_on_the_command_line(tmp_path: Path) -> None:
    space = "{optimizer.lr: {type: float, low: 1, high: 2}, optimizer: [sgd, adam]}"
    spec = load(
        tmp_path,
        "x {args}",
        space,
        "",
        "space.optimizer.lr.high=3",
        "space.optimizer=sgd",
        "space.model.beta=[1, 2]",
        "space.model/depth.type=constant",
        "space.model/depth.value=4",
        "budget.trials=2",
    )
    assert spec.space.parameters[:1] == (Parameter("optimizer.lr", Float(1, 3)),)
    assert spec.space.parameters[2] == Parameter("model.beta", Choice((1, 2)))
    assert spec.space.names == ("optimizer.lr", "optimizer", "model.beta", "model/depth")


def test_a_format_is_kept_and_is_no_part_of_the_search(tmp_path: Path) -> None:
    spec = load(tmp_path, "x {layers}", formatted("repeat"))
    path = tmp_path / "again.yaml"
    path.write_text(spec.yaml)
    assert load_spec(path) == spec
    assert spec.program().formats == {"layers": "repeat"}
    assert spec.identity() == load(tmp_path, "x {layers}", LISTS).identity()
