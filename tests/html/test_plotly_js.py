"""The parts of plotly.js that pages carry."""

from __future__ import annotations

from collections.abc import Iterator

import plotly.offline
import pytest
from plotly.offline import get_plotlyjs

from hpcsweep.html.plotly_js import plotly_js
from tests.html.plotly_parts import Bundle, joined


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    plotly_js.cache_clear()
    yield
    plotly_js.cache_clear()


def test_the_parts_of_the_installed_version_are_known_and_a_third_of_it() -> None:
    assert len(plotly_js()) < len(get_plotlyjs()) / 3, "run python -m tests.html.plotly_parts"


def test_of_another_version_pages_get_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plotly.offline, "get_plotlyjs", lambda: "window.Plotly = {}")
    assert plotly_js() == "window.Plotly = {}"


def test_kept_are_the_traces_that_are_drawn_and_what_they_mention() -> None:
    traces = "".join(
        f'var {name}=W((e,t)=>{{{uses}t.exports={{moduleType:"trace",name:"{name}"}}}});'
        for name, uses in (
            ("bar", "used();"),
            ("pie", "unused();"),
            ("contour", ""),
            ("heatmap", ""),
            ("parcoords", ""),
        )
    )
    text = (
        "/* plotly */var Plotly=(()=>{var W=e=>e;"
        r'var used=W((e,t)=>{t.exports=/[{"]/.test("pie()")+`${twice(1)}{`});'
        'function twice(e){return e+"unused()"}var unused=W((e,t)=>{t.exports=only()});'
        "var only=W((e,t)=>{e.used()});"
        f"{traces}var all=W((e,t)=>{{core.register([pie(),bar(),contour(),heatmap(),parcoords()]);"
        "t.exports=core});"
        "var core={};return all()})();\nwindow.Plotly = Plotly;"
    )
    kept = "".join(text[start:end] for start, end in Bundle(text).kept())
    assert kept == (
        text.replace("var unused=W((e,t)=>{t.exports=only()});var only=W((e,t)=>{e.used()});", "")
        .replace('var pie=W((e,t)=>{unused();t.exports={moduleType:"trace",name:"pie"}});', "")
        .replace("[pie(),", "[")
    )


def test_parts_that_follow_each_other_are_one() -> None:
    assert joined([(0, 4), (4, 6), (7, 9)]) == [(0, 6), (7, 9)]
