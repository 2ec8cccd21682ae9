"""Write report.html: verdict, tables, plots and cases in one file that opens without a network."""

from __future__ import annotations

import base64
import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from lungseg.report.contents import Contents
from lungseg.report.figures.captions import CAPTIONS
from lungseg.report.figures.style import AGREES, DPI, FALSE, MISSED, assign_colours
from lungseg.report.findings import Findings
from lungseg.report.markup import EMPTY, format_amount, format_duration, format_interval, format_score
from lungseg.report.page.cases import collect_cases
from lungseg.report.page.colours import fit_to_paper
from lungseg.report.page.plots import place_images, place_scatter
from lungseg.report.sentences.conclusions import conclude
from lungseg.report.sentences.images import describe_images
from lungseg.report.sentences.leaks import describe_audit
from lungseg.report.sentences.provenance import list_provenance
from lungseg.system.files import write_atomically

NAME = "report.html"
DRAWN = ("accuracy-time", "dice")  # figures that the page draws itself
_DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
PIXELS_AN_INCH = 120  # of a figure's size in print


def write_page(findings: Findings) -> Path:
    """Write report.html into a results directory; return its path.

    It shows the X-rays that are stored in the directory, so only `publish` makes one that may be published.
    Raises InputError if a stored picture is damaged, or the page can't be written.
    """
    path = findings.contents.directory / NAME
    page = make_environment().get_template("report.html").render(_collect(findings, path))
    write_atomically(path, page)
    return path


@cache
def make_environment() -> Environment:
    """Make what fills the templates of this folder; a name that a template lacks is an error."""
    return Environment(
        loader=PackageLoader("lungseg.report.page", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _collect(findings: Findings, path: Path) -> dict[str, Any]:
    """Collect what the template shows; `path` is the page that it replaces, if there is one."""
    contents, frame = findings.contents, findings.frame
    images, cases = place_images(contents), collect_cases(contents) or _keep_cases(contents, path)
    data = {
        "finished": contents.run["finished"],
        "images": images and {key: images[key] for key in ("ids", "values", "sources")},
        "cases": cases,
        "baselines": sorted(contents.baselines),
    }
    return {
        "findings": findings,
        "run": contents.run,
        "subtitle": describe_images(contents),
        "rows": _make_rows(frame),
        "unit": frame["distance_unit"].iloc[0] if len(frame) else "px",
        "colours": _choose_colours(contents),
        "slots": {name: place for place, name in enumerate(contents.names)},
        "scatter": place_scatter(frame),
        "images": images,
        "cases": cases,
        "areas": {"right": AGREES, "too much": FALSE, "missed": MISSED},
        "figures": _read_figures(contents),
        "conclusions": [conclude(comparison) for comparison in findings.comparisons],
        "audit": describe_audit(contents),
        "provenance": list_provenance(contents),
        "data": _embed_json(data),
        "style": read_template("style.css"),
        "script": read_template("report.js"),
        "empty": EMPTY,
    }


def _keep_cases(contents: Contents, path: Path) -> dict[str, Any] | None:
    """Return the cases of the page that is replaced, if it is of this run and of generated images.

    A published result of phantoms has its pictures in the page alone.
    """
    if contents.shows_people or not path.exists():
        return None
    found = _DATA.search(path.read_text(encoding="utf-8"))
    data = json.loads(found[1]) if found else {}
    return data.get("cases") if data.get("finished") == contents.run["finished"] else None


def _make_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Format the rows of the main table; each cell is (text, number to sort by)."""
    slowest = frame["ms_per_image"].max() if len(frame) else float("nan")
    rows = []
    for row in frame.to_dict("records"):
        dice = format_interval(format_score, row["dice"], row["dice_low"], row["dice_high"])
        device = EMPTY if pd.isna(row["device"]) else row["device"].upper()
        rows.append(
            {
                "approach": row["approach"],
                "group": row["group"],
                "dice": (dice, row["dice"]),
                "hd95": (format_amount(row["hd95"]), row["hd95"]),
                "assd": (format_amount(row["assd"]), row["assd"]),
                "training": (format_duration(row["training_seconds"]), row["training_seconds"]),
                "time": (format_amount(row["ms_per_image"]), row["ms_per_image"]),
                "device": device,
                "weights": row["weights"],
                "dice_bar": 100 * row["dice"],
                "time_bar": 0.0 if pd.isna(row["ms_per_image"]) else 100 * row["ms_per_image"] / slowest,
            }
        )
    return rows


def _choose_colours(contents: Contents) -> list[dict[str, str]]:
    """Return the colours of each approach, in the order of the spec, on light and on dark paper."""
    palette = assign_colours(contents)
    themes = ("light", "dark")
    return [{theme: fit_to_paper(palette[name], theme) for theme in themes} for name in contents.names]


def _read_figures(contents: Contents) -> list[dict[str, Any]]:
    """Return the figures that were drawn, as data: addresses.

    Of X-rays of people only if the pictures are stored here, and so in no published folder.
    """
    from lungseg.report.figures.all import SHOWS_IMAGES

    hidden = contents.shows_people and not contents.pictures
    found = []
    for stem, caption in CAPTIONS.items():
        path = contents.directory / "figures" / f"{stem}.png"
        if stem in DRAWN or not path.exists() or (stem in SHOWS_IMAGES and hidden):
            continue
        picture, width = _encode_figure(path)
        shown = round(width / DPI * PIXELS_AN_INCH)
        found.append({"stem": stem, "caption": caption, "picture": picture, "width": shown})
    return found


def _encode_figure(path: Path) -> tuple[str, int]:
    """Return a figure as a data: address, and its width in pixels.

    It is written anew with a palette of 256 colours: to the eye nearly the same, and less than half as large.
    """
    buffer = io.BytesIO()
    with Image.open(path) as figure:
        reduced = figure.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}", reduced.width


def _embed_json(data: dict[str, Any]) -> Markup:
    """Write data for a script element, which a name can't end."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def read_template(name: str) -> Markup:
    """Read a file beside the templates that a page holds as it is."""
    environment = make_environment()
    source, _, _ = environment.loader.get_source(environment, name)
    return Markup(source)
