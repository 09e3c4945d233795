"""The ledger as bytes: state.json, which has a schema version and is read strictly."""

from __future__ import annotations

import re

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
        if raw.get("schema") != _SCHEMA:
            raise ValueError(f"its schema is {raw.get('schema')!r}, not {_SCHEMA}")
        keys = {key["fingerprint"]: key for key in raw["keys"]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from error
    return from_json(Ledger, {**raw, "keys": keys})


def salvaged_account(data: bytes) -> int | None:
    """The account id in a ledger that is otherwise unusable: the account pin must hold (G4).

    The beginning of the file is enough.
    """
    found = _ACCOUNT.search(data)
    return int(found[1]) if found else None
