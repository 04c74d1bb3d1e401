"""Section: where the results come from, and whether later launches ran something else."""

from __future__ import annotations

from hpcsweep.core.text import shell_join
from hpcsweep.html.sections import Block, KeyValues, Section, Table, Text
from hpcsweep.views.format import timestamp
from hpcsweep.views.provenance import changes, code_line
from hpcsweep.views.results import Results

#: So many differences are listed at the top.
MOST_LISTED = 12


def provenance(results: Results) -> Section | None:
    """The first launch, and how later ones differ from it; None where nothing is recorded."""
    records = results.provenance
    if not records:
        return None
    first = records[0]
    code = first["code"]
    rows = [
        ("Launched", f"{timestamp(first['at'])} by {first['user']} on {first['host']} in {first['cwd']}"),
        ("Code", code_line(first)),
        ("Folder", code["folder"]),
        ("Repository", code.get("remote", "")),
        ("Copied from", first.get("copied", "")),
        ("Uncommitted changes", f"provenance/{first['diff']}" if "diff" in first else ""),
        ("Python", f"{first['python']['version']}, {first['python']['executable']}"),
        ("Trials run by", first["python"].get("trials", "")),
        ("hpcsweep", first["hpcsweep"]),
        ("Packages", f"{len(first['packages'])}, see provenance/ in the results folder"),
        ("Spec", f"SHA-256 {first['spec_sha256']}"),
    ]
    blocks: list[Block] = []
    differences = list(dict.fromkeys(line for record in records for line in changes(first, record)))
    if differences:
        blocks.append(
            Text(
                "Later launches differ from the first: values of earlier and later runs may not be "
                f"comparable: {'; '.join(differences[:MOST_LISTED])}"
                + ("; and more, see below." if len(differences) > MOST_LISTED else "."),
                "warning",
            )
        )
    blocks += [KeyValues([row for row in rows if row[1]]), Text(shell_join(first["argv"]), "code")]
    if len(records) > 1:
        blocks.append(
            Table(
                ["Launched", "By", "Code", "Differs from the first in"],
                [
                    [
                        timestamp(record["at"]),
                        f"{record['user']} on {record['host']}",
                        code_line(record),
                        "; ".join(changes(first, record)),
                    ]
                    for record in records
                ],
                "Launches that differ from the one before in command line, spec, code or packages.",
            )
        )
    return Section("provenance", "Provenance", blocks)
