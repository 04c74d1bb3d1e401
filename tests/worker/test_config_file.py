"""The config file of a run: a base with the parameters in it, as programs read it back."""

from __future__ import annotations

import configparser
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]

from hpcsweep.core.events import Outcome
from hpcsweep.errors import SpecError, TrainerError
from hpcsweep.spec.config_base import near_key, read_config_base
from hpcsweep.worker.config_file import render

if TYPE_CHECKING:
    from tests.worker.conftest import Bench


def _ini(text: str) -> dict[str, Any]:
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser}


READ: dict[str, Callable[[str], Any]] = {
    "base.yaml": yaml.safe_load,
    "base.json": json.loads,
    "base.toml": tomllib.loads,
    "base.ini": _ini,
}

HOSTILE: list[Any] = [
    "a b", " lead", "it's", 'say "hi"', "one\ntwo\r\n\ttabs", "-x", "--", "é ü 😀",
    "\x7f\x85\u2028\ufeff\x01", "yes", "null", "~", "1e-4", "0x10", "1_000", "12:30:45", "2001-12-14",
    "{a: 1}", "[1]", "# no", "a: b", "*x", "", "%(x)s", "${x}", "\\n", "'", '"""', "true", True, False, 0, -1,
    10**18, 1e-5, -1e22, 1e300, 0.1, ["a, b", "]", 1e-7, [True, "x"]], [], {"a b": {"c": "d"}, "e": [1]},
]  # fmt: skip

BASES = {
    "base.yaml": """\
# comment
defaults: &d {momentum: 0.9, nesterov: yes}
optimizer: {<<: *d, lr: 1e-4, "betas": [0.9, 0.999]}
when: 2001-12-14
at: 12:30:45
on: off
7: one
text: |
  two
  lines
"quoted.key": 010
nothing:
empty: {}
flat.lr: 3
tagged: !!float 1
interpolated: ${optimizer.lr}
""",
    "base.json": '{"optimizer": {"lr": 1e-4, "name": "sgd"}, "list": [{"a": null}], "é": {}, "flat.lr": 3}',
    "base.toml": """\
title = "a\\tb"
when = 2001-12-14T01:02:03Z
day = 2001-12-14
layer = [{size = 3, on = true}]
[optimizer]
lr = 1e-4
"odd key" = [1, {x = "y"}]
[empty]
[a.b.c]
d = inf
""",
    "base.ini": """\
[DEFAULT]
seed = 1
[optimizer]
Lr = 0.1
text = two
  lines
[optimizer.sgd]
momentum = 0.9
""",
}


@pytest.fixture
def base(tmp_path: Path) -> Callable[[str], Any]:
    def made(name: str, text: str | None = None) -> Any:
        (tmp_path / name).write_text(BASES[name] if text is None else text, encoding="utf-8")
        return read_config_base(tmp_path / name)

    return made


@pytest.mark.parametrize("name", BASES)
def test_what_no_parameter_changes_is_read_as_before(base: Callable[..., Any], name: str) -> None:
    before, after = READ[name](BASES[name]), READ[name](render(base(name), {}))
    assert (after, repr(after)) == (before, repr(before).replace("\n  lines", "\nlines"))


@pytest.mark.parametrize("name", ["base.yaml", "base.json", "base.toml"])
def test_hostile_values_keep_their_text_and_type(base: Callable[..., Any], name: str) -> None:
    values = {f"group.p{index}": value for index, value in enumerate(HOSTILE)}
    read = READ[name](render(base(name), values))["group"]
    assert {f"group.{key}": value for key, value in read.items()} == values
    assert [type(value) for value in read.values()] == [type(value) for value in values.values()]


def test_an_ini_file_holds_texts_of_one_line(base: Callable[..., Any]) -> None:
    texts = ["a b", "it's", "# no", "; no", "a = b", "[x]", "-x", "é 😀", "", 'say "hi"']
    values = {f"group.p{index}": value for index, value in enumerate(texts)}
    read = READ["base.ini"](render(base("base.ini"), values))["group"]
    assert [read[f"p{index}"] for index in range(len(texts))] == texts


