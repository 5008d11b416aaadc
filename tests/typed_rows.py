"""What the typed rows of tables, views and functions hold, by their classes of columns."""

from __future__ import annotations

from inspect import get_annotations
from typing import TYPE_CHECKING, Any, get_args, get_origin

from sqlalchemy import Named, TypedColumns

import oblivion_schema
import oblivion_schema.billing

if TYPE_CHECKING:
    from collections.abc import Iterator


def _classes(of: type[TypedColumns] = TypedColumns) -> Iterator[type[TypedColumns]]:
    for found in of.__subclasses__():
        if found.__module__.startswith(oblivion_schema.__name__):
            yield found
        yield from _classes(found)


CLASSES = list(_classes())


def annotated(columns: type[TypedColumns]) -> dict[str, Any]:
    """What a class and those of ours that it extends annotate: of a name that is there twice, the class's own."""
    ours = [part for part in reversed(columns.__mro__) if part.__module__.startswith(oblivion_schema.__name__)]
    return {name: hint for part in ours for name, hint in get_annotations(part, eval_str=True).items()}


def columns_of(columns: type[TypedColumns]) -> dict[str, Any]:
    """The columns of a class, in order, and what each holds."""
    hints = annotated(columns).items()
    return {name: get_args(hint)[0] for name, hint in hints if get_origin(hint) is Named}
