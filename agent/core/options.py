"""The options field of an authorized_keys line, read as sshd does.

The source is "AUTHORIZED_KEYS FILE FORMAT" in sshd(8), sshauthopt_parse in auth-options.c, and
auth_authorise_keyopts in auth2-pubkeyfile.c for what only shows when somebody logs in.
"""

from __future__ import annotations

import re
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
_VALUED = _SINGLE | {b"environment", b"expiry-time", b"permitlisten", b"permitopen", b"tunnel"}
_NO_SESSION = frozenset({"cert-authority", "command", "expiry-time", "principals"})
_MAX_PERMITS = 4097  # SSH_AUTHOPT_PERMIT_MAX and one, as sshd counts
_MAX_VARIABLES = 1025  # SSH_AUTHOPT_ENV_MAX and one
_NAMES = {
    name: name.decode("ascii")  # one text for all lines
    for name in (*_FLAGS, *_NEGATABLE, *(b"no-" + name for name in _NEGATABLE), *_VALUED)
}

# Both are for text whose escaped quotes were replaced. The first one is matched again and again,
# since what a repetition of groups matches at once is remembered for each of them.
_STRETCH = re.compile(rb'(?:[^ \t"]+|"[^"]*"){1,1000}')
_OPTION = re.compile(rb'(?!\Z)([^,=]*)(?:=("[^"]*"?|))?(,+|\Z)?')


@dataclass(frozen=True, slots=True)
class Options:
    """The names in order, and why sshd would ignore the line (None when it would not).

    `expiries` are the moments of `expiry-time`, of which the first to come counts; `unsure` is set
    when the line is good only on a machine that knows a certain name in services(5). `unread`
    options were too many to be read (G12): only sshd can say what it makes of the line.
    """

    names: tuple[str, ...]
    problem: str | None = None
    expiries: tuple[datetime, ...] = ()
    unsure: bool = False
    unread: bool = False

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
        """Whether only sshd can say: the line asks for an address or a service, or is unread."""
        return self.unsure or self.unread or "from" in self.names

    @property
    def opens_session(self) -> bool:
        """Whether a person can still work through this line: no forced command, no end date."""
        sure = self.problem is None and not self.unsure and not self.unread
        return sure and _NO_SESSION.isdisjoint(self.names)


UNREAD = Options((), unread=True)


def end_of_options(text: bytes) -> int | None:
    """Where the options field at the front of `text` ends; None when a quote never closes.

    This is sshkey_advance_past_options: a backslash escapes a quote, also outside of quotes.
    """
    plain = text.replace(b'\\"', b"__")
    at = 0
    while found := _STRETCH.match(plain, at):
        at = found.end()
    return None if plain[at : at + 1] == b'"' else at


def parse_options(text: bytes) -> Options:
    """The options named in `text`, and the first reason for which sshd would refuse them."""
    found = _Found()
    text = text.lstrip(b",")  # sshd steps over an empty option, also at either end
    for option in _OPTION.finditer(text.replace(b'\\"', b"__")):
        name, start, end = option[1].lower(), *option.span(2)
        problem = _problem(name, None if start < 0 else text[start:end], found)
        if problem is None and option[3] is None:
            problem = _UNKNOWN
        if problem:
            return Options(tuple(found.names), problem)
        found.names.append(_NAMES[name])
    problem = _problem_of_all(found)
    return Options(tuple(found.names), problem, tuple(found.expiries), found.unsure)


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
