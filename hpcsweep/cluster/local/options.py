"""What the spec says of this machine under `cluster:`."""

from __future__ import annotations

from hpcsweep.options import Hundreds, Section


class LocalSection(Section):
    """Keys of the local cluster under `cluster:`."""

    slots: Hundreds | None = None
    """Runs at a time on a machine without GPUs; by its cores if not given."""
