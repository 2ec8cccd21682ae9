"""Load classes by name, also from other packages, and validate settings."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lungseg.system.errors import InputError, describe_error, is_out_of_memory

CLASS_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")  # "package.module:Class"


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
    except (Exception, SystemExit) as error:  # a third-party module may raise anything while it is imported
        raise InputError(
            f"{what} {name!r}: can't import {module_name!r}, {describe_error(error)}: mend or install it"
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
    settings = getattr(found, "Settings", BaseModel)
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        raise InputError(f"{what} {name!r}: {class_name}.Settings is no pydantic model: derive it from one")
    return found


@contextmanager
def name_errors(what: str) -> Iterator[None]:
    """Turn any error of a class that a user names, but no InputError, into one that says whose it is."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, InputError) or is_out_of_memory(error):
            raise
        raise InputError(f"{what}: its class ended with {describe_error(error)}: mend it") from error


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
        raise InputError(f"{where}: {key} = {_shorten(first.get('input'))} can't be used: {text}") from None
    except RecursionError:
        raise InputError(f"{where} is nested too deeply: use fewer levels") from None


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


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
    """A table of a spec; an unknown key is an error that names it. The text below a key describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
