"""The authorized_keys file as a document of bytes: lossless, line by line, read as sshd reads it.

The source is "AUTHORIZED_KEYS FILE FORMAT" in sshd(8); where that is silent, auth2-pubkeyfile.c and
sshkey_read in sshkey.c: a line ends at its newline and nowhere else, what follows a NUL is not
seen, a key is first tried at the front and then behind one options field.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from agent.core.options import UNREAD, Options, end_of_options, parse_options
from agent.core.public_key import (
    Accepts,
    PublicKey,
    canonical_type,
    decode_base64,
    fingerprint_of,
    not_asked,
)
from agent.core.wire import InvalidKey

TAG = b"keysync:managed"
MAX_OPTIONS_BYTES = 4 << 20  # of all lines with options in one file whose options are read
_BLANKS = b" \t"
_BLANKS_AND_CR = b" \t\r"
# Neither blank nor a comment, and as long as the shortest key with the shortest type.
_POSSIBLE_KEY = re.compile(rb"^[ \t]*[^ \t\n#][^\n]{14,}", re.MULTILINE)
_IGNORED_IN_BASE64 = b"\r\v\f"
_KEY_DATA = re.compile(r"AAAA[A-Za-z0-9+/=]{20,}")  # of a second key, glued on behind the first
REFUSED_TYPE = "ssh-dss"  # sshd reads such a line, and since OpenSSH 7.0 lets nobody in by it


class LineKind(Enum):
    """Whose line it is."""

    MANAGED = "managed"  # a key without options that carries keysync's tag
    PLAIN = "plain"  # a key without options, without the tag
    RESTRICTED = "restricted"  # a key behind an options field, tag or not
    OTHER = "other"  # blank, comment, or nothing that sshd takes for a key: one or more lines


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its newline; `key` is None exactly when `kind` is OTHER.

    Lines of kind OTHER that follow one another are one value, so that a file full of them costs no
    more than its bytes (G12).
    """

    raw: bytes
    kind: LineKind
    key: PublicKey | None = None
    comment: bytes = b""
    options: Options | None = None

    @property
    def lets_key_in(self) -> bool:
        """Whether sshd takes the key for this line, from some address and at some time at least.

        A key of an unknown type never counts here; `lets_in` judges it by what sshd accepts.
        """
        return self.lets_in(not_asked)

    @property
    def opens_session(self) -> bool:
        """Whether a person who holds the key gets a session through this line.

        A key of an unknown type never counts here; `opens_session_for` judges it.
        """
        return self.opens_session_for(not_asked)

    def lets_in(self, accepts: Accepts) -> bool:
        """`lets_key_in` on a machine whose sshd says of each key type whether it accepts it."""
        if self.key is None or self.key.key_type == REFUSED_TYPE:
            return False
        allowed = self.options is None or self.options.lets_key_in
        return allowed and self.key.accepted_by(accepts)

    def opens_session_for(self, accepts: Accepts) -> bool:
        """`opens_session` on a machine whose sshd says of each key type whether it accepts it."""
        opens = self.options is None or self.options.opens_session
        return opens and self.lets_in(accepts)


def parse_line(raw: bytes, *, read_options: bool = True) -> Line:
    """Reads one line; whatever sshd would ignore becomes a line of kind OTHER.

    Without `read_options` the line is taken as one about whose options only sshd can say anything.
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
    """The key at the front of `text` and the comment behind it (sshkey_read)."""
    name, rest = _first_field(text)
    declared = canonical_type(name)
    if declared is None:
        return None
    field, comment = _first_field(rest)
    try:
        key = PublicKey.from_blob(decode_base64(field.translate(None, _IGNORED_IN_BASE64)))
    except InvalidKey:
        return None
    if key.key_type.encode("ascii") != declared:
        return None
    return key, comment.rstrip(_BLANKS_AND_CR)


def _first_field(text: bytes) -> tuple[bytes, bytes]:
    """Up to the first space or tab, and what follows the blanks there."""
    at = text.find(b" ")
    field = text if at < 0 else text[:at]
    at = field.find(b"\t")
    field = field if at < 0 else field[:at]
    return field, text[len(field) :].lstrip(_BLANKS)


def _last_word(comment: bytes) -> bytes:
    return comment.replace(b"\t", b" ").rpartition(b" ")[2]


def managed_line(key: PublicKey, comment: str) -> Line:
    """A new line of keysync's own; tags inside `comment` are dropped before the real one."""
    words = [word for word in comment.split() if word.encode("utf-8") != TAG]
    return parse_line(key.line(" ".join([*words, TAG.decode("ascii")])))


