"""What sshd makes of one line at a given moment: whether its key can log in by it, and why not.

This is about the line. Whether sshd lets the user in at all (AllowUsers, PermitRootLogin, the modes
of the file) is no matter of a line.
"""

from __future__ import annotations

from datetime import datetime, timezone

from agent.core.authorized_keys import Line

YES = "yes"
DEPENDS = "depends"  # on the address (from=), or on a service's name that the machine may know
CERTIFICATES = "certificates"  # that the key signed, and not the key itself
NO = "no"


def judge(line: Line, now: datetime) -> tuple[str, str]:
    """One of the four words above, and what must be known about it."""
    options = line.options
    if options is None:
        return (YES, "") if line.lets_key_in else (NO, "sshd takes no DSA key")
    if options.problem:
        return NO, f"sshd ignores this line: {options.problem}"
    if not options.is_authority and not line.lets_key_in:
        return NO, "sshd takes no DSA key"
    end = min((moment.astimezone(timezone.utc) for moment in options.expiries), default=None)
    if end is not None and end < now:
        return NO, f"expired at {_text(end)}"
    if options.is_authority:
        return CERTIFICATES, "for certificates that this key signed, not for the key itself"
    note = f"expires at {_text(end)}" if end else ""
    return (DEPENDS if options.depends else YES), note


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
