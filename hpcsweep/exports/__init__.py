"""From a results folder to files that other programs open: tables, TensorBoard, Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Export(NamedTuple):
    """A format that takes the whole sweep; see `tables` for the others.

    The writer is `module:function`, imported when it is used. The function takes `Results` and a path, and
    returns the number of trials that it wrote.
    """

    writer: str
    target: str  # where it writes in the results folder, unless another place is given
    opener: str  # the command that opens it
    needs: str = ""  # the package that it imports, which is also the name of our extra for it
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
