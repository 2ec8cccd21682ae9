"""Read and validate a benchmark's TOML file; an unknown key is an error that names it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from lungseg.system.errors import InputError
from lungseg.system.files import FOLDER_NAME
from lungseg.system.plugins import Settings, validate

Name = Annotated[str, Field(pattern=rf"^{FOLDER_NAME}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Repeats = Annotated[int, Field(ge=4, le=100_000)]
LONGEST_SPEC = 1_000_000  # bytes
LONGEST_TEXT = 1000  # letters of a value, which messages quote


class _OpenTable(Settings):
    """A table with further keys, which belong to a dataset, a split or an approach."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The further keys and their values."""
        return dict(self.model_extra or {})


class _TestedTable(_OpenTable):
    """A table of a dataset that is scored."""

    dataset: str
    """A name that `lungseg data list` shows, or a class as "package.module:Class"."""
    name: Name | None = None
    """What tables call it. Without it they call it as `dataset`."""

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name or self.dataset


class DataSpec(_TestedTable):
    """`[data]`: what is evaluated, and how it is split. Further keys belong to the dataset or the split."""

    split: str = "random"
    """The rule that divides the images into training, validation and test."""
    allow_leaks: bool = False
    """Run although an image or a patient is on two sides of the split. Every table then says so."""


class TrainingDataSpec(_OpenTable):
    """`[training_data]`: another dataset to train on, all of it except a share for validation."""

    dataset: str
    """As in `[data]`."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of its images that is for validation."""
    split_seed: Seed = 0
    """Fixes which images are for validation."""


class TestDataSpec(_TestedTable):
    """`[[test_data]]`: a further test set, which all fits are scored on. Further keys belong to the dataset
    or the split."""

    split: str | None = None
    """A split rule with one fold. The images of its `evaluate_on` side are scored, and `train_on` can train a
    row on the others. Without it all images are scored."""


def _in_a_list(value: Any) -> Any:
    """Return one text as a list, since most rows are in one group."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError("give a text, or a list of texts")
    return value


Text = Annotated[str, Field(pattern=r"^\S(.{0,58}\S)?$")]


class ApproachSpec(_OpenTable):
    """`[[approach]]`: a row of the tables. Further keys are the approach's own settings."""

    use: str
    """A name that `lungseg info` lists, or a class as "package.module:Class"."""
    name: Name
    """Names the row in all files. Without it the row is named as `use`."""
    label: Text | None = None
    """What tables and figures call the row. Without it a plain one is made from the row's keys."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["validation"] = 0.5
    """Pixels at or above it are lung. "validation" chooses it by Dice on the validation images."""
    split: str | None = None
    """A split rule for this row alone. The row can't be compared image by image with the others then."""
    trainings: Annotated[int, Field(ge=1)] | None = None
    """Train with this many of the seeds, from the first. Without it all seeds are used."""
    train_on: str | None = None
    """Train this row on another dataset of the spec: a name of a `[[test_data]]` that has a split. The row is
    scored like all others."""
    train_images: Annotated[int, Field(ge=2)] | None = None
    """Train this row on this many images, drawn by the seed. A larger number takes the same images and more.
    The validation images are cut in proportion."""
    group: Annotated[tuple[Text, ...], BeforeValidator(_in_a_list)] = ()
    """One group of an ablation, or a list of groups. Each is a table and a panel. It changes no result."""


class VariantSpec(Settings):
    """`[[timing.variants]]`: a further runtime to time in. A missing key is as in the run's own runtime."""

    precision: Literal["float32", "bfloat16"] | None = None
    """The number format."""
    channels_last: bool | None = None
    """Use the memory layout NHWC."""
    compiled: bool | None = None
    """Use `torch.compile`."""
    tuned: bool | None = None
    """False runs networks as they are: no batch norm is folded, no CUDA graph is replayed."""
    deterministic: bool | None = None
    """False lets torch choose any algorithm, its default. Scores are made with deterministic ones."""
    approaches: tuple[Name, ...] | None = None
    """Names of the rows to time. Without it all rows are timed."""


BatchSize = Annotated[int, Field(ge=1, le=4096)]
BatchSizes = Annotated[
    Annotated[tuple[BatchSize, ...], Field(min_length=1), Tag("list")]
    | Annotated[Literal["auto"], Tag("text")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "list"),
]


class TimingSpec(Settings):
    """`[timing]`: how predictions are timed."""

    enabled: bool = True
    """False skips timing."""
    batch_sizes: BatchSizes = (1, 8)
    """Images a call; 1 gives the latency. "auto" tries 1, 2, 4 and so on. It ends where a doubling gains less
    than 5 % images/s, where memory is full, or at `largest_batch`."""
    largest_batch: BatchSize | None = None
    """Where "auto" ends. Without it 64 on a CPU and 1024 on a GPU."""
    repeats: Repeats = 100
    """Timed calls of one image, over all rounds. A comparison needs 100."""
    throughput_repeats: Repeats = 30
    """Timed calls of each larger batch size. Each round has at least ten."""
    warmup: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Untimed calls at the start of each round. A GPU is warmed up until its clock is steady before them."""
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 10
    """The approaches take turns, A B, then B A. The calls are divided over so many rounds."""
    twice: bool = True
    """Time each approach in two processes at batch size 1. The A/A rows show the noise. All processes are in
    memory at once, each with 0.6 to 1 GiB on a CPU."""
    cpu_latency: bool = True
    """On a GPU, time one image on the CPU too, at the end. False leaves it out."""
    variants: tuple[VariantSpec, ...] = ()
    """Further runtimes to time in."""


class RuntimeSpec(Settings):
    """`[runtime]`: how to compute. "auto" takes what is fastest on the machine."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute. "auto" is "cuda" if there is a GPU, else "cpu"."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """The number format. "auto" is "bfloat16" if the device multiplies it in hardware, else "float32"."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads. 0 is one for each core that this process may use."""
    compiled: bool = False
    """Use `torch.compile` for predictions."""


