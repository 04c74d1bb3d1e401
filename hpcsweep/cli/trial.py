"""`explain` and `logs`: why a trial was started, promoted or dropped, and what its attempts printed."""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import typer

from hpcsweep.cli.terminal import errors_exit, json_text, raw, sanitize, sanitize_lines
from hpcsweep.core.models import RunStatus
from hpcsweep.core.outcomes import FACTS
from hpcsweep.core.text import plural
from hpcsweep.core.units import format_memory
from hpcsweep.errors import SpecError
from hpcsweep.store.layout import rank_log
from hpcsweep.views.explain import explain as explanation_of
from hpcsweep.views.explanation import (
    Attempt,
    BestSoFar,
    Change,
    Creation,
    Explanation,
    RankComparison,
    RankedTrial,
    Rung,
    Verdict,
)
from hpcsweep.views.folder import LogReader, ResultsFolder, attempt_logs
from hpcsweep.views.format import (
    config_text,
    duration,
    location,
    number,
    timestamp,
    value_text,
    warning_lines,
)
from hpcsweep.views.health import NO_CHECKPOINT
from hpcsweep.views.rank_correlations import rank_correlation_text


def explain(path: Path, trial: int, *, json: bool) -> None:
    """Print the explanation of one trial."""
    with errors_exit():
        folder = ResultsFolder(path)
        explanation = explanation_of(folder.events, folder.state, trial)
        if json:
            typer.echo(json_text(explanation))
            return
        for line in explanation_lines(explanation):
            typer.echo(line)
        last = folder.state.trials[trial].runs[-1]
        batch = folder.state.live.get(last.batch)
        if last.status is RunStatus.WAITING or (batch is not None and batch.job is None):
            for trouble in warning_lines(folder.state, now=time.time()):
                typer.echo(sanitize(f"it waits: {trouble}"))


def explanation_lines(explanation: Explanation) -> list[str]:
    """For people: a few lines for the creation, for each rung and its attempts, and one for the end."""
    lines = [f"trial {explanation.trial}: {config_text(explanation.config)}"]
    if explanation.repeats > 1:
        last = explanation.first + explanation.repeats - 1
        lines.append(
            f"repeat {explanation.repeat + 1} of {explanation.repeats} of its configuration: "
            f"trials {explanation.first} to {last}, compared by their mean and named by the first"
        )
    lines += _creation(explanation.creation)
    for rung in explanation.rungs:
        lines += _rung(explanation, rung)
    lines.append(_end(explanation))
    if explanation.checkpoint_removed:
        lines.append("its checkpoint was removed: it could go no further, and it was not the best")
    return lines


# --------------------------------------------------------------------------- its beginning


def _creation(creation: Creation) -> list[str]:
    where = f"in bracket {creation.bracket} at resource {creation.resource}"
    if creation.submitted is None:
        return [f"created {where}, not submitted yet", f"  {_origin(creation)}"]
    return [f"created {where}, submitted {timestamp(creation.submitted)}", f"  {_origin(creation)}"]


def _origin(creation: Creation) -> str:
    if creation.parent is not None:
        replaced = "" if creation.replaces is None else f", replacing trial {creation.replaces}"
        changes = ", ".join(_change(change) for change in creation.changes) or "nothing"
        return (
            f"a clone of trial {creation.parent} from its step {creation.start}{replaced}; changed: {changes}"
        )
    if creation.origin == "enqueued":
        return f"enqueued by {f'the request {creation.request}' if creation.request else 'the sweep file'}"
    resolved = f" ({creation.resolved_searcher}, chosen by it)" if creation.resolved_searcher else ""
    others = f" with {plural(creation.asked - 1, 'other')}" if creation.asked > 1 else ""
    return (
        f"proposed{others} by {creation.searcher or 'the searcher'}{resolved}, "
        f"which knew {plural(creation.observations, 'observation')} "
        f"and {plural(creation.pending, 'pending configuration')}"
    )


def _change(change: Change) -> str:
    return f"{change.name} {_value(change.before)} -> {_value(change.after)}"


def _value(value: Any) -> str:
    if value is msgspec.UNSET:
        return "absent"
    return value_text(value)


# --------------------------------------------------------------------------- its rungs


