"""Metrics found in what a program prints."""

from __future__ import annotations

import pytest

from hpcsweep.worker.process import StdoutMetrics


def read_metrics(
    *patterns: str, text: bytes, start: int = 0, piece: int = 1000
) -> list[tuple[int, dict[str, float]]]:
    found: list[tuple[int, dict[str, float]]] = []
    reader = StdoutMetrics(
        patterns, start=start, report=lambda step, metrics: found.append((step, dict(metrics)))
    )
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
