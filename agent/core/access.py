"""Whether one line lets its key log in at a given time, and why not.

Only the line is judged. Settings that apply to the whole user (AllowUsers, PermitRootLogin, the
modes of the file) are not.
"""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum

from agent.core.authorized_keys import REFUSED_TYPE, Line, LineKind
from agent.core.public_key import Accepts, PublicKey, without_sshd
from agent.core.times import time_text


class Login(Enum):
    """Whether a line lets its key log in; the values are public (`status --json`)."""

    YES = "yes"
    DEPENDS = "depends"  # on the client's address (from=), on services(5), or on unread options
    CERTIFICATES = "certificates"  # only certificates that the key signed, not the key itself
    NO = "no"


class Access(Enum):
    """Why a key line is in the file; the values are public (`status --json`)."""

    MANAGED = "managed"
    PINNED = "pinned"
    RESTRICTED = "restricted"
    FOREIGN = "foreign"

    @classmethod
    def of(cls, line: Line, *, pinned: bool) -> Access:
        """The reason for a line with a key; `pinned` is whether the configuration pins the key."""
        if line.kind is LineKind.RESTRICTED:
            return cls.RESTRICTED
        if pinned:
            return cls.PINNED
        return cls.MANAGED if line.kind is LineKind.MANAGED else cls.FOREIGN


_UNREAD = "not checked: the file has too many options; only sshd knows whether this key can log in"


def judge(line: Line, now: datetime, accepts: Accepts = without_sshd) -> tuple[Login, str]:
    """Whether the line lets its key log in at `now`, and a note about it, which may be empty.

    `accepts` tells whether sshd accepts a key type. Whether a person gets a session by the line is
    another question, which `Line.opens_session_for` answers (G3). The rules are those of sshd(8),
    AUTHORIZED_KEYS FILE FORMAT.
    """
    options = line.options
    if options and options.problem:
        return Login.NO, f"sshd ignores this line: {options.problem}"
    is_authority = options is not None and options.is_authority
    refusal = "" if is_authority or line.key is None else _refusal_of_type(line.key, accepts)
    if refusal:
        return Login.NO, refusal
    if options is None:
        return Login.YES, ""
    end = min((moment.astimezone(timezone.utc) for moment in options.expiries), default=None)
    if end is not None and end < now:
        return Login.NO, f"expired at {time_text(end)}"
    if options.is_authority:
        return Login.CERTIFICATES, "for certificates that this key signed, not for the key itself"
    note = f"expires at {time_text(end)}" if end else _UNREAD if options.unread else ""
    return (Login.DEPENDS if options.depends else Login.YES), note


def _refusal_of_type(key: PublicKey, accepts: Accepts) -> str:
    if key.key_type == REFUSED_TYPE:
        return "sshd accepts no DSA keys"
    if key.accepted_by(accepts):
        return ""
    if accepts(key.key_type) is None:
        return f"sshd could not be asked whether it accepts keys of the type {key.key_type}"
    return f"this machine's sshd does not accept keys of the type {key.key_type}"
