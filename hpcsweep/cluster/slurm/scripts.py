"""The scripts of a sweep on Slurm: of its tasks, and of the small jobs that tick it."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Final

from hpcsweep.cluster.script import (
    WORKER,
    check_length,
    module_command,
    package_folder,
    read_template,
    worker_command,
)
from hpcsweep.cluster.slurm.options import DEFAULT_TEMPLATE, OptionValue, SlurmOptions
from hpcsweep.cluster.slurm.sbatch_options import canonical
from hpcsweep.cluster.slurm.template import header, own_options, render, tick_options, without_resources
from hpcsweep.cluster.slurm.tick_resubmission import add_resubmission
from hpcsweep.core.cluster_protocol import Batch, TaskResources
from hpcsweep.store.layout import Layout

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

    def asked(self, shape: TaskResources) -> dict[str, OptionValue]:
        """Every sbatch option of such a task by its long name, those of the template with them."""
        return own_options(self.render(example_batch(shape), self._options))

    def source_of(self, option: str) -> str:
        """The place at which the user gives this option."""
        mine = canonical(self._options.options, key="cluster.options").values
        return f"cluster.options.{option}" if option in mine else f"{self.template.path}: --{option}"

    def render(self, batch: Batch, site: SlurmOptions) -> str:
        command = worker_command(
            site.python,
            batch.folder,
            launcher=LAUNCHER,
            import_from=self._import_from,
            module=site.module,
        )
        failed = "exit 1"
        if site.module == WORKER:
            failed = f'{command} --setup-failed "$1" "$hpcsweep_line"'
        text = render(self.template, batch, site=site, command=command, setup_failed=failed)
        check_length(self.template, text)
        return text

    def tick_script(
        self, name: str, folder: Path, *, after: str = "", delay_s: float = 0.0, own_log: bool = False
    ) -> str:
        """The script of such a job; writes nothing.

        Args:
            name: The job name.
            folder: The results folder.
            after: Job that has to end first.
            delay_s: It starts no earlier than so much later.
            own_log: It opens its log itself.
        """
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
