"""Read and validate a benchmark's TOML file; an unknown key is an error that names it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from lungseg.system.errors import InputError
from lungseg.system.files import FOLDER_NAME
from lungseg.system.plugins import validate

Name = Annotated[str, Field(pattern=rf"^{FOLDER_NAME}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Repeats = Annotated[int, Field(ge=4, le=100_000)]
LONGEST_SPEC = 1_000_000  # bytes


class _OpenTable(BaseModel):
    """A table with further keys, which belong to a dataset, a split or an approach."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The further keys and their values."""
        return dict(self.model_extra or {})


class DataSpec(_OpenTable):
    """`[data]`: what is evaluated, and how it is split. Further keys belong to the dataset or the split."""

    dataset: str  # a name that `lungseg data list` shows, or "package.module:Class"
    split: str = "random"  # the rule, see `lungseg.data.splits.make_splits`
    allow_leaks: bool = False  # go on with a picture or patient on two sides; every table then says so


class TrainingDataSpec(_OpenTable):
    """`[training_data]`: another dataset to train on, all of it except a share for validation."""

    dataset: str  # as in `[data]`
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1  # of its images
    split_seed: Seed = 0  # fixes which images are for validation


def _in_a_list(value: Any) -> Any:
    """Return one text as a list, since most rows are in one group."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError("give a text, or a list of texts")
    return value


Group = Annotated[str, Field(pattern=r"^\S(.{0,58}\S)?$")]


class ApproachSpec(_OpenTable):
    """`[[approach]]`: a row of the tables. Further keys are the approach's own settings.

    Attributes:
        use: a name that `lungseg info` lists, or "package.module:Class".
        name: of the row; `use` if not given.
        threshold: pixels of a map at or above it are lung; "validation" chooses it by Dice on the validation
            images.
        split: a rule of its own instead of the one in `[data]`, to repeat what somebody else did. Its row
            can't be compared image by image with the others then.
        trainings: how many of the spec's seeds to train it with, from the first; all if not given. For
            approaches that take long. The report names the approaches with fewer seeds.
        group: of an ablation, one name or a list of them. The report then shows each group as a table and a
            panel of its own, its rows in the order of the spec. It changes no result.
    """

    use: str
    name: Name
    threshold: Annotated[float, Field(gt=0, lt=1)] | Literal["validation"] = 0.5
    split: str | None = None
    trainings: Annotated[int, Field(ge=1)] | None = None
    group: Annotated[tuple[Group, ...], BeforeValidator(_in_a_list)] = ()


class VariantSpec(BaseModel):
    """`[[timing.variants]]`: a further runtime to time in. A missing key is as in the run's own runtime."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Literal["float32", "bfloat16"] | None = None
    channels_last: bool | None = None  # the memory layout NHWC
    compiled: bool | None = None
    approaches: tuple[Name, ...] | None = None  # names of the rows to time; all if missing


BatchSize = Annotated[int, Field(ge=1, le=4096)]
BatchSizes = Annotated[
    Annotated[tuple[BatchSize, ...], Field(min_length=1), Tag("list")]
    | Annotated[Literal["auto"], Tag("text")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "list"),
]


class TimingSpec(BaseModel):
    """`[timing]`: how predictions are timed.

    Attributes:
        enabled: false skips timing.
        batch_sizes: images a call; 1 is the latency. "auto" is 1, 2, 4 ... until a doubling gains less than
            5 % of images/s over the best so far, the memory is full, or `largest_batch` is reached.
        largest_batch: where "auto" ends; 64 on a CPU and 1024 on a GPU if missing.
        repeats: timed calls of one image, over all rounds; a comparison needs 100.
        throughput_repeats: the same for each larger batch size.
        warmup: calls at the start of each round that are not timed.
        rounds: the approaches take turns A B, B A, ...; each round has its share of the repeats. Larger
            batches have at least ten calls a round, and so fewer rounds.
        twice: time each approach in two processes at batch size 1 (A/A), which shows the noise. All processes
            are in memory at once, with 0.6 to 1 GiB each on a CPU.
        variants: further runtimes to time in, beside the run's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    batch_sizes: BatchSizes = (1, 8)
    largest_batch: BatchSize | None = None
    repeats: Repeats = 100
    throughput_repeats: Repeats = 30
    warmup: Annotated[int, Field(ge=1, le=10_000)] = 3
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 10
    twice: bool = True
    variants: tuple[VariantSpec, ...] = ()


class RuntimeSpec(BaseModel):
    """`[runtime]`: how to compute. "auto" takes what is fastest on the machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Literal["auto", "cpu", "cuda"] = "auto"  # CUDA if there is a GPU
    # "auto" is bfloat16 if the device multiplies it in hardware, else float32.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0  # 0 is one for each core that this process may use
    compiled: bool = False  # use torch.compile for inference


class Spec(BaseModel):
    """A whole benchmark."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name  # of the benchmark and its results directory
    title: str = ""  # printed when the benchmark starts
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000)] = (0,)  # of the trainings
    evaluate_on: Literal["test", "validation"] = "test"  # the side of the split that is scored
    data: DataSpec
    training_data: TrainingDataSpec | None = None
    approach: Annotated[tuple[ApproachSpec, ...], Field(min_length=1)]
    timing: TimingSpec = TimingSpec()
    runtime: RuntimeSpec = RuntimeSpec()


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
    """Raise InputError for a text with control characters, such as the tab that "C:\\temp" has in TOML."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _require_plain_texts(inner, f"{place}: {key}")
    elif isinstance(value, list):
        for inner in value:
            _require_plain_texts(inner, place)
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
