"""An authorized_keys file as a lossless document of lines, parsed as sshd parses it.

The source is "AUTHORIZED_KEYS FILE FORMAT" in sshd(8) and, for what it does not specify,
auth2-pubkeyfile.c and sshkey_read in sshkey.c: only a newline ends a line, sshd ignores a NUL and
what follows it, and a key is looked for at the start of a line first, then after one options field.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from agent.core.options import UNREAD, Options, end_of_options, parse_options
from agent.core.public_key import (
    Accepts,
    PublicKey,
    canonical_type,
    decode_base64,
    without_sshd,
)
from agent.core.text import printable
from agent.core.wire import InvalidKey

TAG = b"keysync:managed"
MAX_OPTIONS_BYTES = 4 << 20  # total size of the lines in one file whose options are parsed
_BLANKS = b" \t"
_BLANKS_AND_CR = b" \t\r"
# Not blank, not a comment, and at least as long as the shortest key with the shortest type.
_POSSIBLE_KEY = re.compile(rb"^[ \t]*[^ \t\n#][^\n]{14,}", re.MULTILINE)
IGNORED_IN_BASE64 = b"\r\v\f"  # white space that sshd skips inside key data
_KEY_DATA = re.compile(r"AAAA[A-Za-z0-9+/=]{20,}")  # of a second key, inside a comment
REFUSED_TYPE = "ssh-dss"  # parsed by sshd, but never accepted since OpenSSH 7.0


class LineKind(Enum):
    """What a line is, which decides what keysync may do with it."""

    MANAGED = "managed"  # a key without options, with keysync's tag
    PLAIN = "plain"  # a key without options and without the tag
    RESTRICTED = "restricted"  # a key with options, with or without the tag
    OTHER = "other"  # blank, comment, or not a key to sshd: one or more lines


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its newline; `key` is None if and only if `kind` is OTHER.

    Consecutive lines of kind OTHER are one value, so that a file full of them costs no more memory
    than its bytes (G12).
    """

    raw: bytes
    kind: LineKind
    key: PublicKey | None = None
    comment: bytes = b""
    options: Options | None = None

    @property
    def lets_key_in(self) -> bool:
        """Whether sshd accepts the key by this line, at least from some address and at some time.

        Always False for a key of an unknown type; `lets_in` asks sshd about the type.
        """
        return self.lets_in(without_sshd)

    def lets_in(self, accepts: Accepts) -> bool:
        """`lets_key_in`, where `accepts` tells which key types sshd accepts."""
        if self.key is None or self.key.key_type == REFUSED_TYPE:
            return False
        allowed = self.options is None or self.options.lets_key_in
        return allowed and self.key.accepted_by(accepts)

    def opens_session_for(self, accepts: Accepts) -> bool:
        """Whether a person with the key gets a session by this line, given the key types that
        `accepts` says sshd accepts.
        """
        allowed = self.options is None or self.options.opens_session
        return allowed and self.lets_in(accepts)


def parse_line(raw: bytes, *, read_options: bool = True) -> Line:
    """The line in `raw`, which has no newline; of kind OTHER if sshd finds no key in it.

    Without `read_options` the options are not parsed and count as `UNREAD`.
    """
    text = raw.partition(b"\0")[0].lstrip(_BLANKS)
    if not text or text[:1] == b"#":
        return Line(raw, LineKind.OTHER)
    found = _read_key(text)
    if found is not None:
        key, comment = found
        kind = LineKind.MANAGED if _last_word(comment) == TAG else LineKind.PLAIN
        return Line(raw, kind, key, comment)
    end = end_of_options(text)
    found = None if end is None else _read_key(text[end:].lstrip(_BLANKS))
    if found is None:
        return Line(raw, LineKind.OTHER)
    key, comment = found
    options = parse_options(text[:end]) if read_options else UNREAD
    return Line(raw, LineKind.RESTRICTED, key, comment, options)


def _read_key(text: bytes) -> tuple[PublicKey, bytes] | None:
    """The key at the start of `text` and the comment after it (sshkey_read)."""
    name, rest = _first_field(text)
    declared = canonical_type(name)
    if declared is None:
        return None
    field, comment = _first_field(rest)
    try:
        key = PublicKey.from_blob(decode_base64(field.translate(None, IGNORED_IN_BASE64)))
    except InvalidKey:
        return None
    if key.key_type.encode("ascii") != declared:
        return None
    return key, comment.rstrip(_BLANKS_AND_CR)


