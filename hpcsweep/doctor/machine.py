"""The machine that this runs on: its Python, its cores and its GPUs."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator

import hpcsweep
from hpcsweep.cluster.local.cluster import cpus_here, devices_here
from hpcsweep.doctor.findings import Finding, good, one_line, warning

#: A driver that hangs must not take us along.
SMI_S = 30.0


def python() -> Finding:
    """Interpreter and package."""
    return good("python", f"{platform.python_version()} at {sys.executable}, hpcsweep {hpcsweep.__version__}")


def machine() -> Iterator[Finding]:
    """Cores and GPUs that a sweep on this machine would use."""
    yield good("cores", str(cpus_here()))
    shown, problem = nvidia_gpus()
    devices = devices_here()
    if problem:
        yield warning("GPUs", f"nvidia-smi fails: {problem}", "see to the driver; a sweep would run on CPUs")
    elif shown and not devices:
        yield warning(
            "GPUs",
            f"nvidia-smi shows {len(shown)}, but neither CUDA_VISIBLE_DEVICES nor /proc/driver/nvidia does",
            f"export CUDA_VISIBLE_DEVICES={','.join(map(str, range(len(shown))))} before launch",
        )
    elif devices:
        yield good("GPUs", f"{len(devices)} ({', '.join(shown) or ','.join(devices)})")
    else:
        yield good("GPUs", "none; a sweep on this machine runs on CPUs")


def nvidia_gpus() -> tuple[list[str], str]:
    """The GPUs that nvidia-smi lists, and what it complains of; both empty where there is none."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SMI_S,
            check=False,
        )
    except FileNotFoundError:
        return [], ""
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], one_line(str(error))
    if done.returncode:
        return [], one_line(done.stderr or done.stdout) or f"exit status {done.returncode}"
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("GPU ")]
    # GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c1f...)
    return [line.partition(": ")[2].partition(" (UUID")[0] for line in lines], ""
