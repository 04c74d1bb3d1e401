"""A page's HTML and its figures' JSON: all text is only text, and nothing is loaded."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpcsweep.html.page import COLOURS, figure_json, plain, render, trials_json
from hpcsweep.html.sections import Block, Figure, KeyValues, Section, Table, Text, TrialTable

EVIL = "</script><script>window.hacked = 1</script><b onclick=x()>&lt;&amp;"
SHOWN = "&lt;/script&gt;&lt;script&gt;window.hacked = 1&lt;/script&gt;&lt;b onclick=x()&gt;&amp;lt;&amp;amp;"


def figure(*traces: dict[str, object], id_: str = "f", **layout: object) -> Figure:
    return Figure(id_, traces, layout, "what is seen", "the same in words")


def decoded(found: Figure) -> dict[str, object]:
    content: dict[str, object] = json.loads(figure_json(found))
    return content


def body(html: str) -> str:
    """What stands in the page itself, scripts and style left out."""
    return re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)


# --------------------------------------------------------------------------- HTML


def test_all_text_of_a_page_is_escaped() -> None:
    button = {"label": EVIL, "method": "restyle", "args": [{"name": EVIL}]}
    menu = {"name": EVIL, "buttons": [button], "active": 0}
    blocks: list[Block] = [
        Text(EVIL),
        Text(EVIL, "note"),
        Text(EVIL, "warning"),
        Text(EVIL, "code"),
        KeyValues([(EVIL, EVIL)]),
        Table([EVIL], [[EVIL]], EVIL),
        Figure("f", [{"name": EVIL}], {"title": {"text": EVIL}, "updatemenus": [menu]}, EVIL, EVIL),
    ]
    html = render(EVIL, [Section("one", EVIL, blocks)])
    assert "<script>window.hacked" not in html
    assert "<b onclick" not in html
    # The title twice, the section in the link to it and above it; of the figure the label, its menu, and
    # two buttons, which have the section's name.
    assert body(html).count(SHOWN) == 2 + 2 + 4 + 2 + 3 + 3 + 2 + 2


def test_cells_show_numbers_briefly_gaps_as_dashes_and_text_as_it_is() -> None:
    rows: list[list[Any]] = [
        [1, 0.123456789, "sgd", None, "20%"],
        [np.int64(20_000), np.float64(2.5e-8), "0.5", math.nan, "<0.1%"],
    ]
    html = render(
        "lr", [Section("s", "S", [Table(["n", "x", "kind", "gap", "part"], rows, "caption", frozenset({1}))])]
    )
    found = re.findall(r"<td(?: class=\"(\w+)\")?>(.*?)</td>", html)
    assert found == [
        ("number", "1"),
        ("number", "0.123457"),
        ("", "sgd"),
        ("number", "–"),
        ("number", "20%"),
        ("number", '<span class="unseen">Marked: </span>20000'),
        ("number", "2.5e-08"),
        ("", "0.5"),
        ("number", "–"),
        ("number", "&lt;0.1%"),
    ]
    assert re.findall(r"<th scope=\"col\"(.*?)>(\w+)</th>", html) == [
        (' class="number"', "n"),
        (' class="number"', "x"),
        ("", "kind"),
        (' class="number"', "gap"),
        (' class="number"', "part"),
    ]


def test_a_page_without_figures_carries_no_plotly_and_one_without_sections_says_so() -> None:
    html = render("empty", [])
    assert "There is nothing to show yet." in html
    assert len(html) < 30_000
    words, drawn = (
        render("text", [Section("s", "S", [block])]).count('id="plotly"') for block in (Text("x"), figure())
    )
    assert (words, drawn) == (0, 1)


def test_a_page_runs_its_own_scripts_only_and_may_load_nothing() -> None:
    html = render("lr", [Section("s", "S", [figure({"x": [1]})])])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', html)
    assert policy is not None
    said = policy[1].replace("&#39;", "'")
    assert said.startswith("default-src 'none'; script-src 'unsafe-eval' 'sha256-")
    scripts = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    (packed,) = re.findall(r'<script type="application/gzip" id="plotly">(.*?)</script>', html)
    scripts.append(gzip.decompress(base64.b64decode(packed)).decode())
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"'sha256-(.*?)'", said) == hashes
    assert not re.search(r"<(link|script|img|iframe)[^>]+(href|src)=.(?!data:,)", body(html))


def test_figures_have_accessible_names_and_summaries() -> None:
    html = body(render("lr", [Section("s", "S", [figure({"x": [1]}, id_="progress")])]))
    assert 'role="img" aria-label="what is seen" aria-describedby="progress-words"' in html
    assert "<figcaption>what is seen</figcaption>" in html
    assert '<p id="progress-words">the same in words</p>' in html


def test_menus_of_a_figure_are_lists_with_a_name_and_the_script_has_what_they_change() -> None:
    buttons = [
        {"label": scale, "method": "relayout", "args": [{"yaxis.type": scale}]} for scale in ("linear", "log")
    ]
    found = figure({"x": [1]}, xaxis={}, updatemenus=[{"name": "Scale", "buttons": buttons, "active": 1}])
    html = body(render("lr", [Section("s", "S", [found])])).replace("\n", "")
    assert "<label>Scale <select><option>linear</option><option selected>log</option></select>" in html
    assert decoded(found) == {
        "traces": [{"x": [1]}],
        "layout": {"xaxis": {}},
        "menus": [
            [
                {"method": "relayout", "args": [{"yaxis.type": "linear"}]},
                {"method": "relayout", "args": [{"yaxis.type": "log"}]},
            ]
        ],
    }


@pytest.mark.parametrize(("width", "focusable"), [(0, False), (280, False), (700, True)])
def test_a_figure_wider_than_a_phone_is_in_a_box_that_the_keyboard_reaches(
    width: int, focusable: bool
) -> None:
    html = body(render("lr", [Section("s", "S", [figure({"x": [1]})._replace(width=width)])]))
    frame = re.search('<div class="frame"(.*?)>', html)
    assert frame is not None
    assert ('tabindex="0"' in frame[1]) is focusable


# --------------------------------------------------------------------------- figures


def test_text_in_figures_is_text_for_the_html_parser_and_for_plotly() -> None:
    found = figure({"name": EVIL, "x": [EVIL, "b"]}, xaxis={"title": {"text": EVIL}})
    assert not set("<>&\u2028\u2029") & set(figure_json(found))
    escaped = EVIL.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert decoded(found) == {
        "traces": [{"name": escaped, "x": [escaped, "b"]}],
        "layout": {"xaxis": {"title": {"text": escaped}}},
        "menus": [],
    }


def test_templates_keep_their_line_breaks_and_nothing_else_of_html() -> None:
    template = "%{y:.3g}<br>of <b>all</b> <i>x</i> <a>&<extra></extra>"
    assert plain({"hovertemplate": template, "text": "a<br>b\nc"}) == {
        "hovertemplate": "%{y:.3g}<br>of <b>all</b> &lt;i&gt;x&lt;/i&gt; &lt;a&gt;&amp;<extra></extra>",
        "text": "a&lt;br&gt;b<br>c",
    }


def test_labels_along_parallel_coordinates_are_verbatim_as_plotly_does_not_read_them() -> None:
    trace = {"dimensions": [{"label": "<x>", "ticktext": ["<a>"]}], "colorbar": {"ticktext": ["<a>"]}}
    assert plain(trace) == {
        "dimensions": [{"label": "&lt;x&gt;", "ticktext": ["<a>"]}],
        "colorbar": {"ticktext": ["&lt;a&gt;"]},
    }


def test_only_colour_keys_turn_theme_names_into_colours() -> None:
    trace = {
        "x": ["@1", "@good"],
        "text": "@bad",
        "line": {"color": "@1"},
        "fillcolor": "@8/0.2",
        "marker": {"color": ["@good", "#fff", "@9"], "colorscale": [[0, "@muted"], [1, "@bad"]]},
    }
    assert plain(trace) == {
        "x": ["@1", "@good"],
        "text": "@bad",
        "line": {"color": {"@": "1", "opacity": 1.0}},
        "fillcolor": {"@": "8", "opacity": 0.2},
        "marker": {
            "color": [{"@": "good", "opacity": 1.0}, "#fff", "@9"],
            "colorscale": [[0, {"@": "muted", "opacity": 1.0}], [1, {"@": "bad", "opacity": 1.0}]],
        },
    }


def test_numbers_are_short_and_keep_what_a_figure_can_show() -> None:
    numbers = [
        0.1 + 0.2,
        1 / 3,
        1.23456789e-12,
        0.0,
        -2.5,
        123456.789,
        1_700_000_000_123.0,
        math.nan,
        math.inf,
    ]
    encoded = json.loads(figure_json(figure({"x": np.array(numbers), "y": numbers, "z": pd.Series(numbers)})))
    short = [0.3, 0.3333333, 1.234568e-12, 0.0, -2.5, 123456.8, 1_700_000_000_123.0, None, None]
    assert [encoded["traces"][0][axis] for axis in "xyz"] == [short, short, short]


def test_arrays_of_whole_numbers_of_truth_and_of_text_are_lists() -> None:
    found = {
        "a": np.arange(3, dtype=np.uint8),
        "b": np.array([True]),
        "c": np.array(["<"]),
        "d": np.float32(0.1),
    }
    assert plain(found) == {"a": [0, 1, 2], "b": [True], "c": ["&lt;"], "d": 0.1}


# --------------------------------------------------------------------------- colours


def luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_drawings_have_enough_contrast(theme: str) -> None:
    own = {name: colours[["light", "dark"].index(theme)] for name, colours in COLOURS.items()}
    grounds = [own[name] for name in ("page", "surface", "warning", "mark")]
    low = [
        (name, ground)
        for name in ("text", "quiet", "link")
        for ground in grounds
        if contrast(own[name], ground) < 4.5
    ]
    assert low == []
    drawn = [*"12345678", "good", "bad", "muted"]
    assert [name for name in drawn if contrast(own[name], own["page"]) < 3.0] == []


def test_long_lists_that_several_traces_have_are_written_once() -> None:
    x, y = np.arange(50.0), np.arange(50.0) ** 2
    few = x[:3]
    first: dict[str, object] = {"x": x, "y": y, "marker": {"color": x}}
    found = decoded(figure(first, {"x": x, "y": -y}, {"x": few, "y": few}))
    assert found["shared"] == [x.tolist()]
    assert found["traces"] == [
        {"x": {"$": 0}, "y": y.tolist(), "marker": {"color": {"$": 0}}},
        {"x": {"$": 0}, "y": (-y).tolist()},
        {"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 2.0]},
    ]


def test_numbers_of_the_table_are_rounded_once_to_what_is_shown() -> None:
    """Rounded to more digits first, 0.0601636501 would be shown as 0.0601636 by one and ...37 by another."""
    table = TrialTable({"values": np.array([0.0601636501, 12345678.5])}, 2, "caption", ["x<1"])
    assert json.loads(trials_json(table)) == {"values": [0.0601637, 12345678.5]}
