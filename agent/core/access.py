"""Whether sshd lets the key of one line in at a given moment, and why not.

This is about the line alone. Whether sshd lets the user in at all (AllowUsers, PermitRootLogin, the
modes of the file) does not depend on a line.
"""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum

from agent.core.authorized_keys import REFUSED_TYPE, Line, LineKind
from agent.core.public_key import Accepts, PublicKey, not_asked


class Login(Enum):
    """Whether sshd lets a key in by a line; the values are those of `status --json`."""

    YES = "yes"
    DEPENDS = "depends"  # on the address (from=), or on a service name the machine may not know
    CERTIFICATES = "certificates"  # lets in certificates that the key signed, not the key itself
    NO = "no"


class Access(Enum):
    """Why a key line is in the file; the values are those of `status --json`."""

    MANAGED = "managed"
    PINNED = "pinned"
    RESTRICTED = "restricted"
    FOREIGN = "foreign"

    @classmethod
    def of(cls, line: Line, *, pinned: bool) -> Access:
        """For a line with a key; `pinned` says whether the configuration pins that key."""
        if line.kind is LineKind.RESTRICTED:
            return cls.RESTRICTED
        if pinned:
            return cls.PINNED
        return cls.MANAGED if line.kind is LineKind.MANAGED else cls.FOREIGN


_UNREAD = "this file has too many options for keysync to read; only sshd knows whether it lets in"


def judge(line: Line, now: datetime, accepts: Accepts = not_asked) -> tuple[Login, str]:
    """Whether the line lets its key in, and a note on what is special about it (or "").

    `accepts` tells whether sshd accepts a key type. Whether the line is a way in for a person is
    another question: `Line.opens_session_for` (G3). The rules are those of sshd(8),
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
        return Login.NO, f"expired at {_text(end)}"
    if options.is_authority:
        return Login.CERTIFICATES, "for certificates that this key signed, not for the key itself"
    note = f"expires at {_text(end)}" if end else _UNREAD if options.unread else ""
    return (Login.DEPENDS if options.depends else Login.YES), note


def _refusal_of_type(key: PublicKey, accepts: Accepts) -> str:
    if key.key_type == REFUSED_TYPE:
        return "sshd takes no DSA key"
    if key.accepted_by(accepts):
        return ""
    if accepts(key.key_type) is None:
        return f"sshd could not be asked whether it accepts keys of the type {key.key_type}"
    return f"this machine's sshd does not accept keys of the type {key.key_type}"


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