def _rung(explanation: Explanation, rung: Rung) -> list[str]:
    lines = [f"rung {rung.rung}, resource {rung.resource}: {_ending(explanation, rung)}"]
    if rung.from_scratch:
        lines.append("  trained from scratch: its checkpoint had been removed (train.keep: all keeps them)")
    if rung.retrained:
        lines.append(f"  trained from scratch: {NO_CHECKPOINT}")
    if rung.warning:
        lines.append(f"  warning: {rung.warning}")
    for attempt in _earlier(rung):
        lines += [_attempt(attempt), *_hand_over(attempt), *_memory(attempt)]
    if rung.status.ended and rung.attempts:
        lines += [*_hand_over(rung.attempts[-1]), *_memory(rung.attempts[-1])]
    if rung.repeats:
        values = ", ".join(
            f"trial {r.trial} {r.status.value if r.value is None else _numbers(r.value, r.values)}"
            for r in rung.repeats
        )
        mean = f"; mean {_numbers(rung.mean, rung.means)}" if rung.mean is not None else ""
        lines.append(f"  repeats: {values}{mean}")
    lines.append(f"  {_verdict(explanation, rung)}")
    if rung.comparison is not None and len(rung.comparison.named) > 1:
        own = explanation.trial if rung.verdict is Verdict.STOPPED else explanation.first
        lines += [f"    {line}" for line in _peers(rung.comparison, own)]
    several = len(explanation.metrics) > 1
    lines += [f"  ranks: {rank_correlation_text(each, several=several)}" for each in rung.correlations]
    return lines


def _earlier(rung: Rung) -> Sequence[Attempt]:
    """The attempts that have ended, without the one that ended the run: `_ending` tells of that."""
    return rung.attempts[:-1] if rung.status.ended else rung.attempts


def _attempt(attempt: Attempt) -> str:
    which = f"attempt {attempt.number}" if attempt.begun else f"before attempt {attempt.number}"
    restart = f", restart {attempt.restart} of its task" if attempt.restart else ""
    how = attempt.failure or attempt.outcome or attempt.interruption
    assert how is not None
    message = f": {attempt.message}" if attempt.message else ""
    by = f" by the request {attempt.request}" if attempt.request else ""
    then = f"; then tried again{by}" if attempt.retried else ""
    where = f" at step {attempt.step}" if attempt.step else ""
    where += location(attempt.node, attempt.job, attempt.seconds)
    return f"  {which}{restart}: {FACTS[how].label}{where}{message}{then}"


def _hand_over(attempt: Attempt) -> Iterator[str]:
    """For how long its task held GPUs without a run before, where it keeps them."""
    if attempt.idle_s is not None:
        since = "its task did" if attempt.first_of_task else "the previous run of its task ended"
        yield f"  began {duration(round(attempt.idle_s, 1))} after {since}"


def _memory(attempt: Attempt) -> Iterator[str]:
    """What it held of the memory that it had, where both are known."""
    if attempt.mem_mib is not None and attempt.peak_mib:
        used, had = format_memory(attempt.peak_mib), format_memory(attempt.mem_mib)
        yield f"  used at most {used} of {had} of memory"


def _ending(explanation: Explanation, rung: Rung) -> str:
    where = f" in attempt {rung.begun}" if rung.begun > 1 else ""
    if rung.attempts:
        where += location(rung.node, rung.attempts[-1].job, rung.attempts[-1].seconds)
    match rung.status:
        case RunStatus.WAITING:
            return "waits to be submitted"
        case RunStatus.SUBMITTED:
            blocked = f"; cannot start: {rung.blocked_reason}" if rung.blocked_reason else ""
            return f"submitted, attempt {rung.begun}{blocked}"
        case RunStatus.COMPLETED:
            assert rung.value is not None
            return f"completed{where} with {_values(explanation, rung)}"
        case RunStatus.STOPPED:
            value = "" if rung.value is None else f" with {_values(explanation, rung)}"
            return f"stopped early at step {rung.step}{where}{value}"
        case RunStatus.FAILED:
            how = rung.failure or rung.outcome
            return f"{FACTS[how].label if how is not None else 'failed'}{where}: {rung.message}"


