"""The cores and NVIDIA GPUs of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hpcsweep.core.findings import Finding, good, one_line, warning

#: A driver that hangs must not take us along.
SMI_S = 30.0


def local_gpus() -> list[str]:
    """Names of this machine's NVIDIA GPUs as CUDA_VISIBLE_DEVICES takes them; empty if none."""
    inherited = os.environ.get("CUDA_VISIBLE_DEVICES")
    if inherited is not None:
        return [name.strip() for name in inherited.split(",") if name.strip() not in ("", "-1")]
    proc = Path("/proc/driver/nvidia/gpus")
    try:
        return [str(index) for index in range(len(os.listdir(proc)))]
    except OSError:
        return []


def local_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def device_findings() -> Iterator[Finding]:
    """Cores and GPUs that a sweep on this machine would use."""
    yield good("cores", str(local_cpus()))
    shown, problem = nvidia_gpus()
    devices = local_gpus()
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
