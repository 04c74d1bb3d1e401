"""How the process of a run ended: its exit status, what it left behind, and how its ranks fared."""

from __future__ import annotations

import signal
from typing import Final

import msgspec

from hpcsweep.core.events import Interruption, Outcome
from hpcsweep.store.batch import Program
from hpcsweep.worker.command import line_ending_problem
from hpcsweep.worker.launch import Launch
from hpcsweep.worker.outcome import ProcessExit, RunOutcome
from hpcsweep.worker.ports import is_taken
from hpcsweep.worker.process import RunLog, oom_kills
from hpcsweep.worker.ranks import NOT_FOUND

#: How often the ranks of a run are started again at another port.
MOST_CLASHES: Final = 3


def process_exit(
    returncode: int,
    launch: Launch,
    log: RunLog,
    *,
    program: Program,
    signum: signal.Signals | None,
    ended_by_us: bool,
    oom_kills_before: int | None,
    alone: bool,
    over_memory: str,
) -> ProcessExit:
    """How it ended; a run of several ranks as the one that failed first."""
    types: tuple[str, ...] = ()
    message = ""
    killed, before, after = 0, oom_kills_before, oom_kills()
    if before is not None and after is not None:
        killed = after - before
    rank = launch.rank_failure() if returncode else None
    if rank is not None:
        returncode, types, message = rank.returncode, rank.types, rank.message
        killed = killed or rank.oom_kills
    else:
        failure = launch.failure
        types = failure.types
        message = failure.message or (_last_message(launch, log, program) if returncode else "")
    return ProcessExit(
        returncode,
        signal=signum.name if signum else None,
        ended_by_us=ended_by_us,
        types=types,
        message=message,
        oom_kills=killed,
        alone=alone,
        over_memory=over_memory,
    )


def _last_message(launch: Launch, log: RunLog, program: Program) -> str:
    """The last lines that the program printed, and known causes."""
    excerpt = log.excerpt()
    argv = launch.argv if program.command else []
    hint = line_ending_problem(argv, excerpt, workdir=program.workdir) if argv else ""
    return "; ".join(filter(None, [excerpt, hint]))


def port_was_taken(ended: ProcessExit, launch: Launch, log: RunLog) -> bool:
    """Whether the run's ranks could not meet, as somebody else had their port."""
    return launch.has_ranks and ended.returncode != 0 and is_taken(f"{ended.message}\n{log.tail()}")


def outcome_of_ranks(
    outcome: RunOutcome, ended: ProcessExit, launch: Launch, *, port_taken: bool
) -> RunOutcome:
    """The outcome, with the rank whose fault it is; an interruption where it was none's."""
    rank = launch.rank_failure()
    if outcome.outcome not in (Outcome.FAILED, Outcome.OUT_OF_MEMORY) or not launch.has_ranks:
        return outcome
    if port_taken or (rank is None and ended.returncode not in (0, NOT_FOUND)):
        what = (
            "the port of its ranks was taken" if port_taken else "its ranks ended, and none failed by itself"
        )
        text = f"{what}: {ended.message}" if ended.message else what
        return RunOutcome(interrupted=Interruption.WORKER_DIED, message=text)
    if rank is not None and rank.blames_peer and (lost := launch.lost_ranks):
        gone = f"rank{'s' if len(lost) > 1 else ''} {', '.join(map(str, lost))} on another node"
        text = f"{gone} ended without a word, and rank {rank.rank} failed: {outcome.message}"
        return RunOutcome(interrupted=Interruption.WORKER_DIED, message=text)
    if rank is not None and rank.rank and not rank.types:  # what an exception says may come from any of them
        return msgspec.structs.replace(outcome, message=f"rank {rank.rank}: {outcome.message}")
    return outcome
