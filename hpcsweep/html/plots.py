"""`Results.plot`: the figures of the report as objects of plotly.

Each is taken from the section of the page that shows it, so that both always show the same. What the page's
script adds there is added here: colours, lists to choose from, and the configuration in tooltips.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np

from hpcsweep.core.text import suggest_name
from hpcsweep.errors import FigureError, SpecError
from hpcsweep.html.attempts import failures, gpu_time
from hpcsweep.html.contour import LEAST as LEAST_POINTS
from hpcsweep.html.contour import contour
from hpcsweep.html.curves import curves
from hpcsweep.html.front import front
from hpcsweep.html.importance import importance, too_few_values
from hpcsweep.html.page import COLOURS, plain
from hpcsweep.html.parallel import parallel
from hpcsweep.html.parameters import slices
from hpcsweep.html.pareto import Mode, pareto
from hpcsweep.html.progress import progress
from hpcsweep.html.rungs import rungs
from hpcsweep.html.sections import Alternatives, Block, Figure, Section
from hpcsweep.html.timeline import timeline
from hpcsweep.views.format import label
from hpcsweep.views.importance import importances
from hpcsweep.views.resource_values import compared_resources

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from hpcsweep.views.results import Results

_Maker: TypeAlias = "Callable[[Results], Section | None]"

#: Parameters that a tooltip names, and points that have one, at most: the text is in the figure.
_NAMED: Final = 10
_MOST_NAMED: Final = 2000
#: Pixels above the plot for its title, and for the lists to choose from.
_TITLE: Final = 60
_MENUS: Final = 60


class Plots:
    """The figures of the report as objects of plotly: `results.plot.importance().show()`.

    They are those of the page, in the colours of its light theme, with its lists as buttons. Change them as
    any `plotly.graph_objects.Figure`. What the page writes below a figure is in `figure.layout.meta`, as
    `caption` and, with the numbers that matter, `summary`.

    Each raises `hpcsweep.errors.FigureError`, which says why, where it does not apply to the sweep.
    """

    def __init__(self, results: Results) -> None:
        self._results = results

    def __repr__(self) -> str:
        names = [name for name in vars(Plots) if not name.startswith("_")]
        lines = [
            f"  .{name}(): {(inspect.getdoc(getattr(Plots, name)) or '').splitlines()[0]}" for name in names
        ]
        return "\n".join([f"Figures of {self._results.name}:", *lines])

    # ------------------------------------------------------------------ values

    def progress(self, over: Literal["time", "cost"] = "time") -> go.Figure:
        """The best value so far.

        Args:
            over: `time` since the start, or the `cost` by then: GPU-hours, or hours of runs without a GPU.
        """
        if over not in ("time", "cost"):
            raise SpecError(f"plot.progress: over: expected 'time' or 'cost', got {over!r}")
        why = "no run has a value yet"
        if self._results.objectives.has_front:
            why = "with several objectives there is no single best: see front() and hypervolume()"
        return self._drawn("progress", progress, why, nth=0 if over == "time" else 1)

    def front(self) -> go.Figure:
        """The front of several objectives, with its picks."""
        return self._drawn("front", front, self._no_front, name="front-pairs")

    def hypervolume(self) -> go.Figure:
        """The hypervolume of the front over time."""
        return self._drawn(
            "hypervolume", front, self._no_front, name="front-hypervolume", title="Hypervolume of the front"
        )

    def curves(self, metric: str | None = None) -> go.Figure:
        """The learning curves, and which trials went on from each rung.

        Args:
            metric: Of several objectives the one that is shown; the first one by default.
        """
        at = self._objective("curves", metric)
        why = f"no trial has {self._results.objectives[at].metric} at more than one step"
        return self._drawn("curves", partial(curves, objective=at), why)

    def rungs(self, metric: str | None = None) -> go.Figure:
        """The values at each rung, and the worst that went on.

        Args:
            metric: Of several objectives the one that is shown; the first one by default.
        """
        at = self._objective("rungs", metric)
        why = "needs values at two rungs, and not more rungs than can be told apart"
        return self._drawn("rungs", partial(rungs, objective=at), why)

    def pareto(self, modes: Mapping[str, Mode] = MappingProxyType({})) -> go.Figure:
        """The objective against each other metric that was reported.

        Args:
            modes: Directions of the other metrics, `{"latency_ms": "min"}`; else guessed from their names.
        """
        why = f"no metric beside {self._results.metric} was reported with different values"
        return self._drawn("pareto", partial(pareto, modes=modes), why)

    # ------------------------------------------------------------------ parameters

    def importance(self, metric: str | None = None, *, resource: int | None = None) -> go.Figure:
        """How much each parameter matters: functional ANOVA with intervals.

        Args:
            metric: Of several objectives the one that is explained; the first one by default.
            resource: At which values are compared; by default the highest one that many reached.
        """
        results, at = self._results, self._objective("importance", metric)
        no_parameters = "there is no parameter but constants"
        return self._drawn(
            "importance",
            partial(importance, resource=self._compared("importance", resource, at), objective=at),
            lambda: too_few_values(results, at, resource) if results.space.columns else no_parameters,
        )

    def slices(self, metric: str | None = None, *, resource: int | None = None) -> go.Figure:
        """The value against each parameter, one at a time.

        Args:
            metric: Of several objectives the one that is shown; the first one by default.
            resource: At which values are compared; by default the highest one that many reached.
        """
        at = self._objective("slices", metric)
        why = "needs a value, and a parameter that is no constant"
        resource = self._compared("slices", resource, at)
        return self._drawn("slices", partial(slices, resource=resource, objective=at), why)

    def contour(
        self,
        x: str | None = None,
        y: str | None = None,
        *,
        metric: str | None = None,
        resource: int | None = None,
    ) -> go.Figure:
        """The value over two parameters.

        Args:
            x: A parameter; the most important one by default.
            y: Another one; the most important of the others by default.
            metric: Of several objectives the one that is shown; the first one by default.
            resource: At which values are compared; by default the highest one that many reached.
        """
        at = self._objective("contour", metric)
        pair = self._pair(x, y, at)
        if pair is None:
            why = "too few values tell which parameters matter: name two, contour(x, y)"
        else:
            values = f"{LEAST_POINTS} configurations with a value at the same resource"
            why = f"needs {values} that have both {pair[0]} and {pair[1]}"
        resource = self._compared("contour", resource, at)
        make = partial(contour, pair=pair, resource=resource, objective=at)
        return self._drawn("contour", make, why)

    def parallel(self, metric: str | None = None) -> go.Figure:
        """All parameters and the value, as lines side by side.

        Args:
            metric: Of several objectives the one that colours them; the first one by default.
        """
        at = self._objective("parallel", metric)
        why = "needs two configurations with a value, and a parameter"
        return self._drawn("parallel", partial(parallel, objective=at), why)

    # ------------------------------------------------------------------ runs

    def failures(self) -> go.Figure:
        """The share of each node's attempts that failed or were interrupted."""
        return self._drawn("failures", failures, "no attempt on a known node failed or was interrupted")

    def timeline(self) -> go.Figure:
        """What each node ran, and when."""
        return self._drawn("timeline", timeline, "no task has begun")

    def gpu_time(self) -> go.Figure:
        """Where the GPU time went, or that of runs without a GPU."""
        return self._drawn("gpu_time", gpu_time, "no run has ended yet", name="gpu-time-spent")

    def waits(self) -> go.Figure:
        """How long tasks waited in the queue."""
        return self._drawn(
            "waits",
            gpu_time,
            "no task has started yet",
            name="gpu-time-waiting",
            title="Waits in the queue",
        )

    # ------------------------------------------------------------------

    @property
    def _no_front(self) -> str:
        if self._results.objectives.has_front:
            return "no configuration has values yet"
        return f"needs several objectives, and {self._results.metric} is the only one"

    def _objective(self, method: str, metric: str | None) -> int:
        """The index of the objective with this name, of the first one where none is given."""
        metrics = self._results.objectives.metrics
        if metric is None:
            return 0
        if metric not in metrics:
            raise SpecError(f"plot.{method}: {suggest_name(metric, metrics, kind=f'objective {metric!r}')}")
        return metrics.index(metric)

    def _pair(self, x: str | None, y: str | None, objective: int) -> tuple[str, str] | None:
        """The parameters that were asked for, else the most important ones; None while these are unknown."""
        self._check_started("contour")
        results = self._results
        known = [parameter.name for parameter in results.space.columns]
        for name in (x, y):
            if name is not None and name not in known:
                raise SpecError(f"plot.contour: {suggest_name(name, known, kind=f'parameter {name!r}')}")
        if x is not None and x == y:
            raise SpecError(f"plot.contour: needs two parameters, got {x!r} twice")
        if len(known) < 2:
            raise FigureError(f"{results.name}: plot.contour: needs two parameters that are no constants")
        important = [each.name for each in importances(results, objective)]
        if x is None and y is None:
            return (important[0], important[1]) if len(important) > 1 else None
        other = next(name for name in [*important, *known] if name not in (x, y))
        return x or other, y or other

    def _check_started(self, method: str) -> None:
        if self._results.folder.state.started is None:
            raise FigureError(f"{self._results.name}: plot.{method}: the sweep has not started")

    def _compared(self, method: str, resource: int | None, objective: int) -> int | None:
        """The resource, if enough values can be compared there."""
        self._check_started(method)
        counts = compared_resources(self._results, objective)
        if resource is not None and resource not in counts:
            known = ", ".join(map(str, sorted(counts))) or "none, as there are too few values at each"
            raise SpecError(f"plot.{method}: resource: expected one of: {known}; got {resource}")
        return resource

    def _drawn(
        self,
        method: str,
        make: _Maker,
        why: str | Callable[[], str],
        *,
        name: str = "",
        nth: int = 0,
        title: str = "",
    ) -> go.Figure:
        """The figure of the section that `make` gives with that name, or else the `nth` one.

        Args:
            method: The name of the figure here.
            make: Gives the section.
            why: Why there is none, where there is none.
            name: Its id in the page.
            nth: Which figure of the section, where all have to do.
            title: In place of the section's.
        """
        self._check_started(method)
        section = make(self._results)
        blocks = section.blocks if section else ()
        figures = [figure for figure in figures_of(blocks) if name in ("", figure.id)]
        if section is None or len(figures) <= nth:
            reason = why if isinstance(why, str) else why()
            raise FigureError(f"{self._results.name}: plot.{method}: {reason}")
        return _plotly(figures[nth], title or section.title, self._configurations())

    def _configurations(self) -> Mapping[int, str]:
        """What a tooltip says of each trial, a line for each parameter."""
        return {
            trial.trial: "\n".join(
                f"{name} {label(value)}" for name, value in list(trial.config.items())[:_NAMED]
            )
            for trial in self._results.folder.state.trials
        }


