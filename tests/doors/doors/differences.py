"""The table of the cases that come to something else through Postfix."""

import re
from dataclasses import dataclass
from pathlib import Path

DOORS = ("milter", "policy")
# a reply with class, stage and code, or one of the sentences of a case that came to no reply
INSTEAD = re.compile(r"(accept|defer|reject) (connect|helo|mail|rcpt|data|eod) [2-5]\d\d\b.*|close [a-z]+|step \d+\b.*"
                     r"|nothing instead of: .+|beside the replies: .+")


class BadTable(Exception):
    """A line of the table can't be read; the text says which."""


@dataclass(frozen=True)
class Row:
    case: str
    door: str
    instead: str  # how what comes begins
    reason: str


def load(path: Path) -> dict[tuple[str, str], Row]:
    """The rows by case and door."""
    rows: dict[tuple[str, str], Row] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("|") or line.startswith(("| case ", "| ---")):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        row = Row(*cells) if len(cells) == 4 else None
        if row is None or not row.reason or row.door not in DOORS or not INSTEAD.fullmatch(row.instead):
            raise BadTable(f"{path}:{number}: not a row | case | {' or '.join(DOORS)} | what comes | reason |: {line}")
        if (row.case, row.door) in rows:
            raise BadTable(f"{path}:{number}: {row.case} stands twice for {row.door}")
        rows[row.case, row.door] = row
    return rows


def problem(row: Row | None, came: str) -> str:
    """What is wrong with what came instead of the verdict of the SMTP door; `came` is empty if it is the same."""
    if row is None:
        return f"differs: {came}" if came else ""
    if not came:
        return f"is the same now: take its row off ({row.instead})"
    return "" if came.startswith(row.instead) else f"differs in another way: expected {row.instead!r}, got {came}"