@pytest.mark.parametrize(
    ("name", "values", "changed"),
    [
        ("base.yaml", {"optimizer.lr": 1e-5}, {"optimizer": {"momentum": 0.9, "nesterov": True, "lr": 1e-5}}),
        ("base.yaml", {"optimizer": "adam", "flat.lr": 4}, {"optimizer": "adam", "flat.lr": 4}),
        ("base.yaml", {"on": 2, "quoted.key": None}, {True: 2, "quoted.key": None}),
        ("base.yaml", {"model/depth": 3, "new.a.b": 1}, {"model/depth": 3, "new": {"a": {"b": 1}}}),
        ("base.json", {"optimizer.lr": None}, {"optimizer": {"lr": None, "name": "sgd"}}),
        ("base.json", {"flat.lr": 5}, {"flat.lr": 5}),
        ("base.toml", {"optimizer.lr": None, "a.b.c.e": True}, {"optimizer": {"odd key": [1, {"x": "y"}]}}),
        ("base.toml", {"title": 1}, {"title": 1}),
        ("base.ini", {"optimizer.lr": 0.5, "seed": 2}, {"DEFAULT": {"seed": "2"}}),
        (
            "base.ini",
            {"optimizer.sgd.momentum": 0.5, "optimizer.text": None},
            {"optimizer.sgd": {"momentum": "0.5", "seed": "1"}, "optimizer": {"lr": "0.1", "seed": "1"}},
        ),
        ("base.ini", {"data.path": "x"}, {"data": {"path": "x", "seed": "1"}}),
    ],
)
def test_parameters_are_put_at_their_keys(
    base: Callable[..., Any], name: str, values: dict[str, Any], changed: dict[str, Any]
) -> None:
    before = READ[name](BASES[name])
    after = READ[name](render(base(name), values))
    for key, value in changed.items():
        found = after[key]
        if isinstance(value, dict) and isinstance(before.get(key), dict) and "betas" in before[key]:
            value = {**value, "betas": before[key]["betas"]}
        assert found == value
    untouched = before.keys() - changed.keys() - {"optimizer", "a"}
    if name != "base.ini":  # there a default counts in all sections
        assert {key: after[key] for key in untouched} == {key: before[key] for key in untouched}


def test_a_key_through_a_value_is_refused(base: Callable[..., Any]) -> None:
    with pytest.raises(TrainerError, match=r"train.config: text.a leads through text, which is no mapping"):
        render(base("base.yaml"), {"text.a": 1})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("optimizer.lr", ""),
        ("optimiser.lr", "optimizer.lr"),
        ("lr", "optimizer.lr"),
        ("optimizer.momentun", "optimizer.momentum"),
        ("something.else", ""),
    ],
)
def test_a_near_miss_is_found(base: Callable[..., Any], name: str, hint: str) -> None:
    assert near_key(base("base.yaml"), name) == hint


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("base.txt", "", "must be a file whose name ends in .yaml, .yml, .json, .toml, .ini, .cfg, .conf"),
        ("base.yaml", "[1]", "not YAML: must be a mapping"),
        ("base.yaml", "a: [", "base.yaml:1: not YAML: expected the node content, but found '<stream end>'"),
        ("base.yaml", "a: &a {b: *a}", "not YAML: line 1: must not contain itself"),
        ("base.yaml", "a: !mine 1", "not YAML: line 1: tag !mine is not supported"),
        ("base.json", "{", "not JSON: Expecting property name enclosed in double quotes"),
        ("base.toml", "a = ", "not TOML: Invalid value"),
        ("base.ini", "a = 1", "not INI: File contains no section headers."),
    ],
)
def test_a_base_that_cannot_be_read_says_why(
    base: Callable[..., Any], name: str, text: str, problem: str
) -> None:
    with pytest.raises(SpecError) as error:
        base(name, text)
    assert problem in str(error.value)
    assert str(error.value).startswith("train.config: ")


def test_a_program_reads_its_config_file_and_nothing_is_left(bench: Bench, base: Callable[..., Any]) -> None:
    script = """
        import json, sys
        config = json.load(open(sys.argv[1]))
        assert config == {"optimizer": {"lr": 0.25, "name": "sgd"}, "text": "-x\\n '"}, config
        print("val_error=", config["optimizer"]["lr"], sys.argv[2:])
    """
    bench.code(script, "show.py")
    bench.plan_command(
        "{python} show.py {config_file} --w {w}",
        bench.run(config={"optimizer.lr": 0.25, "w": 3, "text": "-x\n '"}),
        config=base("base.json", '{"optimizer": {"lr": 1, "name": "sgd"}}'),
        parameters=("optimizer.lr", "w", "text", "gone"),
        metrics=(r"val_error= (?P<val_error>\S+)",),
    )
    result = bench.work()
    assert (result.outcome, result.value) == (Outcome.COMPLETED, 0.25), bench.log()
    assert f"[hpcsweep] command: {sys.executable} show.py " in bench.log()
    assert "/.config-0-0-0/base.json' --w 3\n" in bench.log()
    assert [path.name for path in bench.trial().checkpoints.iterdir()] == []
