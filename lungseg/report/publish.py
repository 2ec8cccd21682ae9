"""Copy out of a results directory what may be committed: no figure of `SHOWS_IMAGES` if people are shown."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from lungseg.report.anonymous import has_private_names, write_anonymous
from lungseg.report.contents import list_further_contents, read_contents
from lungseg.report.figures.all import FIGURE_SUFFIXES, FIGURES, SHOWS_IMAGES
from lungseg.report.findings import collect_findings
from lungseg.report.leaderboard import write_leaderboard
from lungseg.report.page.page import NAME, write_page
from lungseg.report.tables.readme import fill_readme
from lungseg.report.write import write_report
from lungseg.results import FILES, read_run
from lungseg.system.errors import InputError
from lungseg.system.files import FOLDER_NAME, explain_write_error, make_folder, read_json


def publish(directory: Path, to: Path, readme: Path, keep_names: bool = False) -> tuple[Path, bool]:
    """Copy tables, scores, run.json, page and figures to `to`/NAME; never a real X-ray, a map or a model.

    Names of images and patients of a dataset of people that isn't public are replaced by numbers, unless
    `keep_names`. NAME is the benchmark's. What was published under it before is replaced once the new copy
    is complete. The index of `to` is written anew. Return the folder, and whether `readme`, which need not
    exist, has a block of this name, now filled.

    Raises InputError, with nothing changed, if there is no finished benchmark or it is damaged, a link is
    among its files, its name can't be a spec's, or the target is no published result, is in `directory`,
    contains it or is the same, or can't be written.
    """
    record = _read_finished(directory)
    name = record["name"]
    target, new, old = to / name, to / f".{name}.new", to / f".{name}.old"
    shows_people = _shows_people(record, directory)
    _list_files(directory, shows_people)  # links are refused before anything is written
    for folder in (target, new, old):
        _require_apart(directory, folder)
        _require_replaceable(folder)
    _require_published(target, name)
    try:
        make_folder(new, empty=True)
        if has_private_names(record) and not keep_names:
            write_anonymous(directory, new)
        else:
            write_report(directory)  # what was edited since is made anew
            make_folder(new / "figures")
            for file in _list_files(directory, shows_people):
                shutil.copyfile(directory / file, new / file)
        contents = read_contents(new)
        if shows_people:
            write_page(collect_findings(contents, list_further_contents(contents)))  # no picture lies here
        _swap_in(new, target, old)
        write_leaderboard(to)
    except OSError as error:
        raise explain_write_error(target, error) from error
    return target, readme.exists() and fill_readme(readme, contents)


def _read_finished(directory: Path) -> dict[str, Any]:
    record = read_run(directory, "run it to its end before publishing")
    name = record.get("name")
    if not isinstance(name, str) or not re.fullmatch(FOLDER_NAME, name):
        raise InputError(
            f"{directory / 'run.json'} names the benchmark {name!r}, which is no name of a spec: run the "
            "benchmark again"
        )
    return record


def _shows_people(record: dict[str, Any], directory: Path) -> bool:
    """Return whether any image is of a real person."""
    others = record.get("test_data", [])
    datasets = [record.get("data"), record.get("training_data") or {"real": False}]
    datasets += others if isinstance(others, list) else [others]
    if not all(isinstance(data, dict) and isinstance(data.get("real"), bool) for data in datasets):
        raise InputError(
            f"{directory / 'run.json'} doesn't say whether its images are of real people: run the benchmark "
            "again"
        )
    return any(data["real"] for data in datasets)


def _list_files(directory: Path, shows_people: bool) -> list[str]:
    """Return what is copied, as paths below `directory`."""
    stems = [stem for stem in FIGURES if not (shows_people and stem in SHOWS_IMAGES)]
    figures = [f"figures/{stem}{suffix}" for stem in stems for suffix in FIGURE_SUFFIXES]
    kept = [file for file in FILES if not (shows_people and file == NAME)]
    files = [file for file in (*kept, *figures) if (directory / file).exists()]
    for file in ("figures", *files):
        if (directory / file).is_symlink():
            raise InputError(f"{directory / file} is a link: put the file itself there before publishing")
    return files


def _require_apart(directory: Path, folder: Path) -> None:
    source, place = directory.resolve(), folder.resolve()
    same = place.exists() and place.samefile(source)  # also where the disk knows no capital letters
    if same or source in place.parents or place in source.parents:
        raise InputError(
            f"publishing {directory} would replace {folder}, which is not apart from it: name another folder "
            "with --to"
        )


def _require_replaceable(folder: Path) -> None:
    """Raise InputError if the folder is a link, a file, or holds what `publish` doesn't write."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is no folder of a published result: move it away")
    known = {*FILES, "figures"}
    inside = list(folder.iterdir()) if folder.exists() else []
    foreign = [path for path in inside if path.name not in known or path.is_symlink()]
    if folder / "figures" in inside and not foreign:
        figures = (folder / "figures").iterdir()
        foreign = [path for path in figures if path.suffix not in FIGURE_SUFFIXES]
    if foreign:
        raise InputError(
            f"{folder} holds {min(foreign).relative_to(folder)}, which is no part of a published result: "
            "move it away, or name another folder with --to"
        )


def _require_published(target: Path, name: str) -> None:
    if not target.exists() or not any(target.iterdir()):
        return
    if not (target / "run.json").exists() or read_json(target / "run.json").get("name") != name:
        raise InputError(
            f"{target} is no published result of {name!r}: move it away, or name another folder with --to"
        )


def _swap_in(new: Path, target: Path, old: Path) -> None:
    """Put `new` in the place of `target`; a failure leaves `target` as it was."""
    make_folder(old, empty=True).rmdir()
    replaces = target.exists()
    if replaces:
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if replaces:
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
