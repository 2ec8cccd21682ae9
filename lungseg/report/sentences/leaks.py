"""Say what the leak audit compared and found."""

from __future__ import annotations

from collections.abc import Sequence

from lungseg.report.contents import Contents
from lungseg.report.markup import format_count

SHOWN = 5  # leaks that are named


def warn_of_leaks(contents: Contents) -> str:
    """Return the line below every table of a run that went on with leaks; "" without leaks."""
    found = contents.run["leaks"]
    if not found:
        return ""
    pairs = "1 pair of images is" if len(found) == 1 else f"{len(found):,} pairs of images are"
    return f"Leaks allowed: {pairs} on two sides of the split, so scores may be too good."


def warn_of_lookalikes(contents: Contents) -> str:
    """Return a sentence on pairs that may show one person on two sides of the split; "" without any."""
    found = contents.run["audit"]["lookalikes"]
    if not found:
        return ""
    return (
        f"{format_count(len(found), 'pair')} across the split may show one person under two names. Please "
        f"check: {_join_first(found)}."
    )


def describe_audit(contents: Contents) -> str:
    """Return what the leak audit compared and found."""
    audit, found = contents.run["audit"], contents.run["leaks"]
    if not audit["checked"]:
        trained = any(split["train"] for split in contents.run["splits"])
        why = "none was made, so training images may be among those scored"
        return f"Leak audit: {why if trained else 'nothing was trained, so nothing could leak'}"
    result = "none on two sides"
    if found:
        result = f"{format_count(len(found), 'pair')} on two sides: {_join_first(found)}"
    checked = f"{format_count(audit['checked'], 'image')} compared ({', '.join(audit['kinds'])})"
    parts = [f"Leak audit: {checked}, {result}"]
    if audit["twins"]:
        parts.append(f"{format_count(audit['twins'], 'pair')} of duplicates in all")
    if "near-duplicate" not in audit["kinds"]:
        parts.append("near-duplicates are looked for among real X-rays alone")
    if audit["uncompared"]:
        parts.append(f"{audit['uncompared']:,} too small, blank or blurred to look for near-duplicates of")
    return "; ".join(parts)


def _join_first(sentences: Sequence[str]) -> str:
    more = [f"and {len(sentences) - SHOWN} more in run.json"] if len(sentences) > SHOWN else []
    return "; ".join([*sentences[:SHOWN], *more])
