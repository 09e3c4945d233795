"""The ledger as bytes: state.json, which has a schema version and is read strictly.

The first schema can be read too, so that an upgrade loses neither the account nor a known key.
"""

from __future__ import annotations

import re
from typing import Any

from agent.adapters.typed_json import fields_of, from_json, json_bytes, json_object
from agent.core.ledger import Ledger

_SCHEMA = 2
_ACCOUNT = re.compile(rb'"account_id": *([0-9]{1,18})[,\s}]')


def encode(ledger: Ledger) -> bytes:
    """The bytes of state.json; `account_id` comes first, for `salvaged_account`."""
    keys = list(ledger.keys.values())
    return json_bytes({**fields_of(ledger), "schema": _SCHEMA, "keys": keys})


def decode(data: bytes) -> Ledger:
    """The ledger in `data`.

    Raises ValueError, which says what is wrong, unless it is what `encode` writes.
    """
    raw = json_object(data)
    try:
        schema = raw.get("schema")
        if schema == 1:
            raw = _from_first_schema(raw)
        elif schema != _SCHEMA:
            raise ValueError(f"its schema is {schema!r}, not {_SCHEMA}")
        keys = {key["fingerprint"]: key for key in raw["keys"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from error
    skipped = raw.get("skipped", [])  # younger than the schema
    return from_json(Ledger, {**raw, "keys": keys, "skipped": skipped})


def _from_first_schema(raw: dict[str, Any]) -> dict[str, Any]:
    """As the second schema, which has holds for each user: a hold in progress starts again.

    Raises KeyError or TypeError when it is damaged.
    """
    failure = raw["last_failure"]
    return {
        **raw,
        "keys": [{**key, "accepted_at": _accepted_at(key)} for key in raw["keys"]],
        "holds": {},
        "waiting": [],
        "retired": [],
        "last_success": _wall_time(raw["last_success"]),
        "last_failure": failure and {**failure, "since": _wall_time(failure["at"])},
        "targets": [{**target, "origin": "configured"} for target in raw["targets"]],
    }


def _accepted_at(key: dict[str, Any]) -> object:
    """In the first schema every usable key that was listed was let in."""
    return key["first_listed"] if key["key_type"] and not key["revoked_at"] else None


def _wall_time(at: object) -> object:
    """A `Moment` of which only the wall clock's time is known."""
    return None if at is None else {"at": at, "boot": "", "seconds": 0.0}


def salvaged_account(data: bytes) -> int | None:
    """The account id in a ledger that is otherwise unusable: the account pin must hold (G4).

    The beginning of the file is enough.
    """
    found = _ACCOUNT.search(data)
    return int(found[1]) if found else None
