"""The options field of an authorized_keys line, parsed as sshd parses it.

The source is "AUTHORIZED_KEYS FILE FORMAT" in sshd(8), sshauthopt_parse in auth-options.c, and, for
checks that sshd makes at login, auth_authorise_keyopts in auth2-pubkeyfile.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from agent.core.option_values import (
    expiry_time,
    from_problem,
    is_tunnel,
    names_service,
    permit_problem,
    variable_name,
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
_VALUED = _SINGLE | {b"environment", b"expiry-time", b"permitlisten", b"permitopen", b"tunnel"}
_NO_SESSION = frozenset({"cert-authority", "command", "expiry-time", "principals"})
_MAX_PERMITS = 4097  # SSH_AUTHOPT_PERMIT_MAX + 1: sshd checks before it adds one
_MAX_VARIABLES = 1025  # SSH_AUTHOPT_ENV_MAX + 1
_NAMES = {
    name: name.decode("ascii")  # one str object for all lines
    for name in (*_FLAGS, *_NEGATABLE, *(b"no-" + name for name in _NEGATABLE), *_VALUED)
}

# Both expect text whose escaped quotes were replaced. _STRETCH is limited and matched repeatedly,
# because the regex engine stores state for each repetition of a group.
_STRETCH = re.compile(rb'(?:[^ \t"]+|"[^"]*"){1,1000}')
_OPTION = re.compile(rb'(?!\Z)([^,=]*)(?:=("[^"]*"?|))?(,+|\Z)?')


@dataclass(frozen=True, slots=True)
class Options:
    """The parsed options of one line.

    `names` are in the order of the line. `problem` says why sshd ignores the line, None if it does
    not. `expiries` are the times of `expiry-time`; the earliest one counts. `depends_on_service` is
    set when sshd ignores the line unless services(5) has a certain name. `unread` options were
    not parsed, because the file has too many of them (G12); only sshd knows their effect.
    """

    names: tuple[str, ...]
    problem: str | None = None
    expiries: tuple[datetime, ...] = ()
    depends_on_service: bool = False
    unread: bool = False

    @property
    def is_authority(self) -> bool:
        """Whether the line admits certificates that the key signed, not the key itself."""
        return "cert-authority" in self.names

    @property
    def lets_key_in(self) -> bool:
        """Whether sshd accepts the key, at least from some address and at some time."""
        return self.problem is None and not self.is_authority

    @property
    def depends(self) -> bool:
        """Whether it depends on the address, on a service name, or on options not parsed."""
        return self.depends_on_service or self.unread or "from" in self.names

    @property
    def opens_session(self) -> bool:
        """Whether a person gets a session by this line: no forced command, no expiry time."""
        certain = self.problem is None and not self.depends_on_service and not self.unread
        return certain and _NO_SESSION.isdisjoint(self.names)


UNREAD = Options((), unread=True)


def end_of_options(text: bytes) -> int | None:
    """The length of the options field at the start of `text`; None when a quote is not closed.

    As in sshkey_advance_past_options, a backslash escapes a quote, even outside quotes.
    """
    plain = text.replace(b'\\"', b"__")
    at = 0
    while found := _STRETCH.match(plain, at):
        at = found.end()
    return None if plain[at : at + 1] == b'"' else at


def parse_options(text: bytes) -> Options:
    """The options in the field `text`, with the first reason why sshd ignores the line, if any."""
    found = _Found()
    text = text.lstrip(b",")  # sshd skips empty options, also at either end
    for option in _OPTION.finditer(text.replace(b'\\"', b"__")):
        name, start, end = option[1].lower(), *option.span(2)
        problem = _problem(name, None if start < 0 else text[start:end], found)
        if problem is None and option[3] is None:
            problem = _UNKNOWN
        if problem:
            return Options(tuple(found.names), problem)
        found.names.append(_NAMES[name])
    problem = _problem_of_all(found)
    return Options(tuple(found.names), problem, tuple(found.expiries), found.depends_on_service)


_UNKNOWN = "unknown key option"


@dataclass(slots=True)
class _Found:
    """The options parsed so far."""

    names: list[str] = field(default_factory=list)
    expiries: list[datetime] = field(default_factory=list)
    variables: set[bytes] = field(default_factory=set)
    permits: dict[bytes, int] = field(default_factory=dict)
    sources: bytes | None = None  # the value of from=
    depends_on_service: bool = False


def _problem(name: bytes, value: bytes | None, found: _Found) -> str | None:
    if (value is not None) != (name in _VALUED) or name not in _NAMES:
        return _UNKNOWN
    if value is None:
        return None
    if name in _SINGLE and _NAMES[name] in found.names:
        return f'multiple "{_NAMES[name]}" clauses'
    if len(value) < 2:
        return "missing start quote"
    return _problem_of_value(name, value[1:-1].replace(b'\\"', b'"'), found)


def _problem_of_all(found: _Found) -> str | None:
    """Why sshd refuses the key at login although its options are valid (auth_authorise_keyopts)."""
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
    moment = expiry_time(value)
    if moment is None:
        return "invalid expires time"
    found.expiries.append(moment)
    return None


def _problem_of_variable(value: bytes, found: _Found) -> str | None:
    if len(found.variables) >= _MAX_VARIABLES:
        return "too many environment strings"
    name = variable_name(value)
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
    found.depends_on_service = found.depends_on_service or names_service(value)
    return permit_problem(value)
