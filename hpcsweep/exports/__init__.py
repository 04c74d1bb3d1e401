"""From a results folder to files that other programs open: tables, TensorBoard, Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Export(NamedTuple):
    """A format that takes the whole sweep; see `tables` for the others.

    Attributes:
        writer: `module:function`, imported when it is used. The function takes `Results` and a path, and
            returns the number of trials that it wrote.
        target: Where it writes in the results folder, unless another place is given.
        opener: The command that opens it.
        needs: The package that it imports, which is also the name of our extra for it; empty if none.
        is_folder: Whether it writes a folder with several files.
    """

    writer: str
    target: str
    opener: str
    needs: str = ""
    is_folder: bool = False


EXPORTS: Final[Mapping[str, Export]] = {
    "tensorboard": Export(
        "hpcsweep.exports.tensorboard:write_tensorboard",
        "tensorboard",
        "tensorboard --logdir",
        needs="tensorboard",
        is_folder=True,
    ),
    "optuna": Export(
        "hpcsweep.exports.optuna:write_optuna", "optuna-journal.log", "optuna-dashboard", needs="optuna"
    ),
}
