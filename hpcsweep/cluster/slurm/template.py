"""The text of an sbatch script, from a site's template and the facts of one batch.

Everything here but `read_template` is pure.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import jinja2
import msgspec

import hpcsweep
from hpcsweep.cluster.slurm.options import OptionValue, SlurmOptions
from hpcsweep.cluster.slurm.sbatch_options import (
    GPU_FORMS,
    Line,
    canonical,
    resolve,
    script_lines,
)
from hpcsweep.cluster.slurm.tick_guard import SIGNAL_S
from hpcsweep.core.protocols import Batch
from hpcsweep.errors import SpecError
from hpcsweep.store.files import OURS
from hpcsweep.store.layout import BatchLayout, Layout

#: `--signal` takes 16 bits.
_MAX_SIGNAL_S: Final = 65535
#: What a job that ticks asks for: it replays a journal and calls sbatch, then ends.
TICK_MIB: Final = 1024
TICK_MINUTES: Final = 15
#: What the script of a task becomes: the worker.
WORKER: Final = "hpcsweep.cluster.slurm.task"
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:,=@%+*-")


class Template(msgspec.Struct, frozen=True):
    """A template's text and the file that it came from, for error messages."""

    path: Path
    text: str


# --------------------------------------------------------------------------- finding it


def packaged_templates() -> Path:
    """The folder of our own templates: in the installed package, or beside it in a checkout."""
    package = Path(hpcsweep.__file__).parent
    inside = package / "sbatch_templates"
    return inside if inside.is_dir() else package.parent / "sbatch_templates"


