"""Metrics found in what a program prints."""

from __future__ import annotations

import math

import pytest

from hpcsweep.worker.metrics.numbers import parse_number, parse_step
from hpcsweep.worker.metrics.printed import StdoutMetrics
from hpcsweep.worker.metrics.reports import Reports


def read_metrics(
    *patterns: str, text: bytes, start: int = 0, piece: int = 1000
) -> list[tuple[int, dict[str, float]]]:
    found: list[tuple[int, dict[str, float]]] = []
    reports = Reports(lambda step, metrics: found.append((step, dict(metrics))), start=start)
    reader = StdoutMetrics(patterns, reports)
    for begin in range(0, len(text), piece):
        reader.feed(text[begin : begin + piece])
    reader.finish()
    return found


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_matches_in_printed_lines_are_reports_however_the_output_is_cut(piece: int) -> None:
    text = b"hello\nepoch=1 err=0.5,\repoch=2 err=nan\r\nepoch=x err=3\nepoch=3 err=low\nepoch=4 err=0.1"
    found = read_metrics(r"epoch=(?P<step>\S+) err=(?P<err>\S+)", text=text, piece=piece)
    assert [step for step, _ in found] == [1, 2, 4]
    assert found[0] == (1, {"err": 0.5})
    assert found[2] == (4, {"err": 0.1})


def test_without_a_step_group_matches_are_numbered_from_the_checkpoint_on() -> None:
    text = b"loss 3\nacc 0.1\nloss 2\nloss 1\nacc 0.2\n"
    found = read_metrics(r"loss (?P<loss>\S+)", r"acc (?P<acc>\S+)", text=text, start=9)
    assert found == [
        (10, {"loss": 3}),
        (10, {"acc": 0.1}),
        (11, {"loss": 2}),
        (12, {"loss": 1}),
        (11, {"acc": 0.2}),
    ]


READ = {
    "0.43": 0.43,
    "  .43, ": 0.43,
    "43.": 43.0,
    "0.43.": 0.43,
    "1e-4": 1e-4,
    "0.43%": 0.43,
    "(0.43)": 0.43,
    "[0.43]": 0.43,
    "'0.43',": 0.43,
    '"0.43"}': 0.43,
    "\N{MINUS SIGN}0.43": -0.43,
    "\x1b[32m0.43\x1b[0m": 0.43,
    "-inf": -math.inf,
    "tensor(0.43)": 0.43,
    "tensor(0.43,": 0.43,
    "tensor(0.4300, device='cuda:0', grad_fn=<NllLossBackward0>)": 0.43,
    "tensor(-1.5e-3, dtype=torch.float64)": -1.5e-3,
    "tensor([0.43])": 0.43,
    "tensor([[0.43]], device='cuda:0')": 0.43,
    "np.float64(0.43)": 0.43,
    "np.float32(nan)": math.nan,
    "array(0.43)": 0.43,
    "array(0.43, dtype=float32)": 0.43,
    "Array(0.43, dtype=float32, weak_type=True)": 0.43,
    "tf.Tensor(0.43, shape=(), dtype=float32)": 0.43,
    "<tf.Tensor: shape=(), dtype=float32, numpy=0.43>": 0.43,
    "1,234.5": 1234.5,
    "-1,234,567": -1234567.0,
}
#: No number, or one that could be another one.
NOT_READ = (
    "",
    "n/a",
    "low",
    "0,43",
    "1,234",
    "0,123.5",
    "1.234,5",
    "12,34,567",
    "tensor([0.43, 0.5])",
    "tensor([0.43,",
    "log(0.43)",
    "tensor()",
    "tensor(nil)",
    "0.43s",
    "0.43 0.44",
    "0.4.3",
)


@pytest.mark.parametrize(("text", "value"), READ.items())
def test_a_number_is_read_however_a_program_writes_it(text: str, value: float) -> None:
    assert parse_number(text) == pytest.approx(value, rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("text", NOT_READ)
def test_what_could_be_another_number_is_none(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("3", 3),
        ("3/10", 3),
        ("[3/10]", 3),
        ("3.0", 3),
        ("2.9999999999", 3),
        ("tensor(3)", 3),
        ("0", 0),
        ("-1", None),
        ("2.5", None),
        ("nan", None),
        ("inf", None),
        ("x", None),
        ("3/x", None),
    ],
)
def test_a_step_is_a_whole_number_perhaps_of_so_many(text: str, step: int | None) -> None:
    assert parse_step(text) == step


def test_colours_in_a_line_are_in_no_patterns_way() -> None:
    text = b"\x1b[1mloss: \x1b[32m0.5\x1b[0m\n"
    assert read_metrics(r"loss: (?P<loss>[\d.]+)", text=text) == [(1, {"loss": 0.5})]
    assert read_metrics(r"\x1b\[32m(?P<loss>[\d.]+)", text=text) == [(1, {"loss": 0.5})]


def test_where_no_line_matches_the_last_one_with_a_number_is_shown() -> None:
    reader = StdoutMetrics(["err=(?P<err>.*)"], Reports(lambda *_: None, start=0))
    assert reader.seen() == "no printed line matched train.metrics"
    reader.feed(b"epoch 1 error 0.5\ndone\n")
    assert reader.seen() == (
        "no printed line matched train.metrics; the last one with a number was 'epoch 1 error 0.5'"
    )
    reader.feed(b"err=low\n")
    assert reader.seen() == ""
