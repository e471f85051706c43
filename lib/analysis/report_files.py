"""A field report as files: report.json, and tokens.csv with a line for each row of the matrix."""

import csv
import json
from pathlib import Path

from lib import files, foreign, progress
from lib.analysis.report import Report
from lib.extraction.reachability import Record

COLUMNS = ("id", "text", "bytes", "script", "class", "evidence", "witness", "norm", "distance",
           "hole", "population", "found")  # fmt: skip


def write(report: Report, folder: Path) -> None:
    """report.json and tokens.csv, a line for each row of the matrix, into `folder`."""
    text = json.dumps(report.summary(), ensure_ascii=False, indent=1, default=float)
    folder.mkdir(parents=True, exist_ok=True)
    data = text.encode("utf-8", "backslashreplace")  # half a surrogate as JSON spells it
    files.write_atomically(folder / "report.json", lambda path: path.write_bytes(data))
    files.write_atomically(folder / "tokens.csv", lambda path: _write_tokens(report, path))


def _write_tokens(report: Report, path: Path) -> None:
    dead, nothing = set(report.found.tolist()), Record(-1, None, b"", "", "")
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        sheet = csv.writer(file)
        sheet.writerow(COLUMNS)
        for id in progress.bar(range(report.specimen.rows), desc="tokens.csv"):
            record = report.records[id] if report.records else nothing
            rank, population = report.holes.get(id, ("", ""))
            measured = (report.norms, report.distances)
            numbers = ["" if known is None else f"{known[id]:.9g}" for known in measured]
            named = [
                foreign.in_sheet(record.text),
                record.bytes.hex(),
                record.script if record.text else "",
            ]
            why = [
                record.reach or "",
                foreign.in_sheet(record.evidence),
                foreign.in_sheet(record.witness or ""),
            ]
            sheet.writerow([id, *named, *why, *numbers, rank, population, int(id in dead)])
