"""Write Markdown tables, and JSON schemas in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from lungseg.system.files import FOLDER_NAME

PLURALS = {"whole number": "whole numbers", "number": "numbers", "text": "texts", "table": "tables"}
COUNTS = {1: "one", 2: "two", 3: "three"}
PATTERNS = {
    f"^{FOLDER_NAME}$": "text of 1 to 80 letters, digits, dots, hyphens and underscores",
    r"^\S(.{0,58}\S)?$": "text of 1 to 60 characters",
}


def make_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown. Cells are Markdown; their bars and line breaks are taken care of."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(
        f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in line)} |\n"
        for line in lines
    )


def link_sections(page: str) -> str:
    """Return a page with links to its sections of the second level above the first of them."""
    titles = re.findall(r"^## (.+)$", page, re.M)
    links = [
        f"[{title}](#{re.sub(r'[^a-z0-9_ -]', '', title.lower()).replace(' ', '-')})" for title in titles
    ]
    head, first, rest = page.partition("## ")
    return f"{head}On this page: {', '.join(links)}.\n\n{first}{rest}"


def quote(value: Any) -> str:
    """Return a value as TOML has it, as code; "–" for None."""
    return "–" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def describe_type(schema: dict[str, Any]) -> str:
    """Return in words what values a JSON schema of pydantic takes, such as "whole number from 1 to 8"."""
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(describe_type(choice) for choice in choices if choice.get("type") != "null")
    if "enum" in schema or "const" in schema:
        *first, last = [quote(value) for value in schema.get("enum", [schema.get("const")])]
        return f"{', '.join(first)} or {last}" if first else last
    if "$ref" in schema or schema["type"] == "object":
        return "table"
    if schema["type"] == "array":
        return _describe_list(schema)
    if schema["type"] in ("integer", "number"):
        return _describe_number(schema)
    if schema["type"] == "string":
        return PATTERNS.get(schema.get("pattern"), "text")
    return {"boolean": "`true` or `false`"}[schema["type"]]


def _describe_list(schema: dict[str, Any]) -> str:
    fixed = schema.get("prefixItems")
    words = describe_type(fixed[0] if fixed else schema["items"])
    for one, many in PLURALS.items():
        if words == one or words.startswith(f"{one} "):
            words = many + words.removeprefix(one)
            break
    else:
        return f"list, each {words}"
    count = f"{COUNTS[len(fixed)]} " if fixed else "one or more " if schema.get("minItems") else ""
    return f"list of {count}{words}"


def _describe_number(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if schema["type"] == "integer":
        low = above + 1 if above is not None else low
        high = below - 1 if below is not None else high
        above = below = None
    if low is not None and high is not None:
        limits = f" from {low:,} to {high:,}"
    else:
        parts = [
            ("of at least", low),
            ("above", above),
            ("up to" if above is not None else "of at most", high),
            ("below", below),
        ]
        limits = " and".join(f" {word} {value:,}" for word, value in parts if value is not None)
        limits = limits.replace(" and up to", " up to")
    return ("whole number" if schema["type"] == "integer" else "number") + limits
