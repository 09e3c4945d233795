"""The ledger as bytes: state.json, schema-versioned, read back with every value checked.

A file of the first schema is read too, so that an upgrade forgets neither account nor keys.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from agent.core.ledger import (
    Failure,
    Hold,
    KnownKey,
    Ledger,
    Retired,
    SkippedFile,
    TargetOutcome,
    WaitingKey,
)
from agent.core.listing import RejectedEntry
from agent.core.times import Moment, is_sane

SCHEMA = 2
UNDECODABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
_ACCOUNT = re.compile(rb'"account_id": *([0-9]{1,18})[,\s}]')
_T = TypeVar("_T")


def json_bytes(value: object) -> bytes:
    """JSON as keysync writes its own files; the account comes first, for `salvaged_account`."""
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def encode(ledger: Ledger) -> bytes:
    """The bytes of state.json."""
    return json_bytes({"schema": SCHEMA, **_plain(ledger)})


def _plain(ledger: Ledger) -> dict[str, object]:
    raw: dict[str, object] = {
        "account_id": ledger.account_id,
        "keys": [dataclasses.asdict(key) for key in ledger.keys.values()],
        "rejected": [_rejected(entry) for entry in ledger.rejected],
        "holds": {user: _with_moments(hold) for user, hold in ledger.holds.items()},
        "last_success": ledger.last_success and ledger.last_success._asdict(),
        "last_failure": ledger.last_failure and _with_moments(ledger.last_failure),
    }
    for name in ("waiting", "retired", "skipped", "targets"):
        raw[name] = [dataclasses.asdict(item) for item in getattr(ledger, name)]
    return raw


def _rejected(entry: RejectedEntry) -> dict[str, object]:
    return {**dataclasses.asdict(entry), "fingerprints": sorted(entry.fingerprints)}


def _with_moments(value: Hold | Failure) -> dict[str, object]:
    """The fields, moments as objects."""
    names = (field.name for field in dataclasses.fields(value))
    pairs = ((name, getattr(value, name)) for name in names)
    return {n: v._asdict() if isinstance(v, Moment) else v for n, v in pairs}


def decode(data: bytes) -> Ledger:
    """Raises one of UNDECODABLE when the text is not what `encode` writes."""
    raw = json.loads(data)
    if raw["schema"] == 1:
        raw = _from_first_schema(raw)
    elif raw["schema"] != SCHEMA:
        raise ValueError(f"schema {raw['schema']!r} is not {SCHEMA}")
    keys = [_typed(KnownKey, key) for key in raw["keys"]]
    rejected = (_typed(RejectedEntry, entry) for entry in raw["rejected"])
    _check_type("account_id", raw["account_id"], "int | None")
    return Ledger(
        account_id=raw["account_id"],
        keys={key.fingerprint: key for key in keys},
        rejected=tuple(replace(one, fingerprints=frozenset(one.fingerprints)) for one in rejected),
        holds={str(user): _typed(Hold, hold) for user, hold in raw["holds"].items()},
        waiting=_all(WaitingKey, raw["waiting"]),
        retired=_all(Retired, raw["retired"]),
        skipped=_all(SkippedFile, raw.get("skipped", [])),  # newer than the schema
        last_success=_moment(raw["last_success"]),
        last_failure=_typed(Failure, raw["last_failure"]) if raw["last_failure"] else None,
        targets=_all(TargetOutcome, raw["targets"]),
    )


def _moment(raw: object) -> Moment | None:
    return None if raw is None else Moment.from_json(raw)


def _from_first_schema(raw: Mapping[str, object]) -> dict[str, object]:
    """What a keysync before holds per user wrote; a hold that was running starts over."""
    new = {**raw, "holds": {}, "waiting": [], "retired": []}
    items: Callable[[str], list[dict[str, object]]] = lambda name: list(raw[name])  # type: ignore[call-overload]  # noqa: E731  # reason: JSON; a wrong kind is undecodable
    new["keys"] = [{**key, "accepted_at": _accepted_at(key)} for key in items("keys")]
    new["targets"] = [{**target, "origin": "configured"} for target in items("targets")]
    success, failure = raw["last_success"], raw["last_failure"]
    new["last_success"] = success and _wall(success)
    if isinstance(failure, dict):
        new["last_failure"] = {**failure, "since": _wall(failure["at"])}
    return new


def _accepted_at(key: Mapping[str, object]) -> object:
    """In the first schema every usable key that was listed was let in."""
    return key["first_listed"] if key["key_type"] and not key["revoked_at"] else None


def _wall(at: object) -> dict[str, object]:
    return {"at": at, "boot": "", "seconds": 0.0}


def salvaged_account(data: bytes) -> int | None:
    """Whose machine it was, from a ledger that is otherwise of no use: the pin must hold (G4)."""
    found = _ACCOUNT.search(data)
    return int(found[1]) if found else None


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "frozenset[str]": (list,),
}


def _all(kind: type[_T], raw: list[dict[str, object]]) -> tuple[_T, ...]:
    return tuple(_typed(kind, item) for item in raw)


def _typed(kind: type[_T], raw: dict[str, object]) -> _T:
    """An instance of the dataclass `kind` from JSON, each field of the type it declares."""
    values: dict[str, object] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # reason: always a dataclass
        value = raw[field.name]
        if field.type == "Moment":
            values[field.name] = Moment.from_json(value)
        else:
            _check_type(field.name, value, str(field.type))
            values[field.name] = value
    return kind(**values)


def _check_type(name: str, value: object, declared: str) -> None:
    items = value if isinstance(value, list) else ()
    if (
        isinstance(value, bool)
        or not isinstance(value, _TYPES[declared])
        or not all(isinstance(item, str) for item in items)
        or (declared in ("int", "float") and not is_sane(value))
    ):
        raise TypeError(f"{name} is no {declared}")
