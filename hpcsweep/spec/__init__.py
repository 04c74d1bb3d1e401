"""Reads sweep.yaml into a frozen, validated `SweepSpec`; reports every problem at once."""

from hpcsweep.spec.load import load_spec, read_spec
from hpcsweep.spec.schema import json_schema
from hpcsweep.spec.sweep import Change, SweepSpec, changes, difference

__all__ = ["Change", "SweepSpec", "changes", "difference", "json_schema", "load_spec", "read_spec"]
