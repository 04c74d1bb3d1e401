"""The sbatch scripts of a sweep: their options, and the site's template with them."""

from __future__ import annotations

import math
import shutil
import string
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from hpcsweep.cluster.script import (
    WORKER,
    Template,
    exports,
    module_command,
    package_folder,
    read_template,
    render_template,
    script_problems,
)
from hpcsweep.cluster.setup_lines import setup_lines
from hpcsweep.cluster.slurm.options import (
    DEFAULT_TEMPLATE,
    GPU_FORMS,
    OptionLine,
    OptionValue,
    SlurmOptions,
    canonical,
    resolve,
    script_lines,
)
from hpcsweep.cluster.slurm.tick_resubmission import SIGNAL_S, add_resubmission
from hpcsweep.core.cluster_protocol import Batch, TaskResources
from hpcsweep.errors import SpecError
from hpcsweep.store.layout import BatchLayout, Layout

#: What a task's script becomes.
LAUNCHER: Final = "hpcsweep.cluster.slurm.task"


class SlurmScripts:
    """Renders the site's template.

    Raises:
        SpecError: There is no such template, or it is wrong.
    """

    def __init__(self, options: SlurmOptions) -> None:
        self._options = options
        self.template = read_template(
            options.template or DEFAULT_TEMPLATE, spec_dir=options.spec_dir, suffix=".sbatch"
        )

    @cached_property
    def _import_from(self) -> Path | None:
        return package_folder(self._options.python)

    def task_options(self, shape: TaskResources) -> dict[str, OptionValue]:
        """Every sbatch option of such a task by its long name, those of the template with them."""
        return own_options(self.render(example_batch(shape), self._options))

    def source_of(self, option: str) -> str:
        """The place at which the user gives this option."""
        mine = canonical(self._options.options, key="cluster.options").values
        return f"cluster.options.{option}" if option in mine else f"{self.template.path}: --{option}"

    def render(self, batch: Batch, site: SlurmOptions) -> str:
        launcher = LAUNCHER if site.module == WORKER else f"{LAUNCHER} --module {site.module}"
        command = module_command(site.python, launcher, batch.folder, import_from=self._import_from)
        failed = "exit 1"
        if site.module == WORKER:
            failed = f'{command} --setup-failed "$1" "$hpcsweep_line"'
        return render(self.template, batch, site=site, command=command, setup_failed=failed)

    def tick_script(
        self, name: str, folder: Path, *, after: str = "", delay_s: float = 0.0, own_log: bool = False
    ) -> str:
        """The script of such a job; writes nothing."""
        options = tick_options(name, folder, self._options, after=after, delay_s=delay_s, own_log=own_log)
        tick = module_command(self._options.python, "hpcsweep.tick", folder, import_from=self._import_from)
        command = f'{tick} --job "$SLURM_JOB_ID"'
        batch = Batch(name=name, folder=folder, tasks=1, throttle=1, shape=TaskResources())
        # It needs nothing of the set-up, and without it nobody would drive the sweep.
        text = render(
            self.template, batch, site=self._options, command=command, setup_failed="return", options=options
        )
        return without_resources(text, header(options))

    def resubmitting_tick_script(
        self, name: str, folder: Path, *, after: str = "", delay_s: float = 0.0, drop: frozenset[str]
    ) -> str:
        """The script of a job that ticks: one that fails is followed by one that looks again."""
        # Where Slurm cannot open a job's log the job never starts: it opens ours itself.
        script = self.tick_script(name, folder, after=after, delay_s=delay_s, own_log=True)
        logs = {"output", "error"} & {key.lstrip("-") for key in self._options.tick_options}
        log = None if logs else Layout(folder).tick_log
        programs_folder = str(Path(shutil.which("sbatch") or "/usr/bin/sbatch").parent)
        return add_resubmission(script, folder=folder, log=log, programs=programs_folder, unset=drop)


def example_batch(shape: TaskResources) -> Batch:
    """A batch of one task, by which a script is tried out."""
    return Batch(name="check", folder=Path("/check"), tasks=1, throttle=1, shape=shape)


#: `--signal` takes 16 bits.
_MAX_SIGNAL_S: Final = 65535
#: What a job that ticks asks for: it replays a journal and calls sbatch, then ends.
TICK_MIB: Final = 1024
TICK_MINUTES: Final = 15
_PLAIN: Final = frozenset(f"{string.ascii_letters}{string.digits}_./:,=@%+*-")


def sbatch_options(batch: Batch, site: SlurmOptions) -> dict[str, str | int | float | bool]:
    """Every sbatch option of the batch by its long name, the site's own having the last word."""
    shape = batch.shape
    gpu = "gpu" if site.gpu_type is None else f"gpu:{site.gpu_type}"
    ours: dict[str, OptionValue] = {
        "job-name": batch.name,
        # Found by it where a site renames jobs and `chdir` is shared.
        "comment": batch.name,
        "array": f"0-{batch.tasks - 1}%{max(1, batch.throttle)}",
        "nodes": shape.nodes,
        "ntasks": shape.nodes,
        "ntasks-per-node": 1 if shape.nodes > 1 else None,
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
    """Every sbatch option of a job that ticks: the site's partition and account, and next to nothing else."""
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
    """The `#SBATCH` lines, one for each option, quoted the way sbatch reads them."""
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


def render(
    template: Template,
    batch: Batch,
    *,
    site: SlurmOptions,
    command: str,
    setup_failed: str = "exit 1",
    options: Mapping[str, str | int | float | bool] | None = None,
) -> str:
    """The script of the batch. Its length does not depend on the number of tasks."""
    options = options or sbatch_options(batch, site)
    lines = header(options)
    text = render_template(
        template,
        batch,
        header=lines,
        command=command,
        setup=setup_lines(site.setup, failed=setup_failed),
        environment=exports(site.environment),
        options=options,
        **{key: getattr(site, key) for key in ("partition", "account", "qos", "constraint", "gpu_type")},
    )
    problems = script_problems(template, text, header=lines, command=command, program="sbatch")
    problems += _option_problems(template, text.replace(lines, "#", 1))
    if problems:
        raise SpecError(*problems)
    return text


def _option_problems(template: Template, text: str) -> Iterator[str]:
    """What is wrong with the `#SBATCH` lines of the template's own."""
    for line in script_lines(text):
        _, why = resolve(line.name, line.value)
        if why:
            yield f"{template.path}:{_number(template, line)}: {line.text.strip()}: {why}"
    for line_text in text.splitlines():
        if line_text.startswith(("#PBS", "#BSUB")):
            number = _number(template, OptionLine(1, line_text, "", ""))
            yield f"{template.path}:{number}: sbatch reads {line_text.split()[0]} lines as well: remove it"


def _number(template: Template, line: OptionLine) -> int:
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