def adopted_line(line: Line) -> Line:
    """The same line with the tag at its end; CR, NUL and what follows them stay where they are."""
    body = line.raw.partition(b"\0")[0].rstrip(_BLANKS_AND_CR)
    return parse_line(body + b" " + TAG + line.raw[len(body) :])


def without_tags(document: AuthorizedKeys) -> AuthorizedKeys:
    """The document with keysync's lines as plain ones; what `adopted_line` did is undone."""
    lines = tuple(map(_untagged_line, document.lines))
    return AuthorizedKeys(lines, document.ends_with_newline)


def _untagged_line(line: Line) -> Line:
    while line.kind is LineKind.MANAGED:
        body = line.raw.partition(b"\0")[0].rstrip(_BLANKS_AND_CR)
        bare = body.removesuffix(TAG)[:-1]  # without the one blank in front of the tag
        line = parse_line(bare + line.raw[len(body) :])
    return line


def shown_comment(line: Line) -> str:
    """The comment for people: without the tag, one line, nothing a terminal would obey."""
    comment = line.comment.removesuffix(TAG) if line.kind is LineKind.MANAGED else line.comment
    return printable(_KEY_DATA.sub("[key]", comment.decode("utf-8", "backslashreplace")))


def printable(text: str, limit: int = 80) -> str:
    """At most `limit` characters of `text`, with everything that does not print escaped."""
    safe = text
    if not text.isprintable():
        safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    safe = safe.strip()
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


@dataclass(frozen=True, slots=True)
class AuthorizedKeys:
    """A whole file; `AuthorizedKeys.parse(data).render() == data` for any bytes."""

    lines: tuple[Line, ...]
    ends_with_newline: bool = True

    @classmethod
    def parse(cls, data: bytes) -> AuthorizedKeys:
        """Any bytes are a document; only the byte 0x0A ends a line."""
        complete = not data or data.endswith(b"\n")
        return cls(tuple(_lines(data.removesuffix(b"\n"))) if data else (), complete)

    def numbered(self) -> Iterator[tuple[int, Line]]:
        """Each value of `lines` with the number in the file of its first line, from 1."""
        number = 1
        for line in self.lines:
            yield number, line
            number += 1 + line.raw.count(b"\n")

    def render(self) -> bytes:
        """The bytes of the file."""
        text = b"\n".join(line.raw for line in self.lines)
        return text + b"\n" if self.lines and self.ends_with_newline else text

    def edited(self, edits: Mapping[int, Line | None], appended: Iterable[Line]) -> AuthorizedKeys:
        """The document with lines replaced (or dropped: None) by index, and lines appended.

        An unfinished last line gets its newline only when something is appended behind it.
        """
        kept = [edits.get(at, line) for at, line in enumerate(self.lines)]
        lines = tuple(line for line in kept if line is not None)
        added = tuple(appended)
        last_stays = bool(kept) and kept[-1] is not None
        complete = self.ends_with_newline or bool(added) or not last_stays
        return AuthorizedKeys(lines + added, complete)


def _lines(text: bytes) -> Iterator[Line]:
    """The lines with keys, and what stands between them; only the first options are read."""
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


def may_hold_more_keys(data: bytes, most: int) -> bool:
    """Whether more than `most` lines could hold a key; blank lines and comments do not count."""
    if data.count(b"\n") < most:
        return False
    found = _POSSIBLE_KEY.finditer(data)
    return next(itertools.islice(found, most, None), None) is not None


_KEY_BLOB = re.compile(rb"AAAA[A-Za-z0-9+/]{20,}={0,2}")
_ED25519 = b"AAAAC3NzaC1lZDI1NTE5AAAAI"  # RFC 8709 leaves no choice: what begins so is spelled once
_SHORTEST_RESPELLED = 64  # characters of key data; sshd reads a shorter key in one spelling only


def holds_managed_or_known(data: bytes, fingerprints: Container[str]) -> bool:
    """Whether a file mentions keysync's tag or one of these keys, in any spelling that sshd reads.

    It is a search for the targets of `targets: auto`, faster than reading every line.
    """
    if TAG in data:
        return True
    fields = _KEY_BLOB.findall(data.translate(None, _IGNORED_IN_BASE64))
    return any(_is_one_of(fingerprints, field) for field in fields)


def _is_one_of(fingerprints: Container[str], field: bytes) -> bool:
    """Whether this is the key data of one of them; most fields are judged by their hash alone."""
    try:
        blob = decode_base64(field)
        if fingerprint_of(blob) in fingerprints:
            return True
        if len(field) < _SHORTEST_RESPELLED or field.startswith(_ED25519):
            return False
        return PublicKey.from_blob(blob).fingerprint in fingerprints
    except InvalidKey:
        return False
