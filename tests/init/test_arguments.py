"""What a program takes, found in its text: each kind of parser, and the ranges and roles of names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsweep.init.found import Argument
from hpcsweep.init.proposal import propose
from hpcsweep.init.ranges import domain_of, guess
from hpcsweep.init.reading import read
from hpcsweep.init.roles import role_of


def interface(folder: Path, text: str, *, name: str = "train.py", **others: str) -> Any:
    """The first interface of a script; other modules by name."""
    (folder / name).write_text(text)
    for module, body in others.items():
        (folder / f"{module}.py").write_text(body)
    return read(folder / name).interfaces[0]


ARGPARSE = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument({})\n"


@pytest.mark.parametrize(
    ("declared", "argument"),
    [
        ("'--lr', type=float, default=1e-3, help='rate'", Argument("lr", "--lr", "float", 1e-3, help="rate")),
        ("'-b', '--batch-size', default=64", Argument("batch-size", "--batch-size", "int", 64)),
        ("'--opt', choices=['sgd', 'adam']", Argument("opt", "--opt", choices=("sgd", "adam"))),
        ("'--depth', type=int, choices=range(2, 5)", Argument("depth", "--depth", "int", choices=(2, 3, 4))),
        (
            "'--amsgrad', action='store_true'",
            Argument("amsgrad", "--amsgrad", "bool", False, switch="present"),
        ),
        (
            "'--bias', action=argparse.BooleanOptionalAction, default=True",
            Argument("bias", "--bias", "bool", True, switch="no-"),
        ),
        (
            "'--tied', type=str2bool, default=False",
            Argument("tied", "--tied", "bool", False, truth=("true", "false")),
        ),
        ("'--tied', type=bool, default=False", Argument("tied", "--tied", "bool", False, truth=("1", ""))),
        (
            "'--hidden', type=int, nargs='+', default=[64, 64]",
            Argument("hidden", "--hidden", "list", (64, 64)),
        ),
        ("'--wd', type=float, default=10 ** -4 / 2", Argument("wd", "--wd", "float", 5e-5)),
        ("'--lr', type=positive_float, required=True", Argument("lr", "--lr", "float", required=True)),
        ("'data'", Argument("data", required=True)),
        ("'data', nargs='?', default='d'", Argument("data", default="d")),
        ("'-C', type=float, default=1.0", Argument("C", "-C", "float", 1.0)),
    ],
)
def test_argparse(tmp_path: Path, declared: str, argument: Argument) -> None:
    assert interface(tmp_path, ARGPARSE.format(declared)).arguments == (argument,)


def test_arguments_are_found_under_other_names_in_other_modules_and_in_subcommands(tmp_path: Path) -> None:
    options = (
        "from argparse import ArgumentParser as P\n\ndef add(p):\n    p.add_argument('--lr', type=float)\n"
    )
    found = interface(tmp_path, "import argparse\nfrom options import add\n", options=options)
    assert [argument.name for argument in found.arguments] == ["lr"]
    text = (
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--verbose')\n"
        "subs = parser.add_subparsers()\none = subs.add_parser('evaluate')\none.add_argument('--model')\n"
        "two = subs.add_parser('train')\ntwo.add_argument('--lr', type=float)\ntwo.set_defaults(lr=0.5)\n"
    )
    found = interface(tmp_path, text)
    assert (found.prefix, found.arguments) == ("train", (Argument("lr", "--lr", "float", 0.5),))


CLICK = """\
import click
@click.command()
@click.option('--lr', default=0.1)
@click.option('--quick', is_flag=True)
def main(lr, quick): ...
"""
ABSL = """\
from absl import flags
flags.DEFINE_float('lr', 0.1, 'rate')
flags.DEFINE_enum('opt', 'sgd', ['sgd'], '')
"""
TYRO = """\
import tyro
from dataclasses import dataclass
@dataclass
class Config:
    batch_size: int = 8
    betas: tuple[float, float] = (0.9, 0.99)
config = tyro.cli(Config)
"""
TRANSFORMERS = """\
from transformers import HfArgumentParser
from dataclasses import dataclass, field
@dataclass
class Base:
    lr: float = 0.1
@dataclass
class Config(Base):
    sizes: list[int] = field(default_factory=lambda: [1])
    opt: str = field(default='sgd', metadata={'help': ''})
