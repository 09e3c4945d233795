"""The options field of an authorized_keys line, read as sshd does.

The source is "AUTHORIZED_KEYS FILE FORMAT" in sshd(8) and sshauthopt_parse in auth-options.c. Only
what decides whether the line can open a session is judged: names, quoting and repetition.
"""

from __future__ import annotations

from dataclasses import dataclass

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
_NO_LOGIN = frozenset({"cert-authority", "command", "expiry-time", "principals"})


@dataclass(frozen=True, slots=True)
class Options:
    """The names in order, and why sshd would ignore the line (None when it would not)."""

    names: tuple[str, ...]
    problem: str | None = None

    @property
    def opens_session(self) -> bool:
        """Whether a person can still work through this line: no forced command, no end date."""
        return self.problem is None and not _NO_LOGIN.intersection(self.names)


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


def parse_options(field: bytes) -> Options:
    """The options named in `field`, and the first reason for which sshd would refuse it."""
    names: list[str] = []
    at = 0
    while at < len(field):
        if field[at] == ord(","):  # sshd steps over an empty option, also at either end
            at += 1
            continue
        name, value, at = _read_option(field, at)
        problem = _problem(name, value, names)
        if problem is None and field[at : at + 1] not in (b"", b","):
            problem = "unknown key option"
        if problem:
            return Options(tuple(names), problem)
        names.append(name.decode("ascii"))
    return Options(tuple(names))


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


def _problem(name: bytes, value: bytes | None, seen: list[str]) -> str | None:
    flag = name if name in _NEGATABLE else name.removeprefix(b"no-")
    if name in _FLAGS or flag in _NEGATABLE:
        return None if value is None else "unknown key option"
    if name not in _SINGLE | _REPEATABLE or value is None:
        return "unknown key option"
    if len(value) < 2:
        return "missing start quote"
    if name in _SINGLE and name.decode("ascii") in seen:
        return f'multiple "{name.decode("ascii")}" clauses'
    return None
