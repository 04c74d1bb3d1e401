"""What the spec says of PBS under `cluster:`."""

from __future__ import annotations

from pydantic import Field

from hpcsweep.options import Section, Text, Texts


class PbsSection(Section):
    """Keys of PBS under `cluster:`."""

    queue: Text | None = None
    """The queue of PBS."""
    project: Text | None = None
    """The project that PBS charges."""
    account: Text | None = None
    """The account that is charged."""
    directives: Texts | None = None
    """Further qsub options for PBS, one directive each, such as `-l place=excl`."""
    template: Text | None = Field(default=None, json_schema_extra={"format": "path"})
    """The template of job scripts: a file, or one that comes with hpcsweep; default.pbs under PBS."""