parser = HfArgumentParser(Config)
"""
TYPER = """\
import typer
def main(data: str, batch_size: int = 8, bias: bool = True): ...
typer.run(main)
"""
GLOBALS = """\
lr = 1e-3
bias = False
_hidden = 1
exec(open('configurator.py').read())
later = 3
"""
ARGV = "import sys\nlr, n = sys.argv[1:3]\nlr = float(lr)\nn = int(n)\n"
DEFAULT = "from sys import argv\nlr = float(argv[1]) if len(argv) > 1 else 0.1\n"
ENVIRONMENT = "import os\nlr = float(os.environ['LR'])\nn = os.getenv('N', 3)\n"
FIRE = "import fire\ndef main(lr=0.1, *, steps: int = 3): ...\nfire.Fire(main)\n"
OTHERS = [
    ("sys.argv", "positional", ARGV, [("lr", "float", None), ("n", "int", None)]),
    ("sys.argv", "positional", DEFAULT, [("lr", "float", 0.1)]),
    ("environment variables", "environment", ENVIRONMENT, [("lr", "float", None), ("n", "int", 3)]),
    ("globals", "--name=value", GLOBALS, [("lr", "float", 1e-3), ("bias", "bool", False)]),
    ("fire", "--name=value", FIRE, [("lr", "float", 0.1), ("steps", "int", 3)]),
    (
        "typer",
        "--name value",
        TYPER,
        [("data", "text", None), ("batch-size", "int", 8), ("bias", "bool", True)],
    ),
    ("click", "--name value", CLICK, [("lr", "float", 0.1), ("quick", "bool", False)]),
    ("absl flags", "--name=value", ABSL, [("lr", "float", 0.1), ("opt", "text", "sgd")]),
    ("dataclasses (tyro)", "--name value", TYRO, [("batch-size", "int", 8), ("betas", "list", (0.9, 0.99))]),
    (
        "dataclasses (transformers)",
        "--name value",
        TRANSFORMERS,
        [("lr", "float", 0.1), ("sizes", "list", (1,)), ("opt", "text", "sgd")],
    ),
]


@pytest.mark.parametrize(("kind", "style", "text", "arguments"), OTHERS, ids=[each[0] for each in OTHERS])
def test_other_parsers(tmp_path: Path, kind: str, style: str, text: str, arguments: list[Any]) -> None:
    found = interface(tmp_path, text)
    assert (found.kind, found.style) == (kind, style)
    assert [(each.name, each.kind, each.default) for each in found.arguments] == arguments


FOREIGN = [
    (
        "train.sh",
        "while getopts l:e: o; do\ncase $o in\nl) lr=$OPTARG ;;\ne) epochs=$OPTARG ;;\nesac\ndone\n",
        "--name value",
        [("lr", "-l"), ("epochs", "-e")],
    ),
    ("train.sh", "lr=$1\nepochs=${2:-9}\n", "positional", [("lr", ""), ("epochs", "")]),
    ("train.sh", 'python train.py "${LR:-0.1}"\n', "environment", [("lr", "LR")]),
    (
        "fit.R",
        "args <- commandArgs(trailingOnly = TRUE)\nlr <- as.numeric(args[1])\nn <- as.integer(args[2])\n",
        "positional",
        [("lr", ""), ("n", "")],
    ),
    ("fit.R", 'p$add_argument("--lr", type="double", default=0.1)\n', "--name=value", [("lr", "--lr")]),
    ("fit.pl", "my $lr = $ARGV[0];\nmy $n = $ARGV[1];\n", "positional", [("lr", ""), ("n", "")]),
    ("fit.lua", "local lr = tonumber(arg[1])\n", "positional", [("lr", "")]),
    ("fit.jl", "lr = parse(Float64, ARGS[1])\n", "positional", [("lr", "")]),
    ("fit.js", "const lr = parseFloat(process.argv[2])\n", "positional", [("lr", "")]),
]


@pytest.mark.parametrize(("name", "text", "style", "arguments"), FOREIGN)
def test_other_languages(tmp_path: Path, name: str, text: str, style: str, arguments: list[Any]) -> None:
    found = interface(tmp_path, text, name=name)
    assert found.style == style
    assert [(each.name, each.option) for each in found.arguments] == arguments


@pytest.mark.parametrize(
    ("argument", "domain"),
    [
        (Argument("lr", "--lr", "float", 0.1), {"type": "float", "low": 1e-3, "high": 1.0, "log": True}),
        (Argument("learning-rate", "", "float"), {"type": "float", "low": 1e-5, "high": 0.1, "log": True}),
        (
            Argument("optimizer.lr", "", "float", 20.0),
            {"type": "float", "low": 0.2, "high": 40.0, "log": True},
        ),
        (Argument("dropout", "", "float", 0.7), {"type": "float", "low": 0.0, "high": 0.7}),
        (
            Argument("weight_decay", "", "float", 0.0),
            {"type": "float", "low": 1e-6, "high": 0.1, "log": True},
        ),
        (Argument("momentum", "", "float", 0.9), {"type": "float", "low": 0.5, "high": 0.99}),
        (Argument("batch_size", "", "int", 20), {"type": "ordinal", "values": [5, 10, 20, 40, 80]}),
        (Argument("n_embd", "", "int", 384), {"type": "ordinal", "values": [96, 192, 384, 768]}),
        (Argument("numLayers", "", "int", 3), {"type": "int", "low": 1, "high": 6}),
        (Argument("max_depth", "", "int"), {"type": "int", "low": 2, "high": 16}),
        (Argument("n_estimators", "", "int", 100), {"type": "int", "low": 25, "high": 400, "log": True}),
        (Argument("C", "-C", "float", 1.0), {"type": "float", "low": 0.01, "high": 100.0, "log": True}),
        (Argument("gamma", "", "float", 0.99), {"type": "float", "low": 0.9, "high": 0.999}),
        (Argument("beta", "", "float", 0.9), {"type": "float", "low": 0.09, "high": 1.0}),
        (Argument("gamma", "", "float"), {"type": "float", "low": 1e-4, "high": 10.0, "log": True}),
        (Argument("warmup_steps", "", "int", 500), {"type": "int", "low": 0, "high": 1000}),
        (Argument("optimizer", choices=("sgd", "adam")), ["sgd", "adam"]),
        (Argument("tied", "--tied", "bool", False, switch="present"), [True, False]),
        (Argument("tied", "--tied", "bool", False, truth=("1", "")), None),
        (Argument("min_lr", "", "float", 1e-5), None),
        (Argument("test-batch-size", "", "int", 1000), None),
        (Argument("foo", "", "float", 0.1), None),
        (Argument("optimizer", default="sgd"), None),
    ],
)
def test_known_names_have_ranges_around_their_defaults(argument: Argument, domain: Any) -> None:
    assert domain_of(argument) == domain


def test_unknown_numbers_have_a_range_as_a_comment() -> None:
    assert guess(Argument("foo", "", "float", 0.1)) == {
        "type": "float",
        "low": 0.01,
        "high": 1.0,
        "log": True,
    }
    assert guess(Argument("bptt", "", "int", 8)) == {"type": "int", "low": 2, "high": 32}
    assert guess(Argument("name", "", "text", "x")) is None


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (
            "resource",
            ["epochs", "num-epochs", "max_iters", "trainer.max_epochs", "n_steps", "num_train_epochs"],
        ),
        ("seed", ["seed", "random-state", "manualSeed"]),
        ("output", ["out_dir", "output-dir", "logdir", "log_dir", "results"]),
        ("save", ["save", "checkpoint-dir", "save_path"]),
        ("resume", ["resume", "init_from", "load_checkpoint"]),
        ("device", ["no-cuda", "device", "num_workers", "local_rank", "compile", "n_jobs"]),
        ("data", ["data", "data_dir", "dataset", "train_file"]),
        ("logging", ["log-interval", "eval_interval", "wandb_log", "verbose", "dry-run", "name"]),
        ("", ["lr", "batch_size", "hidden_dim", "C", "warmup_steps", "model"]),
    ],
)
def test_what_is_no_hyperparameter_is_known_by_its_name(role: str, names: list[str]) -> None:
    kinds = {"resource": 3, "seed": 0}
    found = {name: role_of(Argument(name, "", "int" if role in kinds else "text")) for name in names}
    assert found == dict.fromkeys(names, role)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("lr=${1:-0.1}\nname=${2:-run}\n", "sh t.sh {lr} run"),
        ("lr=$1\nname=${2:-${HOME}}\n", "sh t.sh {lr} FILL_IN"),
    ],
)
def test_positions_that_are_not_searched_have_their_defaults(tmp_path: Path, text: str, command: str) -> None:
    (tmp_path / "t.sh").write_text(text)
    assert propose(read(tmp_path / "t.sh"), program="sh t.sh").command.command == command


def test_braces_in_a_default_are_no_placeholder(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(
        "import sys\nlr = float(sys.argv[1])\nname = sys.argv[2] if len(sys.argv) > 2 else 'a {b}'\n"
    )
    proposal = propose(read(tmp_path / "t.py"), program="python t.py")
    assert proposal.command.command == "python t.py {lr} 'a {{b}}'"
