"""What a command template gives a program, argument by argument."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import Any

import pytest

from hpcsweep.errors import TrainerError
from hpcsweep.worker.template import Style, as_text, parse_template

VALUES: dict[str, Any] = {
    "lr": 1e-5,
    "name": "two words",
    "flag": True,
    "off": False,
    "layers": [1, 2],
    "none": None,
    "absent": None,
    "resume_from": None,
    "checkpoint_dir": "/c d",
}
CONFIG = {name: VALUES[name] for name in ("lr", "name", "flag", "off", "layers", "none")}
HOSTILE = ["a b", "it's", 'say "hi"', "$HOME `id`", "one\ntwo", "*", "{lr}", "\\", "", "-x", "é", "; exit 3"]


def arguments(template: str, *, config: dict[str, Any] | None = None, **style: Any) -> list[str]:
    found = CONFIG if config is None else config
    values = {**VALUES, **found}
    parsed = parse_template(template, shell=False, parameters=[*values, "name value"])
    return parsed.arguments(values, found, Style(**style))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("train --lr {lr}", ["train", "--lr", "1e-05"]),
        ("train 'a b' \"{name}\" x{lr}y", ["train", "a b", "two words", "x1e-05y"]),
        ("train {{lr}} {{{lr}}}", ["train", "{lr}", "{1e-05}"]),
        ("train --flag={flag} {layers} [{absent}]", ["train", "--flag=true", "[1,2]", "[]"]),
        ("train {absent}", ["train", ""]),
        ("train ''", ["train", ""]),
        # fragments
        ("train {resume_from?--resume {resume_from}} end", ["train", "end"]),
        ("train {lr?--lr {lr} -v 'a b'} end", ["train", "--lr", "1e-05", "-v", "a b", "end"]),
        ("train {name?--name={name}}", ["train", "--name=two words"]),
        ("train {name?--name='{name} or so'}", ["train", "--name=two words or so"]),
        ("train x{lr?,lr={lr}}{none?,none={none}}", ["train", "x,lr=1e-05"]),
        ("train {lr?{none?{none}}{name?{name}}}", ["train", "two words"]),
        ("train {lr?{{{lr}}}}", ["train", "{1e-05}"]),
        ("train {flag?--flag} {off?--off}", ["train", "--flag"]),
        ("train {flag?--flag {flag}} {off?--off {off}}", ["train", "--flag", "true", "--off", "false"]),
    ],
)
def test_values_are_put_into_arguments_after_they_were_split(template: str, expected: list[str]) -> None:
    assert arguments(template) == expected


#: Each style of arguments with what it makes of every kind of value.
PATTERN = (
    "expected a pattern that holds name and value once each, in one argument or in two with a space between "
    "them, such as {args:--name=value} or {args:-name value}"
)
LIST = {"layers": [64, 128]}
STYLES: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("{args}", {"lr": 0.1, "a_b": "x y"}, {}, ["--lr", "0.1", "--a_b", "x y"]),
    ("{args}", {"a_b": 1}, {"dashes": True}, ["--a-b", "1"]),
    ("{args}", {"shift": -0.5, "text": "-x"}, {}, ["--shift=-0.5", "--text=-x"]),
    ("{args}", {"none": None, "optimizer.lr": 1}, {}, ["--optimizer.lr", "1"]),
    ("{args}", {"amp": True, "ema": False}, {"flags": "present"}, ["--amp"]),
    ("{args}", {"amp": True, "ema": False}, {"flags": "no-"}, ["--amp", "--no-ema"]),
    ("{args}", {"amp": True, "ema": False}, {"flags": "1/0"}, ["--amp", "1", "--ema", "0"]),
    ("{args}", {"use_amp": False}, {"flags": "no-", "dashes": True}, ["--no-use-amp"]),
    ("{args}", LIST, {}, ["--layers", "[64,128]"]),
    ("{args}", LIST, {"formats": {"layers": "repeat"}}, ["--layers", "64", "128"]),
    ("{args}", {"b": [-1, 2, "-x"]}, {"formats": {"b": "repeat"}}, ["--b", "-1", "2", "-x"]),
    ("{args}", {"b": [-1, 2]}, {"formats": {"b": "append"}}, ["--b=-1", "--b", "2"]),
    ("{args:-name value}", {"b": [-1, 2]}, {"formats": {"b": "repeat"}}, ["-b", "-1", "2"]),
    ("{args}", {"b": []}, {"formats": {"b": "repeat"}}, ["--b"]),
    ("{args}", LIST, {"formats": {"layers": "append"}}, ["--layers", "64", "--layers", "128"]),
    ("{args}", LIST, {"formats": {"layers": "comma"}}, ["--layers", "64,128"]),
    ("{args}", {"aug": {"flip": True}}, {}, ["--aug", '{"flip":true}']),
    ("{args:--name=value}", {"lr": -1e-5, "none": None}, {}, ["--lr=-1e-05"]),
    ("{args:--name=value}", {"compile": True, "name_value": 1}, {}, ["--compile=True", "--name_value=1"]),
    ("{args:--name=value}", {"compile": True}, {"flags": "present"}, ["--compile"]),
    ("{args:--name=value}", LIST, {"formats": {"layers": "repeat"}}, ["--layers=64", "--layers=128"]),
    ("{args:--name=value}", LIST, {}, ["--layers=[64,128]"]),
    ("{args:name=value}", {"model/depth": 3, "amp": False}, {}, ["model/depth=3", "amp=false"]),
    (
        "{args:name=value}",
        {"n": None, "t": "a,b"},
        {"formats": {"n": "json", "t": "json"}},
        ["n=null", 't="a,b"'],
    ),
    ("{args:+name=value}", {"optimizer.lr": 0.1}, {}, ["+optimizer.lr=0.1"]),
    ("{args:-name value}", {"lr": -1, "amp": True}, {"flags": "present"}, ["-lr", "-1", "-amp"]),
    ("{args:-name=value}", {"amp": True}, {}, ["-amp=true"]),
    ("{args:-D name=value}", {"lr": 1}, {}, ["-D", "lr=1"]),
    ("{layers}", LIST, {"formats": {"layers": "repeat"}}, ["64", "128"]),
    ("x={layers}", LIST, {"formats": {"layers": "comma"}}, ["x=64,128"]),
    ("--amp {flag}", {"flag": True}, {"flags": "yes/no"}, ["--amp", "yes"]),
    ("--lr {lr} {args}", {"lr": 0.1, "wd": 0.2}, {}, ["--lr", "0.1", "--wd", "0.2"]),
    ("{wd?--wd {wd}} {args}", {"lr": 0.1, "wd": None}, {}, ["--lr", "0.1"]),
]


@pytest.mark.parametrize(("template", "config", "style", "expected"), STYLES)
def test_each_style_writes_each_kind_of_value(
    template: str, config: dict[str, Any], style: dict[str, Any], expected: list[str]
) -> None:
    assert arguments(template, config=config, **style) == expected


@pytest.mark.parametrize("pattern", ["--name=value", "name=value", "--name value", "-name value"])
@pytest.mark.parametrize("shell", [False, True])
def test_hostile_values_are_arguments_of_their_own(pattern: str, shell: bool) -> None:
    config = {f"p{index}": value for index, value in enumerate(HOSTILE)}
    parsed = parse_template(f"show {{args:{pattern}}}", shell=shell, parameters=config)
    program = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]
    if shell:
        line = parsed.line(config, config, Style()).replace("show", shlex.join(program), 1)
        argv = ["bash", "-c", line]
    else:
        argv = [*program, *parsed.arguments(config, config, Style())[1:]]
    seen = json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout)
    found, words = {}, iter(seen)
    for word in words:
        name, equals, value = word.partition("=")
        found[name.lstrip("-")] = value if equals else next(words)
    assert found == config


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (0, "0"),
        (0.1, "0.1"),
        (1e-7, "1e-07"),
        ("x y", "x y"),
        ({"a": 1}, '{"a":1}'),
    ],
)
def test_values_are_rendered_as_text(value: Any, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("train {lrr}", "unknown placeholder {lrr}; did you mean {lr}?"),
        ("train {zzz}", "unknown placeholder {zzz}; write {{ and }} for plain braces"),
        ("train {zzz?x}", "unknown placeholder {zzz}; write {{ and }} for plain braces"),
        ("train {", "a single '{' in 'train {'; write '{{' for a plain one"),
        ("train }", "a single '}' in 'train }'; write '}}' for a plain one"),
        ("train {lr?--lr {lr}", "{lr?...} is not closed in 'train {lr?--lr {lr}'"),
        ("train 'x", "cannot be split into arguments: No closing quotation"),
        ("train x{args}", "{args} must be an argument of its own, with spaces around it"),
        (
            "train x{lr?a b}",
            "{lr?...} stands within an argument, so it must hold one argument only",
        ),
        (
            "train {args:--name}",
            "{args:--name}: " + PATTERN,
        ),
        (" ", "is empty"),
    ],
)
def test_a_wrong_template_says_what_is_wrong_with_it(template: str, message: str) -> None:
    with pytest.raises(TrainerError) as error:
        parse_template(template, shell=False, parameters=["lr"])
    assert str(error.value) == f"train.command: {message}"


def test_every_placeholder_is_known() -> None:
    template = "{python} {lr} {trial} {rung} {resource} {start} {resume_from} {checkpoint_dir} {seed} {args}"
    parse_template(template, shell=False, parameters=["lr"])
    parse_template(template + " | tee 'x", shell=True, parameters=["lr"])


def test_a_parameter_called_args_is_a_parameter() -> None:
    parsed = parse_template("train {args}", shell=False, parameters=["args", "lr"])
    assert parsed.arguments({"args": 3}, {"args": 3, "lr": 1}, Style()) == ["train", "3"]


def test_values_in_a_shell_line_are_quoted() -> None:
    values = {"a": "it's; $x", "b": "plain", "none": None, "layers": [1, 2]}
    parsed = parse_template(
        "train {a} {layers} {none?--none {none}} {b?--b {b} |} > {b}", shell=True, parameters=values
    )
    line = parsed.line(values, values, Style(formats={"layers": "repeat"}))
    assert line == "train 'it'\"'\"'s; $x' 1 2  --b plain | > plain"
