"""Load classes by name, also from other packages, and validate settings."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lungseg.system.errors import InputError


def load_class(name: str, known: Mapping[str, str], base: type, what: str) -> type:
    """Return the class that a name stands for.

    Args:
        name: a key of `known`, or "package.module:Class".
        known: short names and the places of their classes, as "package.module:Class".
        what: "approach" or "dataset", for the message.

    Raises:
        InputError: an unknown name (the message lists the known ones), a module that can't be imported, or a
            class that is missing, abstract or not derived from `base`.
    """
    place = known.get(name, name)
    if ":" not in place:
        raise InputError(
            f"unknown {what} {name!r}: choose one of {', '.join(sorted(known))}, "
            "or name a class as 'package.module:Class'"
        )
    module_name, _, class_name = place.partition(":")
    try:
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # a module in the current folder counts, as for `python -m`
        module = importlib.import_module(module_name)
    except Exception as error:  # a third-party module may raise anything while it is imported
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(
            f"{what} {name!r}: can't import {module_name!r} ({reason}): mend or install it"
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        raise InputError(f"{what} {name!r}: module {module_name!r} has no class {class_name!r}")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(
            f"{what} {name!r}: {class_name} is not a subclass of {base.__module__}.{base.__name__}"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(f"{what} {name!r}: {class_name} lacks the methods {missing}")
    return found


def name_class(found: type) -> str:
    """Return the name of a class as "package.module:Class"."""
    return f"{found.__module__}:{found.__qualname__}"


def validate(model: type[BaseModel], values: Mapping[str, Any], where: str) -> Any:
    """Return `model(**values)`, and explain wrong values in one sentence that names `where` and the key.

    Raises InputError for an unknown or missing key, a wrong type, or a value out of range.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the table"
        if first["type"] == "extra_forbidden":
            known = ", ".join(_table_of(model, first["loc"]).model_fields)
            raise InputError(f"{where}: unknown key {key!r}; the known keys are {known}") from None
        if first["type"] == "missing":
            raise InputError(f"{where}: the key {key!r} is missing") from None
        text = first["msg"].removeprefix("Value error, ")
        text = text[:1].lower() + text[1:]
        raise InputError(f"{where}: {key} = {first.get('input')!r} can't be used: {text}") from None


def _table_of(model: type[BaseModel], place: tuple[str | int, ...]) -> type[BaseModel]:
    """Return the model of the table that holds the last key of `place`."""
    for word in place[:-1]:
        field = model.model_fields.get(str(word))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return model


class Settings(BaseModel):
    """Settings of an approach in a spec; an unknown key is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
