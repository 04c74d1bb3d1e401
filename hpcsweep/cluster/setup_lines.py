"""The lines of `cluster.setup` so that none of them fails in silence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hpcsweep.store.files import OURS

#: `$LINENO` in a trap of bash is that of the line of the script; a function that fails (`module`) has
#: another `$BASH_COMMAND`. What fails inside of a script that a line sources says nothing: scripts of
#: conda and of sites test things that way. How the line itself ends is what counts.
_SETUP: Final = """\
hpcsweep_setup_failed() {{  # STATUS DEPTH LINE COMMAND
  if [ "$2" -gt 1 ]; then return; fi
  hpcsweep_line=$(sed -n "${{3}}p" "$0" 2>/dev/null)
  hpcsweep_line=${{hpcsweep_line:-$4}}
  echo "{ours} cluster.setup: failed with exit status $1: $hpcsweep_line" >&2
  {failed}
}}
hpcsweep_trap=
if [ -n "${{BASH_VERSION:-}}" ]; then
  hpcsweep_trap=$(trap -p ERR)
  trap 'hpcsweep_setup_failed "$?" "${{#BASH_SOURCE[@]}}" "$LINENO" "$BASH_COMMAND"' ERR
fi
{lines}
if [ -n "${{BASH_VERSION:-}}" ]; then trap - ERR; eval "$hpcsweep_trap"; fi"""


def setup_lines(lines: Sequence[str], *, failed: str) -> str:
    """The set-up, which ends the job where a line of it fails: training would count in a wrong environment.

    As with `set -e` a command fails that is not tested (`if`, `&&`, `||`); unlike there, functions and
    scripts that are sourced fail only as a whole. Only bash watches its lines; a template for another
    shell runs them as they are.
    """
    if not lines:
        return ""
    return _SETUP.format(ours=OURS, failed=failed, lines="\n".join(lines))
