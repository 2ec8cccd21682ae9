"""The page of the campaign: a short table and a few sentences."""

from __future__ import annotations

from typing import Any

from lungseg.report.markup import Table, format_bullets, format_duration

WHAT = {
    "images": "Damaged PNG, JPEG, TIFF and BMP files of 48 to 96 pixels a side were read as image or mask.",
    "specs": "Specs with a changed value, key, table or letter were read and planned on a few phantoms; one "
    "in a hundred was given to the command line.",
    "states": "A finished results directory got one damaged file; then `report`, and on another copy "
    "`benchmark`, ran on it. Tables, models and maps had to be the undamaged ones, or one sentence said why "
    "not.",
    "kills": "Runs of all approaches, and `publish`, were ended by signals and started again, up to four "
    "times each; in the end every table had to have the bytes of an undisturbed run.",
}
SUMS = ("tried", "read", "refused", "tracebacks", "hangs", "silent", "noise")
HEADER = ["part", *SUMS, "slowest in s", "peak in MiB", "took"]


def write_summary(records: dict[str, dict[str, Any]]) -> str:
    """Write the page of the parts that are stored, by their names."""
    rows = [_make_row(part, record) for part, record in records.items()]
    table = Table(HEADER, rows).to_markdown()
    notes = [f"{part}: {WHAT[part]}" for part in records]
    notes += [
        "read: taken as sound, and the result passed all checks. refused: one sentence said why. tracebacks: "
        "any other error, or a refusal that isn't one line. hangs: no end within 10 s for a picture, 30 s "
        "for what computes, minutes for a command. silent: a result differed although nothing was said. "
        "noise: cases that wrote a further line to stderr.",
        "campaign.csv has a row for each kind of damage; failures.txt has each failure and what repeats it.",
    ]
    notes += sorted({_describe_run(part, record) for part, record in records.items()})
    failed = sum(len(record["failures"]) for record in records.values())
    tried = sum(row["tried"] for record in records.values() for row in record["rows"])
    verdict = f"{tried} cases, {failed or 'none'} of which failed."
    return f"# Does anything break it?\n\n{verdict}\n\n{table}\n{format_bullets(notes)}"


def _make_row(part: str, record: dict[str, Any]) -> list[str]:
    rows = record["rows"]
    sums = [str(sum(row[name] for row in rows)) for name in SUMS]
    slowest, peak = (max(row[name] for row in rows) for name in ("slowest_s", "peak_mib"))
    return [part, *sums, f"{slowest:.1f}", f"{peak:.0f}", format_duration(record["seconds"])]


def _describe_run(part: str, record: dict[str, Any]) -> str:
    used = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return f"{part}: seed {record['seed']}, scale {record['scale']:g}, on {record['machine']}, with {used}."
