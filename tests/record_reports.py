"""Records anew what the reports of the kept folders show, after a report was changed on purpose.

    python -m tests.record_reports

Look at what `git diff` shows: everything in it must be what the change was for.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.make_folders import report_data, report_text
from tests.test_compatibility import FINISHED, FIXTURES, unpack


def main() -> None:
    for archive in FINISHED:
        recorded = FIXTURES / f"{archive}-report.json"
        with tempfile.TemporaryDirectory() as folder:
            shown = report_data(unpack(Path(folder), archive))
        if shown != json.loads(recorded.read_text()):
            recorded.write_text(report_text(shown))
            print(f"changed: {recorded}")


if __name__ == "__main__":
    main()
