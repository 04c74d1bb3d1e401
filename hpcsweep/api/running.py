"""What a sweep that is launched from Python prints, and where it may be launched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hpcsweep import bootstrap
from hpcsweep.errors import SpecError, SweepFailed

if TYPE_CHECKING:
    from hpcsweep.core.state import SweepState
    from hpcsweep.session.session import Session
    from hpcsweep.spec import SweepSpec


@contextlib.contextmanager
def printing(spec: SweepSpec) -> Iterator[None]:
    """Until the block ends, what is printed is shown and never interpreted, and secrets are masked."""
    from hpcsweep.cli.terminal import hide, sanitized_output
    from hpcsweep.core.text import secret_values

    with sanitized_output():
        hide(secret_values(spec.cluster.environment))
        yield


def tell_outcome(session: Session, state: SweepState, *, quiet: bool, detach: bool) -> None:
    """Print how the sweep stands.

    Raises:
        SweepFailed: It has ended or paused without any value.
    """
    from hpcsweep.cli.launch import print_detached, print_outcome

    if not quiet:
        print_outcome(state, session.folder, quiet=False)
        if detach and state.ended is None:
            print_detached(state, session.folder)
    if state.ended is not None and state.best is None:
        raise SweepFailed(
            f"{session.folder}: {state.ended.outcome.value}: {state.ended.reason}; "
            f"`hpcsweep status {session.folder}` shows what failed"
        )


def refuse_in_a_job(verb: str, folder: Path) -> None:
    """Refuse what training code does while a job imports it, or in a run of the sweep in this very folder.

    Raises:
        SpecError: It is done there.
    """
    own = False
    if os.environ.get("HPCSWEEP_RUN"):
        from hpcsweep.trial import current_trial

        trial = Path(os.path.realpath(current_trial()._run.trial_folder))
        own = Path(os.path.realpath(folder)) in trial.parents
    if bootstrap.importing or own:
        raise SpecError(
            f"{verb}() would run in each job of the sweep, as the job runs this file, too; put it below "
            "`if __name__ == '__main__':`"
        )
