"""The tables of a sweep as CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    import pandas as pd

    from hpcsweep.views.results import Results

TABLES: Final = ("trials", "runs", "metrics", "attempts")
#: How a cell begins that spreadsheets take for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
FORMATS: Final = ("csv", "json", "parquet")

#: Whole numbers that a trial, run or attempt may be without.
_WHOLE: Final = frozenset({"parent", "front", "resource", "start_resource", "start"})


def table(results: Results, name: str) -> pd.DataFrame:
    """One of `TABLES`; a column of whole numbers stays one where some rows have none.

    Those of a simulated sweep say so in each row, for a file is passed on without its folder.
    """
    frame: pd.DataFrame = getattr(results, name)
    whole = _WHOLE | {column for column in frame.columns if _is_whole(results, column)}
    gaps = [c for c in frame.columns if c in whole and frame[c].dtype != int and frame[c].notna().any()]
    frame = frame.astype(dict.fromkeys(gaps, "Int64"))
    return frame.assign(simulated=True) if results.simulated else frame


def _is_whole(results: Results, column: str) -> bool:
    """Whether all values of a parameter are whole numbers."""
    prefix, _, name = column.partition("config.")
    if prefix or not name:
        return False
    given = (t.config[name] for t in results.folder.state.trials if name in t.config)
    return all(type(value) is int for value in given)


def encoded(frame: pd.DataFrame, format_: str) -> bytes:
    """The bytes of a file in one of `FORMATS`.

    Lists and mappings are JSON text in CSV and Parquet, which have none. JSON has neither NaN nor
    infinities: they are null, as what is missing; the others keep the infinities.
    """
    match format_:
        case "csv":
            return _csv(_without_formulas(_flat(frame, mixed=True)))
        case "json":
            rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
            return msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n"
        case "parquet":
            buffer = io.BytesIO()
            _flat(frame, mixed=False).to_parquet(buffer, index=False)
            return buffer.getvalue()
        case _:
            raise ValueError(f"no format {format_!r}; there are {', '.join(FORMATS)}")


def _flat(frame: pd.DataFrame, *, mixed: bool) -> pd.DataFrame:
    """Lists and mappings as JSON text; unless `mixed`, so are columns with values of several types."""
    frame = frame.copy()
    for name in frame.columns:
        if frame[name].dtype != object:
            continue
        kinds = {type(value) for value in frame[name] if not _missing(value)}
        if kinds & {list, dict} or (len(kinds) > 1 and not mixed):
            frame[name] = [
                value if mixed and not isinstance(value, list | dict) else _text(value)
                for value in frame[name]
            ]
    return frame


def _csv(frame: pd.DataFrame) -> bytes:
    """Comma-separated lines; texts are all in quotes where one holds what would end a line else."""
    texts = (value for name in frame.columns for value in frame[name] if isinstance(value, str))
    quoted = any("\r" in text for text in texts)
    data: bytes = frame.to_csv(
        index=False, quoting=csv.QUOTE_NONNUMERIC if quoted else csv.QUOTE_MINIMAL
    ).encode()
    return data


def _without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay."""
    frame = frame.rename(columns=_plain)
    for name in frame.columns:
        if frame[name].dtype != object and str(frame[name].dtype) not in ("str", "string"):
            continue
        frame[name] = [_plain(value) for value in frame[name]]
    return frame


def _plain(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _text(value: Any) -> str | None:
    return None if _missing(value) else msgspec.json.encode(value).decode()


def _missing(value: Any) -> bool:
    return value is None or value != value
