"""Group the approaches that the tests don't separate, as a compact letter display."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_lowercase

import pandas as pd

from lungseg.report.contents import Contents
from lungseg.report.numbers.comparisons import collect_pairs

LEVEL = 0.05  # of the tests, after Holm's correction


def assign_letters(contents: Contents) -> dict[str, str]:
    """Return the letters of each approach that was compared in Dice: "a", "ab", ...

    Two approaches share a letter if and only if the sign-flip test finds no difference between their means
    after Holm's correction. "a" is the group of the best. {} without comparisons, for an ablation, whose many
    rows no test could separate, and if approaches were scored on several sets of images, so that not all were
    compared.
    """
    if contents.groups:
        return {}
    pairs = collect_pairs(contents, "dice")
    names = [name for name in contents.ranked if name in {*pairs["approach"], *pairs["other"]}]
    tested = pairs.dropna(subset=["p_holm"])
    if not names or len(tested) < len(names) * (len(names) - 1) // 2:
        return {}
    apart = tested[tested["p_holm"] <= LEVEL]
    groups = find_groups(names, zip(apart["approach"], apart["other"], strict=True))
    return {
        name: "".join(_name(place) for place, group in enumerate(groups) if name in group) for name in names
    }


def find_groups(names: Sequence[str], apart: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the largest groups that hold no pair of `apart`, by the insert-and-absorb algorithm.

    Piepho, Journal of Computational and Graphical Statistics 13:456-466, 2004. Groups and their members are
    in the order of `names`.
    """
    groups = [set(names)]
    for first, second in apart:
        split = []
        for group in groups:
            both = first in group and second in group
            split += [group - {first}, group - {second}] if both else [group]
        groups = [one for place, one in enumerate(split) if not _is_held(one, place, split)]
    place = {name: number for number, name in enumerate(names)}
    found = [sorted(group, key=place.get) for group in groups]
    return sorted(found, key=lambda group: [place[name] for name in group])


def find_equals(contents: Contents, name: str) -> list[str]:
    """Return the approaches that the tests don't separate from one, best first, without itself."""
    pairs = collect_pairs(contents, "dice")
    rows = pairs[(pairs["approach"] == name) | (pairs["other"] == name)]
    rows = rows[pd.to_numeric(rows["p_holm"]) > LEVEL]
    found = {*rows["approach"], *rows["other"]} - {name}
    return [other for other in contents.ranked if other in found]


def _is_held(group: set[str], place: int, groups: Sequence[set[str]]) -> bool:
    """Return whether another group has all members of this one; of equal groups the first is kept."""
    return any(
        group < other or (group == other and number < place)
        for number, other in enumerate(groups)
        if number != place
    )


def _name(place: int) -> str:
    """Return a letter for each group; from the 27th on with a number, as "a1"."""
    round_, letter = divmod(place, len(ascii_lowercase))
    return ascii_lowercase[letter] + (str(round_) if round_ else "")
