"""How the API answers, and what can be wrong with it: switches, to be turned while it serves."""

import base64
import secrets
import struct
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

ListShape: TypeAlias = Literal["list", "wrapped"]
KeyField: TypeAlias = Literal["key", "public_key", "ssh_key"]
BadKeyStatus: TypeAlias = Literal[404, 401]
Seconds: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# outage           the connection is closed without an answer
# slow             the right answer, `slow_seconds` late
# error_500        500 with the usual error object
# rate_limited     429 in plain text, without Retry-After
# empty_list       a well-formed list with nothing in it
# html             a page with status 200
# truncated        the first half of the right answer, with a matching Content-Length
# another_account  the list and the user of a stranger
FAULTS = (
    "outage",
    "slow",
    "error_500",
    "rate_limited",
    "empty_list",
    "html",
    "truncated",
    "another_account",
)


@dataclass(slots=True)
class Switches:
    """How the API answers; every field may be changed while it serves.

    shape           a bare list as documented, or `{"ssh_keys": [...]}` as some clients expect
    key_field       where an entry of the list keeps the key's text
    include_deleted whether the list also shows entries whose `deleted_at` is set
    min_interval    seconds between two requests of one identity per endpoint and method; 0 is off
    etag            whether the list carries an ETag and honours If-None-Match (RFC 9110 §13.1.2)
    bad_key_status  what a bad API key gets: 404 as it is reported, or 401 as it is documented
    fault           one of `FAULTS`, or None; the page and the control API go on
    slow_seconds    how late the answers of the fault `slow` are
    """

    shape: ListShape = "list"
    key_field: KeyField = "key"
    include_deleted: bool = False
    min_interval: Seconds = 0.0
    etag: bool = False
    bad_key_status: BadKeyStatus = 404
    fault: str | None = None
    slow_seconds: Seconds = 3.0


def checked_fault(name: str | None) -> str | None:
    """The name of a fault or None, raising `ValueError` with the right names for any other."""
    if name is not None and name not in FAULTS:
        raise ValueError(f"unknown fault {name!r}; there are {', '.join(FAULTS)}")
    return name


def strangers_key() -> str:
    """A well-formed Ed25519 line (RFC 8709 §4) whose private half nobody has."""
    fields = (b"ssh-ed25519", secrets.token_bytes(32))
    blob = b"".join(struct.pack(">I", len(part)) + part for part in fields)
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} stranger"