class Spec(Settings):
    """A whole benchmark."""

    name: Name
    """Names the benchmark and its results directory."""
    title: str = ""
    """Printed when the benchmark starts."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000)] = (0,)
    """Each approach is trained once with each seed. If nothing in it is random, it is trained once."""
    evaluate_on: Literal["test", "validation"] = "test"
    """The side of the split that is scored."""
    data: DataSpec
    """The images, and how they are split."""
    training_data: TrainingDataSpec | None = None
    """Another dataset to train on."""
    test_data: tuple[TestDataSpec, ...] = ()
    """Further test sets."""
    approach: Annotated[tuple[ApproachSpec, ...], Field(min_length=1)]
    """The rows of the tables."""
    timing: TimingSpec = TimingSpec()
    """How predictions are timed."""
    runtime: RuntimeSpec = RuntimeSpec()
    """How to compute."""


def read_spec(path: Path, changes: Sequence[str] = ()) -> Spec:
    """Read a TOML file and apply `--set key=value` changes to it.

    Changes are "seeds=[0]", "data.split=kfold", "approach.NAME.epochs=3"; the value is TOML, or a plain
    string if it isn't valid TOML. Raises InputError for a missing file, for what isn't TOML, for an unknown
    key, a wrong type, and a duplicate name or seed.
    """
    values = _parse(_read_text(path), path)
    _name_approaches(values)
    for change in changes:
        _apply(values, change)
    _require_plain_texts(values, str(path))
    spec = validate(Spec, values, str(path))
    _require_unique([approach.name for approach in spec.approach], f"{path}: the approach name")
    _require_unique([row.label for row in spec.approach if row.label], f"{path}: the approach label")
    _require_unique(list(spec.seeds), f"{path}: the seed")
    _require_known_variants(spec, path)
    return spec


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_SPEC + 1)
    except FileNotFoundError:
        raise InputError(
            f"there is no spec {path}: give the path of a TOML file. The shortest has the lines "
            'name = "mine", [data], dataset = "phantom", [[approach]], use = "vgg19-pixels"'
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"can't read the spec {path}: {error}") from None
    if len(data) > LONGEST_SPEC:
        raise InputError(f"{path} has over {LONGEST_SPEC} bytes, too many for a spec: name a TOML file")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")  # Windows editors begin with a byte order mark
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: save it as UTF-8") from None


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # also of numbers with thousands of digits, and deep nesting
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        more = ""
        if "\\" in text:
            more = r". Write a Windows path in single quotes, as in 'C:\data', or with /"
        raise InputError(f"{path} is not valid TOML: {reason}{more}") from None


def _require_plain_texts(value: Any, place: str) -> None:
    """Raise InputError for a text that is too long or has a control character, such as "C:\\temp" in TOML."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _require_plain_texts(inner, f"{place}: {key}")
    elif isinstance(value, list):
        for inner in value:
            _require_plain_texts(inner, place)
    elif isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise InputError(f"{place} has {len(value)} letters: at most {LONGEST_TEXT} can be used")
    elif (
        isinstance(value, str)
        and not place.endswith(": title")
        and (found := re.search(r"[\x00-\x1f\x7f]", value))
    ):
        raise InputError(
            f"{place} has the control character {found[0]!r}: write backslashes of a path in single quotes, "
            "or use /"
        )


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` words to a table, as `--set` does. Raises InputError for a word of another form."""
    values: dict[str, Any] = {}
    for change in changes:
        _apply(values, change)
    _require_plain_texts(values, "--set")
    return values


def _name_approaches(values: dict[str, Any]) -> None:
    entries = values.get("approach")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("use"), str):
            # The default name must do as a folder's name, also for "package.module:Class".
            entry.setdefault("name", re.sub(r"[^A-Za-z0-9._-]", "-", entry["use"]))


def _apply(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {change!r} is not of the form key=value, such as seeds=[0,1]")
    table: Any = values
    for depth, part in enumerate(parts[:-1]):
        if isinstance(table, list):
            table = _approach_named(table, part, change)
        elif isinstance(table, dict):
            table = table.setdefault(part, {})
        if not isinstance(table, dict | list):
            raise InputError(f"--set {change!r}: {'.'.join(parts[: depth + 1])} is not a table")
    if isinstance(table, list):
        raise InputError(f"--set {change!r}: say approach.NAME.key=value")
    table[parts[-1]] = _toml_value(text.strip())


def _approach_named(entries: list[Any], name: str, change: str) -> dict[str, Any]:
    for entry in entries:
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry
    names = ", ".join(str(entry.get("name")) for entry in entries if isinstance(entry, dict))
    raise InputError(f"--set {change!r}: the spec has no approach {name!r}; it has {names}")


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _require_known_variants(spec: Spec, path: Path) -> None:
    known = [approach.name for approach in spec.approach]
    for name in (name for variant in spec.timing.variants for name in variant.approaches or ()):
        if name not in known:
            raise InputError(
                f"{path}: timing.variants names the approach {name!r}: choose of {', '.join(known)}"
            )


def _require_unique(values: list[Any], what: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise InputError(f"{what} {value!r} is a duplicate: give each its own")
