"""Shell code around a tick job's work that submits another job if the work fails.

It needs neither Python nor the results folder, so it works where `cluster.setup` is broken, the file
system is full or unreadable, or our own code fails. The next job is the same script, which Slurm
keeps in its spool folder. Where a job may not submit another, the job requeues itself.

All in this module is pure.
"""

from __future__ import annotations

import re
import shlex
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Final

#: Pause before the job after the first failure; it doubles with each further one, up to the longest.
FIRST_S: Final = 60
LONGEST_S: Final = 3600
#: So many failures in a row end it: about three days. Where the results folder is gone, about six hours.
MOST: Final = 72
MOST_WITHOUT_FOLDER: Final = 12
#: So long before its time limit a job that hangs is replaced.
SIGNAL_S: Final = 90

#: Shells that read the code below.
_SHELL: Final = re.compile(r"#!\s*(/usr/bin/env\s+)?\S*\b(ba|da|k|z)?sh(\s|$)")

_CODE: Final = string.Template(
    """\
# hpcsweep: a job that fails is followed by one that looks again, later and later.
failures=0
hpcsweep_log=$log
if [ -n "$$hpcsweep_log" ] && (: >>"$$hpcsweep_log") 2>/dev/null; then exec >>"$$hpcsweep_log" 2>&1; fi
look_again() {
  failures=$$((failures + 1 + $${SLURM_RESTART_COUNT:-0}))
  most=$most
  [ -d $folder ] || most=$most_without_folder
  if [ "$$failures" -gt "$$most" ]; then
    echo "hpcsweep: tick job $$SLURM_JOB_ID: failed $$failures times in a row ($$1); no job looks again"
    return
  fi
  delay=$first; n=1
  while [ "$$n" -lt "$$failures" ] && [ "$$delay" -lt $longest ]; do
    delay=$$((delay * 2)); n=$$((n + 1))
  done
  [ "$$delay" -le $longest ] || delay=$longest
  now=$$(date '+%Y-%m-%d %H:%M:%S')
  echo "$$now tick job $$SLURM_JOB_ID: failed ($$1, $$failures in a row); looks again in $$delay s"
  # While the controller is away neither way is open.
  for n in 1 2 3 4 5 6 7 8 9 10; do
    reply=$$(
      PATH="$$PATH:"$programs
      # What this job was given must not reach the next one.
      for name in $$(env | sed -n 's/^\\(SLURM[A-Z0-9_]*\\)=.*/\\1/p') CUDA_VISIBLE_DEVICES $unset; do
        case $$name in
        SLURM_CONF | SLURM_CONF_SERVER | SLURM_CLUSTERS | SLURM_JWT) ;;
        *) unset "$$name" ;;
        esac
      done
      sed -e '/^#SBATCH --dependency=/d' -e '/^#SBATCH --begin=/d' \\
        -e "s/^failures=[0-9]*$$/failures=$$failures/" "$$0" | sbatch --parsable --begin=now+$$delay 2>&1
    ) && return
    echo "hpcsweep: tick job $$SLURM_JOB_ID: cannot submit the next one, is requeued: $$reply"
    trap '' TERM
    (PATH="$$PATH:"$programs; scontrol requeue "$$SLURM_JOB_ID") && return
    sleep $first
  done
}
# At the end of its time, and where its work was killed: then too. Who cancels it means it.
trap 'look_again "its time is nearly over"; exit 1' USR1
(
$body
) &
wait "$$!"
code=$$?
[ "$$code" -eq 0 ] || [ "$$code" -eq 143 ] || look_again "exit status $$code"
if [ "$$code" -eq 0 ] && [ "$$failures" -gt 0 ]; then
  echo "$$(date '+%Y-%m-%d %H:%M:%S') tick job $$SLURM_JOB_ID: works again"
fi
exit "$$code"
"""
)


def add_resubmission(
    script: str, *, folder: Path, log: Path | None, programs: str, unset: Iterable[str]
) -> str:
    """The script of a tick job that is followed by another where it fails; unchanged for an unusual shell."""
    if not _SHELL.match(script):
        return script
    lines = script.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), 0)
    code = _CODE.substitute(
        log=shlex.quote(str(log)) if log else "",
        folder=shlex.quote(str(folder)),
        most=MOST,
        most_without_folder=MOST_WITHOUT_FOLDER,
        first=FIRST_S,
        longest=LONGEST_S,
        programs=shlex.quote(programs),
        unset=" ".join(sorted(unset)),
        body="\n".join(lines[first:]).rstrip("\n"),
    )
    return "\n".join(lines[:first]) + "\n" + code
