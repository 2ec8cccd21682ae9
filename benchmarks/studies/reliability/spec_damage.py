"""Makes nearly right specs: sound ones on phantoms, with a value, a key, a table or a letter changed."""

from __future__ import annotations

import copy
import datetime
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.reliability.odd_values import (
    HUGE,
    KEYS,
    NESTED,
    ODD_TEXTS,
    OF_OTHER_TYPES,
    SPLIT_KEYS,
    SPLITS,
    Raw,
)

SPECS = Path(__file__).parents[2]  # benchmarks/*.toml
PHANTOMS = {"dataset": "phantom", "count": 16, "size": 48}
OWN_SPLITS = ("random", "kfold", "every-14th", "last-fifth")
MOST_APPROACHES = 4  # of a spec; an ablation has dozens
TINY = {
    "name": "tiny",
    "seeds": [0, 1],
    "runtime": {"device": "cpu"},
    "data": {"dataset": "phantom", "count": 12, "size": 48},
    "approach": [
        {"use": "mean-mask", "size": 24},
        {
            "use": "vgg19-pixels",
            "name": "pixels",
            "weights": "random",
            "size": 16,
            "regressor": "ridge",
            "ridge": {"alpha": 1.0},
            "mlp": {"epochs": 2, "dropout": 0.3, "learning_rate": 1e-3},
            "boosting": {"rounds": 5, "learning_rate": 0.2},
        },
        {"use": "vgg19-context", "boosting": {"learning_rate": 0.1, "column_share": 0.2}},
    ],
    "timing": {"batch_sizes": [1, 3], "repeats": 4, "warmup": 1, "rounds": 2},
}

ROWS = (
    {"use": "mean-mask", "size": 32},
    {"use": "threshold"},
    *(
        {"use": "vgg19-pixels", "weights": "random", "size": 32, "regressor": regressor}
        for regressor in ("lightgbm", "ridge", "mlp", "sklearn.ensemble:RandomForestRegressor")
    ),
    {"use": "vgg19-context", "contexts": 0, "features": False},
    {"use": "deeplabv3plus-resnet50", "weights": "random", "size": 64, "epochs": 2, "freeze_norms": True},
    {"use": "deeplabv3plus-resnet50", "weights": "random", "recipe": "cpu", "network": {"topology": "smp"}},
)

Values = dict[str, Any]
Place = tuple[list | dict, str | int]  # a table or list, and a key or index in it
Change = Callable[[Values, np.random.Generator], None]


def make_bases() -> list[Values]:
    """Make sound specs on a few phantoms out of the published ones."""
    read = [tomllib.loads(path.read_text("utf-8")) for path in sorted(SPECS.glob("*.toml"))]
    return [copy.deepcopy(TINY), *(_shrink(values) for values in read)]


def _shrink(values: Values) -> Values:
    """The same spec with phantoms for data, random weights, and a few of its approaches."""
    split = values["data"].get("split", "random")
    data = {**PHANTOMS, "split": split if split in OWN_SPLITS else "random"}
    data |= {key: values["data"][key] for key in ("name",) if key in values["data"]}
    smaller = {"weights": "random", "train_images": 2}
    approaches = [
        {**row, **{key: smaller[key] for key in smaller.keys() & row.keys()}}
        for row in values["approach"]
        if row.get("split", "random") in OWN_SPLITS and ":" not in str(row.get("regressor"))
    ]
    step = -(-len(approaches) // MOST_APPROACHES)
    own = {"data": data, "approach": approaches[::step]}
    timing = {key: value for key, value in values.get("timing", {}).items() if key != "variants"}
    own["timing"] = timing  # without variants, which may name approaches that are gone
    if "training_data" in values:
        own["training_data"] = {**PHANTOMS, "seed": 1}
    own["test_data"] = [
        {**PHANTOMS, "seed": 2 + number, "name": each.get("name", each["dataset"])}
        | ({"split": "random"} if "split" in each else {})
        for number, each in enumerate(values.get("test_data", []))
    ]
    return {**values, **own}


def write_toml(values: Values) -> str:
    """Write a spec as TOML, one line for each key at the top."""
    return "".join(f"{_quote_key(key)} = {_write(value)}\n" for key, value in values.items())


def _write(value: Any) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_write, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote_key(key)} = {_write(inner)}" for key, inner in value.items()) + "}"
    return value.isoformat() if isinstance(value, datetime.date) else repr(value)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _quote_key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else _quote(key)


