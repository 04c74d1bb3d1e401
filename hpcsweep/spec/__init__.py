"""sweep.yaml -> SweepSpec, frozen and validated; every problem is told at once."""

from hpcsweep.spec.extension import Change, changes
from hpcsweep.spec.identity import difference
from hpcsweep.spec.load import load_spec
from hpcsweep.spec.schema import json_schema
from hpcsweep.spec.sweep import SweepSpec

__all__ = ["Change", "SweepSpec", "changes", "difference", "json_schema", "load_spec"]