def _values(explanation: Explanation, rung: Rung) -> str:
    """The value with its metric, with several objectives all of them."""
    assert rung.value is not None
    if not rung.values:
        return f"{explanation.metric} {number(rung.value)}"
    pairs = zip(explanation.metrics, rung.values, strict=True)
    return ", ".join(f"{metric} {number(value)}" for metric, value in pairs)


def _numbers(value: float, values: Sequence[float]) -> str:
    """The value, with several objectives all of them: `0.1, 60`."""
    return ", ".join(map(number, values or (value,)))


def _verdict(explanation: Explanation, rung: Rung) -> str:
    """What followed, and why."""
    why, after = (f": {rung.reason}", f"; {rung.reason}") if rung.reason else ("", "")
    comparison = rung.comparison
    if comparison is None:
        undecided = {
            Verdict.UNDER_WAY: f"under way{why}",
            Verdict.NO_VALUE: f"never considered, without a value{after}",
        }
        return undecided.get(rung.verdict, f"{rung.verdict.value}{why}")
    where = "in the sweep" if explanation.pooled else f"in bracket {explanation.creation.bracket}"
    without = f" ({comparison.without_value} without a value)" if comparison.without_value else ""
    rank = "without a place" if comparison.place is None else ordinal(comparison.place)
    place = f"{rank} of {comparison.ended} ended at resource {comparison.resource} {where}{without}"
    on = f"{comparison.went_on} went on"
    match rung.verdict:
        case Verdict.PROMOTED:
            return f"promoted: {place} when it was promoted; {comparison.went_on} had gone on by then"
        case Verdict.DROPPED:
            worse = f", {comparison.worse} with a worse value, promoted earlier" if comparison.worse else ""
            return f"dropped: {place}; {on}{worse}{after}"
        case Verdict.OPEN:
            return f"not decided yet: {place}; {on} so far{after}"
        case Verdict.STOPPED:
            reported = f"that had reported at step {comparison.resource} {where} by then"
            return f"stopped{why}: {rank} of {comparison.ended} {reported}"
        case _:
            return f"fully trained: {place}"


def _peers(comparison: RankComparison, own: int) -> Iterator[str]:
    """The few that tell the most, those that went on and those that did not."""
    gaps = [b.place for a, b in itertools.pairwise(comparison.named) if b.place > a.place + 1]
    on = [peer for peer in comparison.named if peer.went_on]
    rest = [peer for peer in comparison.named if not peer.went_on]
    if on:
        yield f"went on: {_listed(on, gaps, own)}"
    if rest:
        yield f"{'not' if on else 'best first'}: {_listed(rest, gaps, own)}"


def _listed(peers: Sequence[RankedTrial], gaps: Sequence[int], own: int) -> str:
    """Peers by place, with `..` for those that are named nowhere: just before the places in `gaps`."""
    texts: list[str] = []
    last = peers[0].place
    for peer in peers:
        if any(last < gap <= peer.place for gap in gaps):
            texts.append("..")
        this = " (this one)" if peer.trial == own else ""
        value = f"({_numbers(peer.value, peer.values)})" if peer.values else number(peer.value)
        texts.append(f"{ordinal(peer.place)} trial {peer.trial} {value}{this}")
        last = peer.place
    return ", ".join(texts)


# --------------------------------------------------------------------------- its end


def _end(explanation: Explanation) -> str:
    best = explanation.best
    if best is None:
        return "no run of the sweep has given a value yet"
    if explanation.metrics:
        return _front_end(explanation, best)
    where = f"trial {best.trial}: {number(best.value)} at resource {best.resource}"
    if explanation.value is None or best.behind is None:
        return f"it has no value; the best is {where}"
    if best.trial == explanation.first:
        return f"it is the best of the sweep: {number(explanation.value)} at resource {explanation.resource}"
    value = f"{number(explanation.value)} at resource {explanation.resource}"
    return f"it has {value}, {number(best.behind)} worse than the best, {where}"