def _first_field(text: bytes) -> tuple[bytes, bytes]:
    """The text up to the first space or tab, and the text after those blanks."""
    at = text.find(b" ")
    field = text if at < 0 else text[:at]
    at = field.find(b"\t")
    field = field if at < 0 else field[:at]
    return field, text[len(field) :].lstrip(_BLANKS)


def _last_word(comment: bytes) -> bytes:
    return comment.replace(b"\t", b" ").rpartition(b" ")[2]


def managed_line(key: PublicKey, comment: str) -> Line:
    """A new line with keysync's tag; any tags within `comment` are removed."""
    words = [word for word in comment.split() if word.encode("utf-8") != TAG]
    return parse_line(key.line(" ".join([*words, TAG.decode("ascii")])))


def adopted_line(line: Line) -> Line:
    """The line with the tag added at the end, but before any trailing CR or NUL."""
    body = line.raw.partition(b"\0")[0].rstrip(_BLANKS_AND_CR)
    return parse_line(body + b" " + TAG + line.raw[len(body) :])


def without_tags(document: AuthorizedKeys) -> AuthorizedKeys:
    """The document with managed lines turned into plain ones, which reverses `adopted_line`."""
    lines = tuple(map(_untagged_line, document.lines))
    return AuthorizedKeys(lines, document.ends_with_newline)


def _untagged_line(line: Line) -> Line:
    while line.kind is LineKind.MANAGED:
        body = line.raw.partition(b"\0")[0].rstrip(_BLANKS_AND_CR)
        untagged = body.removesuffix(TAG)[:-1]  # without the blank before the tag
        line = parse_line(untagged + line.raw[len(body) :])
    return line


def shown_comment(line: Line) -> str:
    """The comment for display: without the tag and key data, printable, at most 80 characters."""
    comment = line.comment.removesuffix(TAG) if line.kind is LineKind.MANAGED else line.comment
    return printable(_KEY_DATA.sub("[key]", comment.decode("utf-8", "backslashreplace")))


@dataclass(frozen=True, slots=True)
class AuthorizedKeys:
    """A complete file; `AuthorizedKeys.parse(data).render() == data` for any bytes."""

    lines: tuple[Line, ...]
    ends_with_newline: bool = True

    @classmethod
    def parse(cls, data: bytes) -> AuthorizedKeys:
        """The document in `data`; any bytes are valid, and only the byte 0x0A ends a line."""
        complete = not data or data.endswith(b"\n")
        return cls(tuple(_lines(data.removesuffix(b"\n"))) if data else (), complete)

    def numbered(self) -> Iterator[tuple[int, Line]]:
        """Each value of `lines` with its line number in the file, which starts at 1."""
        number = 1
        for line in self.lines:
            yield number, line
            number += 1 + line.raw.count(b"\n")

    def render(self) -> bytes:
        """The bytes of the file."""
        text = b"\n".join(line.raw for line in self.lines)
        return text + b"\n" if self.lines and self.ends_with_newline else text

    def edited(self, edits: Mapping[int, Line | None], appended: Iterable[Line]) -> AuthorizedKeys:
        """The document with lines replaced by index, or removed where the edit is None.

        `appended` follows at the end. A last line without a newline gets one only if lines follow.
        """
        kept = [edits.get(at, line) for at, line in enumerate(self.lines)]
        lines = tuple(line for line in kept if line is not None)
        added = tuple(appended)
        last_stays = bool(kept) and kept[-1] is not None
        complete = self.ends_with_newline or bool(added) or not last_stays
        return AuthorizedKeys(lines + added, complete)


def _lines(text: bytes) -> Iterator[Line]:
    """The lines with keys and the text between them; options are parsed up to MAX_OPTIONS_BYTES."""
    start, options_room = 0, MAX_OPTIONS_BYTES
    for found in _POSSIBLE_KEY.finditer(text):
        line = parse_line(found[0], read_options=len(found[0]) <= options_room)
        if line.key is None:
            continue
        if line.options and not line.options.unread:
            options_room -= len(line.raw)
        if start < found.start():
            yield Line(text[start : found.start() - 1], LineKind.OTHER)
        yield line
        start = found.end() + 1
    if start <= len(text):
        yield Line(text[start:], LineKind.OTHER)


def may_hold_more_keys(data: bytes, limit: int) -> bool:
    """Whether more than `limit` lines may hold a key; blank lines and comments do not count."""
    if data.count(b"\n") < limit:
        return False
    found = _POSSIBLE_KEY.finditer(data)
    return next(itertools.islice(found, limit, None), None) is not None
