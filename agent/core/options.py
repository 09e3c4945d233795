"""The options field of an authorized_keys line, read as sshd does.

The source is "AUTHORIZED_KEYS FILE FORMAT" in sshd(8), sshauthopt_parse in auth-options.c, and
auth_authorise_keyopts in auth2-pubkeyfile.c for what only shows when somebody logs in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from agent.core.option_values import (
    expiry,
    from_problem,
    is_tunnel,
    names_service,
    permit_problem,
    variable,
)

_FLAGS = frozenset({b"restrict", b"cert-authority"})
_NEGATABLE = frozenset(
    {
        b"agent-forwarding",
        b"port-forwarding",
        b"pty",
        b"touch-required",
        b"user-rc",
        b"verify-required",
        b"x11-forwarding",
    }
)
_SINGLE = frozenset({b"command", b"from", b"principals"})
_REPEATABLE = frozenset({b"environment", b"expiry-time", b"permitlisten", b"permitopen", b"tunnel"})
_NO_SESSION = frozenset({"cert-authority", "command", "expiry-time", "principals"})
_MAX_PERMITS = 4097  # SSH_AUTHOPT_PERMIT_MAX and one, as sshd counts
_MAX_VARIABLES = 1025  # SSH_AUTHOPT_ENV_MAX and one


@dataclass(frozen=True, slots=True)
class Options:
    """The names in order, and why sshd would ignore the line (None when it would not).

    `expiries` are the moments of `expiry-time`, of which the first to come counts; `unsure` is set
    when the line is good only on a machine that knows a certain name in services(5).
    """

    names: tuple[str, ...]
    problem: str | None = None
    expiries: tuple[datetime, ...] = ()
    unsure: bool = False

    @property
    def is_authority(self) -> bool:
        """Whether the line is for certificates that the key signed, and not for the key."""
        return "cert-authority" in self.names

    @property
    def lets_key_in(self) -> bool:
        """Whether sshd takes the key, from some address and at some time at least."""
        return self.problem is None and not self.is_authority

    @property
    def depends(self) -> bool:
        """Whether only sshd can say, since the line asks for an address or a known service."""
        return self.unsure or "from" in self.names

    @property
    def opens_session(self) -> bool:
        """Whether a person can still work through this line: no forced command, no end date."""
        return self.problem is None and not self.unsure and _NO_SESSION.isdisjoint(self.names)


def end_of_options(text: bytes) -> int | None:
    """Where the options field at the front of `text` ends; None when a quote never closes.

    This is sshkey_advance_past_options: a backslash escapes a quote, also outside of quotes.
    """
    quoted = False
    at = 0
    while at < len(text) and (quoted or text[at] not in b" \t"):
        if text[at : at + 2] == b'\\"':
            at += 1
        elif text[at] == ord('"'):
            quoted = not quoted
        at += 1
    return None if quoted else at


def parse_options(text: bytes) -> Options:
    """The options named in `text`, and the first reason for which sshd would refuse them."""
    found = _Found()
    at = 0
    while at < len(text):
        if text[at] == ord(","):  # sshd steps over an empty option, also at either end
            at += 1
            continue
        name, value, at = _read_option(text, at)
        problem = _problem(name, value, found)
        if problem is None and text[at : at + 1] not in (b"", b","):
            problem = _UNKNOWN
        if problem:
            return Options(tuple(found.names), problem)
        found.names.append(name.decode("ascii"))
    problem = _problem_of_all(found)
    return Options(tuple(found.names), problem, tuple(found.expiries), found.unsure)


def _read_option(text: bytes, start: int) -> tuple[bytes, bytes | None, int]:
    """The lower-case name of the option at `start`, its raw value or None, and where it ends."""
    at = start
    while at < len(text) and text[at] not in b",=":
        at += 1
    name = text[start:at].lower()
    if text[at : at + 1] != b"=":
        return name, None, at
    end = _end_of_value(text, at + 1)
    return name, text[at + 1 : end], end


def _end_of_value(text: bytes, start: int) -> int:
    """Behind the closing quote of the value at `start` (opt_dequote); `start` if unquoted."""
    if text[start : start + 1] != b'"':
        return start
    at = start + 1
    while at < len(text) and text[at] != ord('"'):
        at += 2 if text[at : at + 2] == b'\\"' else 1
    return at + 1


_UNKNOWN = "unknown key option"


@dataclass(slots=True)
class _Found:
    """What the options up to here say."""

    names: list[str] = field(default_factory=list)
    expiries: list[datetime] = field(default_factory=list)
    variables: set[bytes] = field(default_factory=set)
    permits: dict[bytes, int] = field(default_factory=dict)
    sources: bytes | None = None  # the value of from=
    unsure: bool = False


def _problem(name: bytes, value: bytes | None, found: _Found) -> str | None:
    flag = name if name in _NEGATABLE else name.removeprefix(b"no-")
    if name in _FLAGS or flag in _NEGATABLE:
        return None if value is None else _UNKNOWN
    if name not in _SINGLE | _REPEATABLE or value is None:
        return _UNKNOWN
    if name in _SINGLE and name.decode("ascii") in found.names:
        return f'multiple "{name.decode("ascii")}" clauses'
    if len(value) < 2:
        return "missing start quote"
    return _problem_of_value(name, value[1:-1].replace(b'\\"', b'"'), found)


def _problem_of_all(found: _Found) -> str | None:
    """For what sshd refuses the key though it could read the options (auth_authorise_keyopts)."""
    if "principals" in found.names and "cert-authority" not in found.names:
        return "principals on non-CA key"
    return None if found.sources is None else from_problem(found.sources)


def _problem_of_value(name: bytes, value: bytes, found: _Found) -> str | None:
    if name == b"from":
        found.sources = value
    elif name == b"expiry-time":
        return _problem_of_expiry(value, found)
    elif name == b"environment":
        return _problem_of_variable(value, found)
    elif name in (b"permitlisten", b"permitopen"):
        return _problem_of_permit(name, value, found)
    elif name == b"tunnel" and not is_tunnel(value):
        return "invalid tun device"
    return None


def _problem_of_expiry(value: bytes, found: _Found) -> str | None:
    moment = expiry(value)
    if moment is None:
        return "invalid expires time"
    found.expiries.append(moment)
    return None


def _problem_of_variable(value: bytes, found: _Found) -> str | None:
    if len(found.variables) >= _MAX_VARIABLES:
        return "too many environment strings"
    name = variable(value)
    if name is None:
        return "invalid environment string"
    found.variables.add(name)
    return None


def _problem_of_permit(name: bytes, value: bytes, found: _Found) -> str | None:
    count = found.permits[name] = found.permits.get(name, 0) + 1
    if count > _MAX_PERMITS:
        return "too many permission directives"
    if name == b"permitlisten" and b":" not in value:
        value = b"*:" + value
    found.unsure = found.unsure or names_service(value)
    return permit_problem(value)