def _front_end(explanation: Explanation, best: BestSoFar) -> str:
    """Where it stands with several objectives: its front, who dominates it, the bounds that it is beyond."""
    several = len(explanation.metrics) > 1
    pairs = zip(explanation.metrics, best.values, strict=True)
    values = ", ".join(f"{metric} {number(value)}" for metric, value in pairs)
    what = "the knee of the front" if several else "the best"
    where = f"{what if explanation.feasible else 'nearest to the bounds'} is trial {best.trial}: {values}"
    standing = explanation.standing
    if standing is None:
        return f"it has no value; {where}"
    own = ", ".join(f"{metric} {number(value)}" for metric, value in standing.values.items())
    at = f"{own} at resource {explanation.resource}"
    dominates = f"it dominates {plural(standing.dominates, 'configuration')}"
    if standing.violated:
        beyond = " and ".join(f"{metric} is {how}" for metric, how in standing.violated.items())
        better = len(standing.dominated_by)
        are = "keeps the bounds or is" if better == 1 else "keep the bounds or are"
        by = f"{plural(better, 'configuration')} {are} less far beyond"
        if not explanation.feasible:
            are = "is" if better == 1 else "are"
            by = f"no configuration keeps the bounds, {better:,} {are} less far beyond"
        return f"it is infeasible, {beyond}: {at}; {by}; {where}"
    if standing.front == 1:
        picks = f", {' and '.join(standing.picks)}" if standing.picks else ""
        return f"it is on the front{picks}: {at}; {dominates}" + (
            "" if best.trial == explanation.first else f"; {where}"
        )
    listed = ", ".join(map(str, standing.dominated_by[:DOMINATORS]))
    more = len(standing.dominated_by) - DOMINATORS
    listed += f" and {more} more" if more > 0 else ""
    them = "trial" if len(standing.dominated_by) == 1 else "trials"
    place = f"it is on front {standing.front} of {standing.fronts}: {at}"
    return f"{place}; dominated by {them} {listed}; {dominates}; {where}"


#: So many trials that dominate one are named.
DOMINATORS: Final = 5


# --------------------------------------------------------------------------- ordinals


def ordinal(place: int) -> str:
    """`1st`, `2nd`, `11th`."""
    if place % 100 in (11, 12, 13):
        return f"{place}th"
    return f"{place}" + {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")


#: What sets colours and weights, and nothing else.
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")


def logs(path: Path, trial: int, *, rung: int | None, tail: int | None, rank: int = 0) -> None:
    """Print the log of each attempt, oldest first, under a line that says which it is."""
    with errors_exit():
        folder = ResultsFolder(path)
        found = attempt_logs(folder.events, folder.layout, trial)
        wanted = [each for each in found if rung in (None, each.rung)]
        if not wanted:
            there = ", ".join(str(number) for number in sorted({each.rung for each in found}))
            raise SpecError(f"--rung: expected one that was submitted ({there}), got {rung}")
        logs = LogReader(folder.layout, folder.events)
        for each in wanted:
            try:
                path, data = logs.read(each._replace(path=rank_log(each.path, rank)))
            except OSError as error:
                typer.echo(f"hpcsweep: {each.path}: cannot be read: {error.strerror}", err=True)
                continue
            which = f"attempt {each.attempt}" + (f" rank {rank}" if rank else "")
            typer.echo(f"==> trial {trial} rung {each.rung} {which}: {path} <==")
            _show(data, tail)


def _coloured(text: str) -> str:
    """Neutral but for colours, which end with the text."""
    lines = re.sub(r"\r+\n", "\n", text).replace("\r", "\n")  # a progress bar: each state on its own line
    parts = _COLOUR.split(lines)
    shown = "".join(part if index % 2 else sanitize_lines(part) for index, part in enumerate(parts))
    return shown + ("\x1b[0m" if len(parts) > 1 else "") + ("" if shown.endswith("\n") else "\n")


def _show(data: bytes | None, tail: int | None) -> None:
    """On a terminal as text with its colours, which nothing else may change; elsewhere byte for byte."""
    if data is None:
        typer.echo("nothing was printed yet")
        return
    if tail is not None:
        data = b"".join(data.splitlines(keepends=True)[-tail:])
    if sys.stdout.isatty():
        terminal = raw(sys.stdout)
        terminal.write(_coloured(data.decode(errors="replace")))
        terminal.flush()
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data if data.endswith(b"\n") or not data else data + b"\n")
    sys.stdout.buffer.flush()
