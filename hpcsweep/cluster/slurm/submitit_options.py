"""Options that submitit knows and sbatch does not: people bring them along. Pure."""

from __future__ import annotations

import submitit

from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.errors import SpecError


def refuse_submitit_options(options: SlurmOptions) -> None:
    """Refuse options that only submitit knows: people bring them along, and sbatch would not."""
    ours = {
        "setup": "cluster.setup",
        "array_parallelism": "cluster.max_gpus",
        "signal_delay_s": "cluster.signal",
        "num_gpus": "resources.gpus",
    }
    beyond_sbatch = {"teardown", "stderr_to_stdout", "additional_parameters", "srun_args", "use_srun", *ours}
    names = submitit.SlurmExecutor._valid_parameters() & beyond_sbatch
    wrong = [key for key in options.options if key.lstrip("-").replace("-", "_") in names]
    hints = {key: f"; here it is {name}" for key, name in ours.items()}
    if wrong:
        raise SpecError(
            *(
                f"cluster.options.{key}: a word of submitit, not of sbatch{hints.get(key, '')}"
                for key in wrong
            )
        )
