"""What was launched, as the results folder records it, and in what later launches differ from the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hpcsweep.core.text import mask_arguments
from hpcsweep.store.layout import Layout
from hpcsweep.store.provenance import Record, list_records

#: Packages whose change is named; of more only the number.
NAMED: Final = 5


def read_provenance(layout: Layout) -> list[dict[str, Any]]:
    """The records of `launch`, oldest first; empty for a sweep of an earlier version."""
    records = (record for _, record in list_records(layout))
    # Those of earlier versions hold the command line as it was.
    clean = (msgspec.structs.replace(record, argv=mask_arguments(record.argv)) for record in records)
    return [msgspec.to_builtins(record) for record in clean]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences in code and packages from an old record to a new one; empty if no known difference."""
    before, after = (msgspec.convert(record, Record) for record in (old, new))
    lines = []
    if not after.copied:  # else what runs is the copy, whatever the original has become
        one, other = before.code, after.code
        if one.commit and other.commit and one.commit != other.commit:
            lines.append(f"commit {one.commit[:10]} -> {other.commit[:10]}")
        elif one.commit == other.commit and one.diff_sha256 != other.diff_sha256:
            lines.append("uncommitted changes")
        same = before.files.keys() & after.files.keys()
        lines += [f"{path} changed" for path in sorted(same) if before.files[path] != after.files[path]]
    one_python, other_python = before.python, after.python
    if one_python.version != other_python.version:
        lines.append(f"Python {one_python.version} -> {other_python.version}")
    if one_python.trials != other_python.trials:
        names = (python.trials or "the same" for python in (one_python, other_python))
        lines.append(f"interpreter of trials: {' -> '.join(names)}")
    if before.hpcsweep != after.hpcsweep:
        lines.append(f"hpcsweep {before.hpcsweep} -> {after.hpcsweep}")
    return lines + _packages(before.packages, after.packages)


def code_line(record: Mapping[str, Any]) -> str:
    """For example `commit 1a2b3c4d5e on main, with uncommitted changes`."""
    code = msgspec.convert(record, Record).code
    if not code.commit:
        return code.problem or "unknown"
    branch = f" on {code.branch}" if code.branch else ""
    dirty = ", with uncommitted changes" if code.dirty else ""
    return f"commit {code.commit[:10]}{branch}{dirty}" + (f" ({code.problem})" if code.problem else "")


def _packages(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    names = sorted(before.keys() | after.keys(), key=str.lower)
    changed = [
        f"{name} {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in names
        if before.get(name) != after.get(name)
    ]
    more = [f"{len(changed) - NAMED} more packages"] if len(changed) > NAMED else []
    return changed[:NAMED] + more
