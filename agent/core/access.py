"""What sshd makes of one line at a given moment: whether its key can log in by it, and why not.

This is about the line. Whether sshd lets the user in at all (AllowUsers, PermitRootLogin, the modes
of the file) is no matter of a line.
"""

from __future__ import annotations

from datetime import datetime, timezone

from agent.core.authorized_keys import REFUSED_TYPE, Line
from agent.core.public_key import Accepts, PublicKey, not_asked

YES = "yes"
DEPENDS = "depends"  # on the address (from=), or on a service's name that the machine may know
CERTIFICATES = "certificates"  # that the key signed, and not the key itself
NO = "no"
_UNREAD = "this file has too many options for keysync to read; only sshd knows whether it lets in"


def judge(line: Line, now: datetime, accepts: Accepts = not_asked) -> tuple[str, str]:
    """One of the four words above, and what must be known about it.

    `accepts` answers whether sshd accepts a key type. Whether the line is a way in for a person is
    another question: `Line.opens_session_for` (G3).
    """
    options = line.options
    if options and options.problem:
        return NO, f"sshd ignores this line: {options.problem}"
    is_authority = options is not None and options.is_authority
    refusal = "" if is_authority or line.key is None else _refusal_of_type(line.key, accepts)
    if refusal:
        return NO, refusal
    if options is None:
        return YES, ""
    end = min((moment.astimezone(timezone.utc) for moment in options.expiries), default=None)
    if end is not None and end < now:
        return NO, f"expired at {_text(end)}"
    if options.is_authority:
        return CERTIFICATES, "for certificates that this key signed, not for the key itself"
    note = f"expires at {_text(end)}" if end else _UNREAD if options.unread else ""
    return (DEPENDS if options.depends else YES), note


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
