"""Load classes by name, also from other packages, and validate settings."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
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
            f"unknown {what} {name!r}{suggest(name, known, ': choose')} one of {', '.join(sorted(known))}, "
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


def suggest(name: str, known: Iterable[str], go_on: str) -> str:
    """Return how a message goes on after an unknown name: ": did you mean 'size'? Choose" or ": choose".

    `go_on` begins with punctuation, which is dropped where some known name is near.
    """
    near = get_close_matches(name, list(known), n=1)
    if not near:
        return go_on
    rest = go_on.lstrip(":;, ")
    return f": did you mean {near[0]!r}? {rest[:1].upper()}{rest[1:]}"


def validate(model: type[BaseModel], values: Mapping[str, Any], where: str, also: Iterable[str] = ()) -> Any:
    """Return `model(**values)`, and explain wrong values in one sentence that names `where` and the key.

    `also` are further keys of the same table, which the message about an unknown key names too. Raises
    InputError for an unknown or missing key, a wrong type, or a value out of range.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        # An unknown key first: it may be the missing one, misspelt.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        raise InputError(f"{where}: {_explain(model, first, also)}") from None
    except RecursionError:
        raise InputError(f"{where} is nested too deeply: use fewer levels") from None


def _explain(model: type[BaseModel], found: Mapping[str, Any], also: Iterable[str]) -> str:
    """What is wrong with a key, as pydantic found it."""
    place, value = found["loc"], found.get("input")
    no_list = found["type"] in ("tuple_type", "list_type")
    if no_list and place[-1] == "list":  # the tag of a union, and no key
        place = place[:-1]
    key = ".".join(map(str, place)) or "the table"
    fields = _table_of(model, place).model_fields
    if found["type"] == "extra_forbidden":
        known = [*fields, *also]
        what = "table" if _is_table(value) else "key"
        listed = suggest(str(place[-1]), known, "; the known keys are")
        return f"unknown {what} {key!r}{listed} {', '.join(known)}"
    if found["type"] == "missing":
        near = get_close_matches(str(place[-1]), [name for name in value if name not in fields], n=1)
        return f"the key {key!r} is missing" + (f": did you mean it by {near[0]!r}?" if near else "")
    text = found["msg"].removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    if no_list:
        text = (
            f"give a list, as in {f'[[{place[-1]}]]' if _is_table(value) else f'{place[-1]} = [{value!r}]'}"
        )
    return f"{key} = {_shorten(value)} can't be used: {text}"


def _is_table(value: Any) -> bool:
    """Whether a value is a table of TOML, or a list of them."""
    return isinstance(value, dict) or (isinstance(value, list) and value != [] and isinstance(value[0], dict))


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


def add_recipe(recipes: Mapping[str, Mapping[str, Any]], values: Any) -> Any:
    """Return a table with the keys of the recipe that it names, but for those that it gives itself."""
    named = values.get("recipe") if isinstance(values, dict) else None
    chosen = recipes.get(named) if isinstance(named, str) else None
    return {**chosen, **values} if chosen else values
