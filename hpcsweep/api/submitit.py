"""Submitit's parameter names, with their meaning, as sections of a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

from hpcsweep.core.text import format_value, suggest_name
from hpcsweep.errors import SpecError


class SubmititParameters(TypedDict, total=False):
    """What `executor.update_parameters` of submitit takes, for `Sweep(..., timeout_min=60, ...)`."""

    timeout_min: int
    mem_gb: float
    gpus_per_node: int | str
    cpus_per_task: int
    nodes: int
    tasks_per_node: int
    stderr_to_stdout: bool
    slurm_partition: str
    slurm_account: str
    slurm_qos: str
    slurm_constraint: str
    slurm_nodelist: str
    slurm_exclude: str
    slurm_exclusive: bool | str
    slurm_comment: str
    slurm_job_name: str
    slurm_time: int | str
    slurm_mem: str
    slurm_mem_per_cpu: str
    slurm_mem_per_gpu: str
    slurm_gres: str
    slurm_gpus_per_node: int | str
    slurm_gpus_per_task: int | str
    slurm_num_gpus: int
    slurm_cpus_per_task: int
    slurm_nodes: int
    slurm_ntasks_per_node: int
    slurm_array_parallelism: int
    slurm_max_num_timeout: int
    slurm_signal_delay_s: int
    slurm_setup: Sequence[str]
    slurm_python: str
    slurm_use_srun: bool
    slurm_stderr_to_stdout: bool
    slurm_mail_type: str
    slurm_mail_user: str
    slurm_additional_parameters: Mapping[str, Any]


#: Name -> the key of the spec with the same meaning and value.
_SAME: Final[Mapping[str, str]] = {
    "cpus_per_task": "resources.cpus",
    "slurm_cpus_per_task": "resources.cpus",
    "nodes": "resources.nodes",
    "slurm_nodes": "resources.nodes",
    "slurm_num_gpus": "resources.gpus",
    "slurm_mem": "resources.mem",
    "slurm_partition": "cluster.partition",
    "slurm_account": "cluster.account",
    "slurm_qos": "cluster.qos",
    "slurm_constraint": "cluster.constraint",
    "slurm_nodelist": "cluster.nodelist",
    "slurm_exclude": "cluster.exclude",
    "slurm_array_parallelism": "cluster.max_tasks",
    "slurm_signal_delay_s": "cluster.signal",
    "slurm_setup": "cluster.setup",
    "slurm_python": "cluster.python",
    "slurm_max_num_timeout": "retries.timeouts",
    "slurm_job_name": "name",
}
#: Those that are sbatch options with us.
_OPTIONS: Final = ("exclusive", "comment", "mem_per_cpu", "mem_per_gpu", "mail_type", "mail_user")
#: `resources.cpus` is that of a node, `cpus_per_task` that of each of these.
_ONE: Final = ("tasks_per_node", "slurm_ntasks_per_node")
_GPUS: Final = ("gpus_per_node", "slurm_gpus_per_node", "slurm_gpus_per_task", "slurm_gres")


def submitit_sections(parameters: Mapping[str, Any], *, others: Sequence[str] = ()) -> dict[str, Any]:
    """The parameters as data of a spec: `resources`, `cluster`, `retries` and `name`.

    Args:
        parameters: By name.
        others: Names of parameters that are not submitit's, for the message about an unknown one.

    Raises:
        SpecError: A name is unknown, a value makes no sense here, or two say the same key.
    """
    sections: dict[str, Any] = {}
    origin: dict[str, str] = {}
    problems: list[str] = []
    for name, value in parameters.items():
        try:
            found = dict(_translated(name, value, others))
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        for key, meaning in found.items():
            if key in origin:
                problems.append(f"{name}: means {key}, as {origin[key]} does: give one of the two")
            origin[key] = name
            _put(sections, key, meaning)
    if problems:
        raise SpecError(*problems)
    return sections


def _put(sections: dict[str, Any], key: str, value: Any) -> None:
    *outer, last = key.split(".", 2)
    for part in outer:
        sections = sections.setdefault(part, {})
    sections[last] = value


def _translated(name: str, value: Any, others: Sequence[str]) -> Mapping[str, Any]:
    """Key path -> value; ValueError if the parameter has no meaning here."""
    option = name.removeprefix("slurm_")
    if name in _SAME:
        return {_SAME[name]: list(value) if isinstance(value, tuple) else value}
    if name in ("timeout_min", "slurm_time"):
        return {"resources.time": f"{value}m" if isinstance(value, int) else value}
    if name == "mem_gb":
        return {"resources.mem": f"{value:g}G"}
    if name in _GPUS:
        return _gpus(value)
    if name.startswith("slurm_") and option in _OPTIONS:
        return {f"cluster.options.{option.replace('_', '-')}": value}
    if name == "slurm_additional_parameters":
        return {f"cluster.options.{key.replace('_', '-')}": item for key, item in dict(value).items()}
    if name in _ONE:
        if value != 1:
            raise ValueError(f"must be 1, got {format_value(value)}: see train.launcher")
        return {}
    if name == "slurm_use_srun":
        if value:
            raise ValueError("must be false: a run is a child of its task; call srun in its command")
        return {}
    if option == "stderr_to_stdout":
        return {}  # it always goes there
    raise ValueError(suggest_name(name, [*others, *SubmititParameters.__annotations__], kind="parameter"))


def _gpus(value: int | str) -> Mapping[str, Any]:
    """Number and type of `2`, `a100:2` and `gpu:a100:2`."""
    *kind, count = str(value).removeprefix("gpu:").split(":")
    if len(kind) > 1 or not count.isdecimal():
        raise ValueError(f"must be a number of GPUs such as 2 or 'a100:2', got {format_value(value)}")
    return {"resources.gpus": int(count), **({"cluster.gpu_type": kind[0]} if kind else {})}
