"""Values that nobody should write into a spec, and somebody will."""

from __future__ import annotations

import datetime
from dataclasses import dataclass


@dataclass(frozen=True)
class Raw:
    """Words that stand in the file as they are."""

    text: str


OF_OTHER_TYPES = (
    *(True, False, 0, 3, -1, -1.5, "text", "", "1", "true", [], {}, [1, "a"], [[0]], {"a": 1}),
    *(datetime.date(2024, 2, 29), Raw("07:32:00"), Raw("1979-05-27T07:32:00Z")),
)
HUGE = (
    *(0, -1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, Raw("1" * 400), Raw("1" * 5000)),
    *(1e-320, 1e308, Raw("1e400"), Raw("inf"), Raw("-inf"), Raw("nan")),
    *(-0.0, 1 - 1e-16, 0.999999999, 1.0000001),
)
ODD_TEXTS = (
    *("\0", "\t", "a\nb", "\x1b[31m", "\x7f", "\x85", "\u202ex", "\ufeffx", "e\u0301", "İ", "Ä", "肺", "🫁"),
    *("[bold]x[/bold]", "[/]", "$HOME", "${x}", "%s", "{0}", "a|b", "`x`", "<b>", "$x_1$", "\\input{x}"),
    *("../..", "a/b", "C:\\temp", "~nobody/x", "~", ".", "-", "CON", " ", "a b", "nan", "None", "null"),
    *("a" * 80, "a" * 81, "b" * 10_000),
    *("json:JSONDecoder", "lungseg.spec:Spec", "nowhere.at:All", "os:system", "a.b:", ":", "a:b"),
    *("published:", "published:../x", "lungseg:cli:main", "lungseg.approaches.baselines:MeanMask"),
)
SPLITS = (
    *("random", "kfold", "every-14th", "last-fifth", "by-source"),
    *("published:cxr704-ovcharenko", "Random", ""),
)
_SOURCES = ([], ["site-a"], ["site-b"], ["site-a", "site-b"], ["nowhere"], ["site-a"] * 2, "site-a", [1])
SPLIT_KEYS: dict[str, tuple] = {
    "fractions": (
        *([0.5, 0.25, 0.25], [0.9, 0.05, 0.05], [0.98, 0.01, 0.01], [0.1, 0.1, 0.8]),
        *([0.7, 0.3], [0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [1, 0, 0], [-0.5, 1, 0.5], "all"),
    ),
    "folds": (1, 2, 3, 5, 8, 15, 16, 17, 50, 1000, 1001, 2.5, "five"),
    "split_seed": (0, 1, -1, 2**31, 0.5),
    "train_sources": _SOURCES,
    "test_sources": _SOURCES,
    "validation_share": (0.1, 0.5, 0.9, 0.99, 0.0001, 0, 1, -0.1),
}
NESTED = (5, 50, 200, 900, 5000)  # levels
KEYS = ("", "a.b", "__class__", "model_config", "options", "🫁")
# What `--set` may be given.
SET_KEYS = (
    *(
        "seeds",
        "data.split",
        "data",
        "approach",
        "approach.x.size",
        "timing.enabled",
        "a.b.c",
        "",
        ".",
        "name",
    ),
    *("seeds.0", "data.count.x", "approach.mean-mask.size", "approach.mean-mask", "runtime.threads", "title"),
    *("timing.variants", "data.folds", " seeds ", "approach..size"),
)
SET_VALUES = (
    *("0", "1", "[0, 1]", "[0", "{a = 1}", "text", '"', "=", "true", "nan", "1e999", "[" * 500, "", "1 2"),
    *ODD_TEXTS,
)