def figures_of(blocks: Sequence[Block]) -> Iterator[Figure]:
    """Those that the page shows at first."""
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Alternatives):
            yield from figures_of(block.versions[block.shown])


def _plotly(figure: Figure, title: str, configurations: Mapping[int, str]) -> go.Figure:
    import plotly.graph_objects as go

    traces = [_with_configurations(trace, configurations) for trace in figure.traces]
    layout = dict(figure.layout)
    menus = layout.pop("updatemenus", ())
    top = _TITLE + (_MENUS if menus else 0)
    layout |= {
        "title": {"text": title, "yref": "container", "y": 0.98, "yanchor": "top"},
        "height": figure.height + top,
        "margin": {**layout.get("margin", {}), "t": top},
        "template": "plotly_white",
        "colorway": [f"@{name}" for name in range(1, 9)],
        "updatemenus": [_menu(each, at) for at, each in enumerate(menus)],
    }
    drawn = go.Figure(**_coloured(plain({"data": traces, "layout": layout})))
    drawn.layout.meta = {"caption": figure.caption, "summary": figure.summary}
    return drawn


def _with_configurations(trace: Mapping[str, Any], configurations: Mapping[int, str]) -> dict[str, Any]:
    """The trace with the configuration of each of its points in their tooltips, as the page has it."""
    hover, points = str(trace.get("hovertemplate", "")), trace.get("customdata", ())
    if not hover.startswith("trial %{customdata") or not 0 < len(points) <= _MOST_NAMED:
        return dict(trace)
    trials = np.asarray(points).reshape(len(points), -1)[:, 0].tolist()
    text = [configurations.get(int(trial), "") for trial in trials]
    head, extra, rest = hover.partition("<extra>")
    return {**trace, "text": text, "hovertemplate": f"{head}<br>%{{text}}{extra}{rest}"}


def _menu(menu: Mapping[str, Any], at: int) -> dict[str, Any]:
    """A list of the page, above the plot; its buttons name what they choose."""
    buttons = [{**button, "label": f"{menu['name']}: {button['label']}"} for button in menu["buttons"]]
    place = {"x": 0.35 * at, "xanchor": "left", "y": 1.0, "yanchor": "bottom", "pad": {"b": 24}}
    return {"active": menu["active"], "buttons": buttons, "type": "dropdown", **place}


def _coloured(value: Any) -> Any:
    """With the colours of the light theme."""
    match value:
        case {"@": name, "opacity": opacity}:
            red, green, blue = bytes.fromhex(COLOURS[name][0].removeprefix("#"))
            return f"rgba({red},{green},{blue},{opacity:g})"
        case dict():
            return {key: _coloured(inner) for key, inner in value.items()}
        case list():
            return (
                value if value and isinstance(value[-1], float | int) else [_coloured(each) for each in value]
            )
        case _:
            return value
