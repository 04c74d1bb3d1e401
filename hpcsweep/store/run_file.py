"""`run.json`, named by `HPCSWEEP_RUN`: what the worker tells the training process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from hpcsweep.errors import HpcsweepError
from hpcsweep.store.versions import decode, version_field


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that training code may want to know.

    Attributes:
        start: Step of the checkpoint in `resume_from`, 0 from scratch.
        checkpoint_dir: Working folder; its content at the end becomes a checkpoint.
        stop_file: Exists once training should checkpoint and leave.
        trial_folder: Of the results folder; contains `metrics_file`.
        metric: The objective.
    """

    trial: int
    rung: int
    bracket: int
    resource: int
    attempt: int
    restart: int
    seed: int
    config: dict[str, Any]
    start: int
    resume_from: str | None
    checkpoint_dir: str
    stop_file: str
    trial_folder: str
    metrics_file: str
    metric: str
    keep_checkpoints: int = 1
    keep_steps: tuple[int, ...] = ()
    version: int = version_field()

    @property
    def owner(self) -> str:
        """Names this attempt in file names."""
        return f"{self.rung}-{self.attempt}-{self.restart}"


_decoder = msgspec.json.Decoder(RunFile)


def read_run_file(path: str) -> RunFile:
    """Read the file that `HPCSWEEP_RUN` names.

    Raises:
        HpcsweepError: It is missing or damaged.
    """
    try:
        return _decode_paths(decode(Path(path).read_bytes(), _decoder, path))
    except (OSError, msgspec.MsgspecError) as error:
        raise HpcsweepError(
            f"HPCSWEEP_RUN={path}: cannot be read ({error}). It is there while a sweep runs this trial; "
            "to run the script by hand, unset HPCSWEEP_RUN"
        ) from error


def _decode_paths(run: RunFile) -> RunFile:
    """Paths as this process can open them: they differ in a locale without UTF-8."""
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8"):
        return run
    keys = ("resume_from", "checkpoint_dir", "stop_file", "trial_folder", "metrics_file")
    paths = {key: text for key in keys if (text := getattr(run, key)) is not None}
    return msgspec.structs.replace(run, **{key: os.fsdecode(text.encode()) for key, text in paths.items()})