def _walk(value: Any) -> Iterator[Place]:
    """Every place of a value, at any depth."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(entries):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _walk(inner)


def _draw(values: Values, rng: np.random.Generator, keys_only: bool = False) -> Place:
    places = [place for place in _walk(values) if not keys_only or isinstance(place[0], dict)]
    return places[rng.integers(len(places))]


def _draw_numbers(values: Values, rng: np.random.Generator, kinds: tuple[type, ...]) -> Place:
    """A place with a value of a type; any place if there is none."""
    places = [(table, key) for table, key in _walk(values) if type(table[key]) in kinds]
    return places[rng.integers(len(places))] if places else _draw(values, rng)


def _pick(choices: tuple, rng: np.random.Generator) -> Any:
    return copy.deepcopy(choices[rng.integers(len(choices))])


def _keep(values: Values, rng: np.random.Generator) -> None:
    """The sound spec."""


def _move_numbers(values: Values, rng: np.random.Generator) -> None:
    """Change numbers by a little, as somebody does who tries settings."""
    for _ in range(int(rng.integers(1, 5))):
        table, key = _draw_numbers(values, rng, (int, float))
        if isinstance(table[key], float):
            table[key] *= float(rng.uniform(0.8, 1.1))
        elif isinstance(table[key], int):
            table[key] += int(rng.integers(0, 3))


def _order_rows(values: Values, rng: np.random.Generator) -> None:
    rng.shuffle(values["approach"])


def _leave_rows_out(values: Values, rng: np.random.Generator) -> None:
    kept = rng.permutation(len(values["approach"]))[: rng.integers(1, len(values["approach"]) + 1)]
    values["approach"] = [values["approach"][number] for number in sorted(kept)]


def _take_other_seeds(values: Values, rng: np.random.Generator) -> None:
    values["seeds"] = [int(seed) for seed in rng.permutation(20)[: rng.integers(1, 6)]]
    values["data"]["seed"] = int(rng.integers(1000))


def _add_rows(values: Values, rng: np.random.Generator) -> None:
    """Add the rows that README and docs tell to try."""
    for number in range(int(rng.integers(1, 3))):
        values["approach"].append({"name": f"another-{number}", **_pick(ROWS, rng)})


def _merge_tables(values: Values, rng: np.random.Generator) -> None:
    """Give the tables of another sound spec that say how to run."""
    other = _pick(tuple(make_bases()), rng)
    for key in ("runtime", "timing", "seeds", "evaluate_on"):
        if key in other and rng.random() < 0.7:
            values[key] = other[key]


def _change_type(values: Values, rng: np.random.Generator) -> None:
    table, key = _draw(values, rng)
    table[key] = _pick(OF_OTHER_TYPES, rng)


def _change_range(values: Values, rng: np.random.Generator) -> None:
    table, key = _draw_numbers(values, rng, (int, float))
    if not isinstance(table[key], int | float):
        return
    factor = _pick((-1, 0, 0.5, 2, 10, 1000, 1e6), rng)
    table[key] = type(table[key])(table[key] * factor + _pick((0, 1, -1), rng))


def _write_huge(values: Values, rng: np.random.Generator) -> None:
    table, key = _draw_numbers(values, rng, (int, float))
    table[key] = _pick(HUGE, rng)


def _write_odd_text(values: Values, rng: np.random.Generator) -> None:
    table, key = _draw_numbers(values, rng, (str,))
    odd = _pick(ODD_TEXTS, rng)
    table[key] = odd if rng.random() < 0.6 else f"{table[key]}{odd}"


def _change_length(values: Values, rng: np.random.Generator) -> None:
    """Double, empty or cut a list or table."""
    table, key = _draw_numbers(values, rng, (list, dict))
    inner = table[key]
    if isinstance(inner, list):
        table[key] = _pick(([], inner * 2, inner[:1], inner * 400), rng)
    elif isinstance(inner, dict):
        table[key] = _pick(({}, [inner], [inner, inner]), rng)


def _rename_key(values: Values, rng: np.random.Generator) -> None:
    table, key = _draw(values, rng, keys_only=True)
    at = int(rng.integers(len(key)))
    near = (key.upper(), key[:at] + key[at + 1 :], key[:at] + key[at] + key[at:], key + "s", key[::-1])
    names = (*near, key + " ", key.replace("_", "-"), *KEYS)
    value = table.pop(key)
    table[_pick(names, rng)] = value


def _remove_key(values: Values, rng: np.random.Generator) -> None:
    table, key = _draw(values, rng, keys_only=True)
    del table[key]


def _move_key(values: Values, rng: np.random.Generator) -> None:
    """Put a value under its key into another table as well."""
    table, key = _draw(values, rng, keys_only=True)
    others = [place[key] for place, key in _walk(values) if isinstance(place[key], dict)]
    if others:
        others[rng.integers(len(others))][key] = copy.deepcopy(table[key])


def _copy_approach(values: Values, rng: np.random.Generator) -> None:
    row = copy.deepcopy(_pick(tuple(values["approach"]), rng))
    if rng.random() < 0.7:
        row["name"] = "again" if rng.random() < 0.5 else _pick(ODD_TEXTS, rng)
    values["approach"].insert(int(rng.integers(len(values["approach"]) + 1)), row)


def _nest(values: Values, rng: np.random.Generator) -> None:
    table, key = _draw(values, rng)
    depth = _pick(NESTED, rng)
    begin, end = _pick((("[", "]"), ("{a = ", "}")), rng)
    table[key] = Raw(begin * depth + "1" + end * depth)


def _change_split(values: Values, rng: np.random.Generator) -> None:
    data = values["data"]
    data["split"] = _pick(SPLITS[:5] if rng.random() < 0.8 else SPLITS, rng)
    for key in rng.choice(list(SPLIT_KEYS), rng.integers(1, 4), replace=False):
        data[str(key)] = _pick(SPLIT_KEYS[key], rng)
    if rng.random() < 0.3:
        values["evaluate_on"] = _pick(("validation", "test", "train"), rng)
    if rng.random() < 0.3:
        values["approach"][0]["split"] = _pick(SPLITS, rng)


# What leaves most specs sound.
NEIGHBOURS: dict[str, Change] = {
    "untouched": _keep,
    "numbers nearby": _move_numbers,
    "rows in another order": _order_rows,
    "rows left out": _leave_rows_out,
    "other seeds": _take_other_seeds,
    "rows added": _add_rows,
    "tables of another spec": _merge_tables,
}
DAMAGE: dict[str, Change] = {
    "value of another type": _change_type,
    "value out of range": _change_range,
    "huge number": _write_huge,
    "odd text": _write_odd_text,
    "list or table of another length": _change_length,
    "key renamed": _rename_key,
    "key removed": _remove_key,
    "key in another table": _move_key,
    "approach doubled": _copy_approach,
    "nested deeply": _nest,
    "another split": _change_split,
}
