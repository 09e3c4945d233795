"""Typed values as JSON: written from NamedTuples and dataclasses, and read strictly.

The annotations of a class say what its JSON must be. When reading, no field may be missing or have
another type; fields that the class does not have are ignored, so that a newer version may add some.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

_MAX_INTEGER = 10**18 - 1  # the largest id that a listing may have
_MAX_NUMBER = 1e12  # in seconds, longer than the calendar
_T = TypeVar("_T")


def json_bytes(value: object) -> bytes:
    """The bytes of a JSON file that people can read: one value per line, fields sorted by name.

    NamedTuples and dataclasses become objects, tuples and sets lists.
    """
    return json.dumps(_plain(value), indent=1, sort_keys=True).encode() + b"\n"


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif dataclasses.is_dataclass(value):
        value = fields_of(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return sorted(value) if isinstance(value, frozenset) else value


def fields_of(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, their values as they are."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. Raises ValueError for anything else."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    return _expect(dict, raw)


def from_json(kind: type[_T], raw: object) -> _T:
    """An instance of `kind`, a NamedTuple or a dataclass, from what `json_bytes` wrote of one.

    Its fields may be str, int, float, bool, `X | None`, tuple[X, ...], frozenset[X],
    Mapping[str, X], and such classes themselves. A Literal of texts is read as any str, because
    another version may have written other values. A class may have a method `check`, which raises
    ValueError for an instance that must not be.

    Raises ValueError, which names the field, unless every field is there and of its type. A number
    must be usable: neither NaN nor infinite, and no integer of more than 18 digits.
    """
    value: _T = _reader(kind)(raw)  # type: ignore[arg-type]  # reason: a class is hashable
    return value


_Reader = Callable[[Any], Any]


@functools.cache
def _reader(kind: Any) -> _Reader:
    """Reads a value of the class or annotation `kind`; made once for each."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return _SCALARS[str]
    if origin in (types.UnionType, typing.Union):
        read = _reader(arguments[0])
        return lambda raw: None if raw is None else read(raw)
    if origin in (tuple, frozenset):
        read = _reader(arguments[0])
        return lambda raw: origin(map(read, _expect(list, raw)))
    if arguments:
        read = _reader(arguments[1])
        return lambda raw: {name: read(item) for name, item in _expect(dict, raw).items()}
    hints = typing.get_type_hints(kind)
    return functools.partial(_read_object, kind, {n: _reader(hint) for n, hint in hints.items()})


def _read_object(kind: type, fields: dict[str, _Reader], raw: object) -> object:
    found = _expect(dict, raw)
    values = {}
    for name, read in fields.items():
        if name not in found:
            raise ValueError(f"{name} is missing")
        try:
            values[name] = read(found[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    value = kind(**values)
    if hasattr(value, "check"):
        value.check()
    return value


def _expect(kind: type[_T], raw: object) -> _T:
    if type(raw) is not kind:  # not isinstance: to JSON, true is no number
        raise ValueError(f"it is {type(raw).__name__}, not {kind.__name__}")
    return raw


def _read_integer(raw: object) -> int:
    if not -_MAX_INTEGER <= (number := _expect(int, raw)) <= _MAX_INTEGER:
        raise ValueError("the integer has more than 18 digits")
    return number


def _read_number(raw: object) -> float:
    if isinstance(raw, (int, float)) and type(raw) is not bool and abs(raw) < _MAX_NUMBER:
        return raw
    raise ValueError("it is not a finite number of a sane size")


_SCALARS: dict[type, _Reader] = {
    str: functools.partial(_expect, str),
    bool: functools.partial(_expect, bool),
    int: _read_integer,
    float: _read_number,
}