def read_template(name: str, *, spec_dir: Path) -> Template:
    """Read the template: a file by its path (a relative one from the spec's folder), else one of ours.

    Raises:
        SpecError: There is none, or it cannot be read.
    """
    own = packaged_templates()
    candidates = [spec_dir / Path(name).expanduser(), own / name, own / f"{name}.sbatch"]
    for path in candidates:
        if os.path.isfile(path):  # False also for a name that is too long
            try:
                return Template(path, path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise SpecError(f"{path}: cluster.template: cannot be read: {error}") from error
    known = ", ".join(sorted(path.name for path in own.glob("*.sbatch")))
    raise SpecError(f"cluster.template: no file {candidates[0]}, and hpcsweep's own are: {known}")


# --------------------------------------------------------------------------- its parts


def sbatch_options(batch: Batch, site: SlurmOptions) -> dict[str, str | int | float | bool]:
    """Every sbatch option of the batch by its long name, the site's own having the last word."""
    shape = batch.shape
    gpu = "gpu" if site.gpu_type is None else f"gpu:{site.gpu_type}"
    ours: dict[str, OptionValue] = {
        "job-name": batch.name,
        # Found by it where a site renames jobs and `chdir` is shared.
        "comment": batch.name,
        "array": f"0-{batch.tasks - 1}%{max(1, batch.throttle)}",
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": shape.cpus,
        # --gres rather than --gpus-per-node: every Slurm with GPUs has it, whatever its SelectType.
        "gres": f"{gpu}:{shape.gpus}" if shape.gpus else None,
        "mem": None if shape.mem_mib is None else f"{shape.mem_mib}M",
        "time": None if shape.time_s is None else max(1, math.ceil(shape.time_s / 60)),
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "nodelist": site.nodelist,
        "exclude": ",".join([*([site.exclude] if site.exclude else []), *batch.exclude]) or None,
        "dependency": f"afterany:{batch.after}" if batch.after else None,
        "chdir": site.workdir or str(batch.folder),
        "output": _log_pattern(batch.folder),
        "error": _log_pattern(batch.folder),
        "open-mode": "append",
        "requeue": batch.requeue or None,
        "no-requeue": not batch.requeue,
        # B: reaches only the script's shell, which by exec has become the worker.
        "signal": f"B:USR2@{min(site.signal_s, _MAX_SIGNAL_S)}",
    }
    return _merged(ours, site.options, key="cluster.options")


def _merged(
    ours: Mapping[str, OptionValue], site: Mapping[str, OptionValue], *, key: str, ticks: bool = False
) -> dict[str, str | int | float | bool]:
    theirs, wrong = canonical(site, key=key, ticks=ticks)
    if wrong:
        raise SpecError(*wrong)
    given = {name for name, value in theirs.items() if value is not None and value is not False}
    # The same in another form takes the place of ours.
    instead = {"gres": GPU_FORMS, "mem": ("mem-per-cpu", "mem-per-gpu")}
    dropped = {name for name, forms in instead.items() if not given.isdisjoint(forms)}
    merged = {**{name: value for name, value in ours.items() if name not in dropped}, **theirs}
    return {name: value for name, value in merged.items() if value is not None and value is not False}


def _log_pattern(folder: Path) -> str:
    """Slurm's file name pattern of the tasks' logs; only `%a` is to be replaced in it."""
    pattern = BatchLayout(folder).logs / "%a.log"
    # A backslash anywhere in the pattern makes Slurm replace nothing, and drop the backslash.
    if "\\" in str(folder):
        raise SpecError(f"{folder}: Slurm cannot write logs below a folder with a backslash in its name")
    return f"{str(pattern.parent).replace('%', '%%')}/{pattern.name}"


def tick_options(
    name: str,
    folder: Path,
    site: SlurmOptions,
    *,
    after: str = "",
    delay_s: float = 0.0,
    own_log: bool = False,
) -> dict[str, str | int | float | bool]:
    """Every sbatch option of a job that ticks: the site's partition and account, and next to nothing else.

    Args:
        name: The job name.
        folder: The results folder.
        site: What the sweep wants of Slurm.
        after: Job that has to end first.
        delay_s: It starts no earlier than so much later.
        own_log: It opens its log itself, and is told before its time limit; see `slurm_guard`.
    """
    log = "/dev/null" if own_log else _plain_path(Layout(folder).tick_log)
    ours: dict[str, OptionValue] = {
        "job-name": name,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": 1,
        "mem": f"{TICK_MIB}M",
        "time": TICK_MINUTES,
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "chdir": str(folder),
        "output": log,
        "error": log,
        "open-mode": "append",
        "requeue": True,
        "signal": f"B:USR1@{SIGNAL_S}" if own_log else None,
        "dependency": f"afterany:{after}" if after else None,
        "begin": f"now+{math.ceil(delay_s)}" if delay_s else None,
    }
    return _merged(ours, site.tick_options, key="cluster.tick_options", ticks=True)


def _plain_path(path: Path) -> str:
    """The path as Slurm's file name pattern, with nothing in it to be replaced."""
    return str(path).replace("%", "%%")


def header(options: Mapping[str, str | int | float | bool]) -> str:
    """The `#SBATCH` lines, one for each option, quoted the way sbatch reads them.

    Raises:
        SpecError: A value holds a line break.
    """
    lines = []
    for key, value in options.items():
        text = str(value)
        if "\n" in text or "\r" in text or "\0" in text:
            raise SpecError(f"cluster.options.{key}: must be one line, got {text!r}")
        lines.append(f"#SBATCH --{key}" if value is True else f"#SBATCH --{key}={_quote(text)}")
    return "\n".join(lines)


def _quote(text: str) -> str:
    """Quote for an `#SBATCH` line: unlike a shell, sbatch takes backslashes in single quotes too."""
    if text and _PLAIN.issuperset(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def exports(environment: Mapping[str, str]) -> str:
    """The export lines, values quoted for the shell: nothing in them is expanded.

    Raises:
        SpecError: A name is not a shell variable's.
    """
    wrong = [name for name in environment if not (name.isascii() and name.isidentifier())]
    if wrong:
        raise SpecError(*(f"cluster.environment.{name}: not a name of a variable" for name in wrong))
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())


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

    Args:
        lines: Of the spec; empty: nothing is to be done.
        failed: What the shell does where one fails; `$1` is the exit status, `$hpcsweep_line` the line.
    """
    if not lines:
        return ""
    return _SETUP.format(ours=OURS, failed=failed, lines="\n".join(lines))


def worker_command(
    python: str, folder: Path, *, import_from: Path | None = None, module: str = WORKER
) -> str:
    """The shell command of the worker, by which the script's shell becomes the worker.

    `-P`: no module in the folder where the script starts can take the place of one of Python's.

    Args:
        python: Absolute path of the interpreter.
        folder: The batch's folder.
        import_from: Folder that holds the package, where the interpreter does not find it itself. It does
            not go on PYTHONPATH, which training inherits: see `hpcsweep.bootstrap`.
        module: The worker's, or another one in its place.
    """
    other = "" if module == WORKER else f"--module {module} "
    return _module_command(python, f"{WORKER} {other}".strip(), folder, import_from=import_from)


def tick_command(python: str, folder: Path, *, import_from: Path | None = None) -> str:
    """The shell command of a job that ticks the sweep in this results folder."""
    return (
        f'{_module_command(python, "hpcsweep.tick", folder, import_from=import_from)} --job "$SLURM_JOB_ID"'
    )


def _module_command(python: str, module: str, folder: Path, *, import_from: Path | None) -> str:
    run = f"-m {module}"
    if import_from is not None:
        run = f"{shlex.quote(str(import_from / 'hpcsweep' / 'bootstrap.py'))} {module}"
    return f"exec {shlex.quote(python)} -P {run} {shlex.quote(str(folder))}"


# --------------------------------------------------------------------------- all together


def render(
    template: Template,
    batch: Batch,
    *,
    site: SlurmOptions,
    command: str,
    setup_failed: str = "exit 1",
    options: Mapping[str, str | int | float | bool] | None = None,
) -> str:
    """The script of the batch. Its length does not depend on the number of tasks.

    Args:
        template: The site's.
        batch: What the template may ask for.
        site: What the sweep wants of Slurm.
        command: What the script is to become.
        setup_failed: See `setup_lines`.
        options: sbatch options other than those of the batch.

    Raises:
        SpecError: The template is wrong; names file and line where Jinja knows it.
    """
    options = options or sbatch_options(batch, site)
    parts = {"header": header(options), "command": command}
    facts = {
        "environment": exports(site.environment),
        "setup": setup_lines(site.setup, failed=setup_failed),
        "name": batch.name,
        "folder": str(batch.folder),
        "tasks": batch.tasks,
        "throttle": batch.throttle,
        "gpus": batch.shape.gpus,
        "cpus": batch.shape.cpus,
        "mem_mib": batch.shape.mem_mib,
        "time_s": batch.shape.time_s,
        "runs": batch.shape.runs,
        "lanes": batch.shape.lanes,
        "options": options,
        **{key: getattr(site, key) for key in ("partition", "account", "qos", "constraint", "gpu_type")},
    }
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda _: (template.text, str(template.path), None)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    try:
        text = environment.get_template(template.path.name).render(**parts, **facts)
    except jinja2.TemplateSyntaxError as error:
        raise SpecError(f"{template.path}:{error.lineno}: {error.message}") from error
    except Exception as error:  # a template can call anything
        raise SpecError(f"{template.path}:{_line_of(error, template)}: {error}") from error
    _check(template, text, parts)
    return text


def _line_of(error: Exception, template: Template) -> int:
    """The template's line that raised; Jinja puts the template's own frames into the traceback."""
    line = 1
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(template.path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _check(template: Template, text: str, parts: Mapping[str, str]) -> None:
    """Refuse a script that sbatch would refuse, or whose options it would pass over in silence."""
    problems = [f"{template.path}:1: uses no {{{{ {k} }}}}" for k, v in parts.items() if v not in text]
    problems += _option_problems(template, text.replace(parts["header"], "#", 1))
    if not text.startswith("#!"):
        problems.append(f"{template.path}:1: sbatch wants #!/bin/bash or the like at the very start")
    if "\r" in text:
        problems.append(f"{template.path}:1: has DOS line ends, which sbatch refuses")
    before = text.partition(parts["header"])[0].splitlines() if parts["header"] in text else []
    if any(line.strip() and not line.lstrip().startswith("#") for line in before):
        problems.append(
            f"{template.path}:1: sbatch reads no options after a command: {{{{ header }}}} goes first"
        )
    if problems:
        raise SpecError(*problems)


def _option_problems(template: Template, text: str) -> Iterator[str]:
    """What is wrong with the `#SBATCH` lines of the template's own."""
    for line in script_lines(text):
        _, why = resolve(line.name, line.value)
        if why:
            yield f"{template.path}:{_number(template, line)}: {line.text.strip()}: {why}"
    for line_text in text.splitlines():
        if line_text.startswith(("#PBS", "#BSUB")):
            number = _number(template, Line(1, line_text, "", ""))
            yield f"{template.path}:{number}: sbatch reads {line_text.split()[0]} lines as well: remove it"


def _number(template: Template, line: Line) -> int:
    """Where the line stands in the template, 1 where it is made by it."""
    lines = [each.strip() for each in template.text.splitlines()]
    return lines.index(line.text.strip()) + 1 if line.text.strip() in lines else 1


def own_options(text: str) -> dict[str, OptionValue]:
    """All options of a rendered script, the last word of each, by their long names."""
    return {resolve(line.name, line.value)[0]: line.value for line in script_lines(text)}


def without_resources(text: str, header_text: str) -> str:
    """The script less the template's own lines by which a job that only ticks would hold what tasks hold."""
    before, found, after = text.partition(header_text)
    return "".join(_small(before)) + found + "".join(_small(after))


def _small(text: str) -> Iterator[str]:
    for line in text.splitlines(keepends=True):
        names = [resolve(each.name, each.value, ticks=True) for each in script_lines(line)]
        if not any(why for _, why in names):
            yield line
