"""The authorized_keys file: lossless, and read as sshd reads it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.authorized_keys import (
    MAX_OPTIONS_BYTES,
    AuthorizedKeys,
    Line,
    LineKind,
    adopted_line,
    managed_line,
    may_hold_more_keys,
    parse_line,
    shown_comment,
)
from agent.core.key_entry import parse_entry
from agent.core.public_key import without_sshd
from agent.core.text import printable
from agent.core.wire import InvalidKey
from tests.core.support import (
    TAG,
    blob_of,
    ed25519,
    ed25519_blob,
    examples,
    fields,
    fingerprints_by_ssh_keygen,
    joined,
    rsa_blob,
    text_of,
)

KEY = text_of(ed25519_blob(1)).encode()
OTHER_KEY = text_of(ed25519_blob(2)).encode()
TYPE, DATA = KEY.split(b" ")
DSA = text_of(joined([b"ssh-dss", b"\1" * 128, b"\2", b"\3", b"\4"])).encode()

# ---- lossless (R6) ----

_PIECES = (
    *(KEY, OTHER_KEY, TYPE, DATA, DATA[:30], b"ssh-rsa", TAG, b" " + TAG, b"# ", b"me@home"),
    *(b"restrict ", b'command="a b" ', b'from="', b'"', b"\\", b"cert-authority "),
    *(b"\n", b"\n", b"\r\n", b"\r", b"\0", b" ", b"\t", b"\v", b"\f", b"\x1c", b"\x85"),
    *("\u2028".encode(), "\u2029".encode(), "\u202e".encode(), b"\xff\xfe", "é".encode("latin-1")),
)
key_like = st.lists(st.sampled_from(_PIECES)).map(b"".join)
documents = key_like | st.binary()
line_bytes = documents.map(lambda data: data.replace(b"\n", b""))


@given(documents)
def test_any_bytes_are_a_document(data: bytes) -> None:
    """R6: everything is kept byte for byte, whatever the bytes are."""
    assert AuthorizedKeys.parse(data).render() == data


@given(documents)
def test_only_a_newline_ends_a_line(data: bytes) -> None:
    """R6: work on bytes, split on newlines only; U+2028 in a comment makes no second key."""
    lines = AuthorizedKeys.parse(data).lines
    assert b"\n".join(line.raw for line in lines) == data.removesuffix(b"\n")
    assert not any(b"\n" in line.raw for line in lines if line.key)
    found = [line.key for line in map(parse_line, data.split(b"\n")) if line.key]
    assert [line.key for line in lines if line.key] == found


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\n\n", [b"a\n"]),
        (b"a\r\nb\rc", [b"a\r\nb\rc"]),
        (b"\n\n" + KEY + b"\n\n# b\n", [b"\n", KEY, b"\n# b"]),
        (KEY + b"\n" + OTHER_KEY + b"\n\n", [KEY, OTHER_KEY, b""]),
        (KEY + b"\r\n \t" + OTHER_KEY, [KEY + b"\r", b" \t" + OTHER_KEY]),
        (b"a\xe2\x80\xa8b\x0bc\x0cd\x85e\x1cf", [b"a\xe2\x80\xa8b\x0bc\x0cd\x85e\x1cf"]),
    ],
)
def test_lines_of_a_file(data: bytes, lines: list[bytes]) -> None:
    """R6: a missing final newline, CRLF and empty lines are kept; lines without a key are one."""
    document = AuthorizedKeys.parse(data)
    assert [line.raw for line in document.lines] == lines
    assert document.ends_with_newline == (not data or data.endswith(b"\n"))


@given(line_bytes)
def test_a_line_is_a_key_or_other(raw: bytes) -> None:
    """A line is managed, plain or restricted exactly when it holds a key."""
    line = parse_line(raw)
    assert line.raw == raw
    assert (line.key is None) == (line.kind is LineKind.OTHER)
    assert (line.options is not None) == (line.kind is LineKind.RESTRICTED)


# ---- which lines are keys, with ssh-keygen as the oracle (sshd(8), sshkey_read) ----

_OPTIONS = (
    *(b"restrict", b"RESTRICT,pty", b'from="10.0.0.0/8,*.example.com"', b'command="echo hi there"'),
    *(b'command="say \\"hi\\" to all"', b"cert-authority", b"unknown-option", b"foo\\", b","),
    *(b'environment="A=ssh-rsa AAAA"', b'a"b c"d', b"ssh-ed25519", b"ssh-rsa,pty", b"x" * 300),
    *(b'command="never closed', b"two words", b'\\"', b"\xef\xbb\xbf"),
)
_BLANKS = (b" ", b" ", b"\t", b"  ", b" \t ")
_AROUND = (b"", b"", b"", b" ", b"\t", b"\r", b"\v", b"#", b"\xef\xbb\xbf", b"\0")
_BEHIND = (
    *(
        b"",
        b"",
        b" me@home",
        b"\tme",
        b" # no comment",
        b"  ",
        b"\r",
        b" me\r",
        b"\0junk",
        b" a\0b",
    ),
    *(b" " + "Zoë\u2028ssh-rsa AAAA".encode(), b" \xff\xfe", b" " + TAG, b"=", b"A", b"!", b"\v"),
)


def _spoiled(data: bytes, how: int) -> bytes:
    """Base64 as it is, or in a spelling that may or may not be read."""
    half = len(data) // 2
    spoils = (
        *(data, data, data, data[:-1], data[1:], data + b"=", data.rstrip(b"="), data.lower()),
        *(data[:half] + b"\r" + data[half:], data[:half] + b"\v\f" + data[half:]),
        *(data[:half] + b" " + data[half:], data[:half] + b"\0" + data[half:], b""),
        *(data[:half] + b"-" + data[half + 1 :], data[:half] + b"\xa0" + data[half:]),
    )
    return spoils[how % len(spoils)]


@st.composite
def key_lines(draw: st.DrawFn, keys: Mapping[str, bytes]) -> bytes:
    """A line around a real key: with or without options, whole or not."""
    name, data = keys[draw(st.sampled_from(sorted(keys)))].split(b" ")[:2]
    if draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from((b"ssh-rsa", b"rsa-sha2-512", b"ssh-foo", b"SSH-RSA", b"")))
    body = name + draw(st.sampled_from(_BLANKS)) + _spoiled(data, draw(st.integers(0, 40)))
    if draw(st.booleans()):
        # One blank here: ssh-keygen looks for the key right behind it, sshd skips any number
        # (skip_space in auth2-pubkeyfile.c).
        body = draw(st.sampled_from(_OPTIONS)) + draw(st.sampled_from((b" ", b"\t"))) + body
    return draw(st.sampled_from(_AROUND)) + body + draw(st.sampled_from(_BEHIND))


@settings(max_examples=examples(80))
@given(data=st.data())
def test_key_lines_are_those_that_ssh_keygen_lists(
    keys: Mapping[str, bytes], data: st.DataObject
) -> None:
    """sshd(8), AUTHORIZED_KEYS FILE FORMAT: a bare key, or a key behind one options field.

    Two differences to `ssh-keygen -lf` are known, and have their own tests below: certificates,
    and what may stand between the options and the key.
    """
    others = st.sampled_from(
        (b"", b"# " + KEY, b"#", b"words", b"\r", b'"', b"a b c d", b"\0" + KEY)
    )
    lines = data.draw(st.lists(key_lines(keys) | others, min_size=1, max_size=40))
    text = b"\n".join(lines) + data.draw(st.sampled_from((b"", b"\n", b"\r\n")))
    read = [line.key.fingerprint for line in AuthorizedKeys.parse(text).lines if line.key]
    assert read == fingerprints_by_ssh_keygen(text)


def test_certificates_are_no_keys(certificates: Mapping[str, bytes]) -> None:
    """sshd(8): sshd trusts a certificate for its CA's line and never for a line of its own.

    The first difference to `ssh-keygen -lf`, which lists certificates too.
    """
    for certificate in certificates.values():
        assert parse_line(certificate).kind is LineKind.OTHER
        assert parse_line(b"restrict " + certificate).kind is LineKind.OTHER


@pytest.mark.parametrize("between", [b"restrict  ", b"restrict \t", b"2048 ", b"1 "])
def test_what_stands_between_options_and_key(between: bytes) -> None:
    """auth2-pubkeyfile.c: sshd skips one options field, whatever it is, and all blanks behind it.

    The second difference to `ssh-keygen -lf`, which skips one blank only, and no number, since it
    once read the keys of SSH 1 too.
    """
    line = parse_line(between + KEY)
    assert line.kind is LineKind.RESTRICTED
    assert line.key == ed25519(1)


# ---- whose line it is (identity) ----

MANAGED = [
    KEY + b" " + TAG,
    KEY + b"\t" + TAG,
    KEY + b" me " + TAG,
    KEY + b" me\t" + TAG + b" \t",
    KEY + b" me " + TAG + b"\r",
    KEY + b" " + TAG + b"\0junk",
    b" \t" + KEY + b" " + TAG,
    KEY + b" \xff\xfe " + TAG,
]
PLAIN = [
    KEY,
    KEY + b" me",
    KEY + b" " + TAG + b" me",
    KEY + b" x" + TAG,
    KEY + b" " + TAG + b"x",
    KEY + b" " + TAG.upper(),
    KEY + b" a\0 " + TAG,
    KEY + b" # " + TAG + b" copied",
]
RESTRICTED = [
    b"restrict " + KEY,
    b"restrict " + KEY + b" " + TAG,
    b"foo " + KEY,
    b'from="10.0.0.1"\t' + KEY,
]
OTHER = [
    b"",
    b" \t",
    b"# " + KEY + b" " + TAG,
    b"  # comment",
    TAG,
    TYPE,
    TYPE + b" ",
    KEY[:-1] + b" " + TAG,
    KEY + OTHER_KEY,
    b"two words " + KEY,
    b"ssh-rsa " + DATA,
    b"\0" + KEY,
    "\ufeff".encode() + KEY,
]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        *((raw, LineKind.MANAGED) for raw in MANAGED),
        *((raw, LineKind.PLAIN) for raw in PLAIN),
        *((raw, LineKind.RESTRICTED) for raw in RESTRICTED),
        *((raw, LineKind.OTHER) for raw in OTHER),
    ],
)
def test_whose_line_it_is(raw: bytes, kind: LineKind) -> None:
    """The tag at the end, inside the comment, makes a line managed; options do not."""
    assert parse_line(raw).kind is kind


UNKNOWN = text_of(joined([b"ssh-mldsa44-ed25519", b"x" * 1344])).encode()


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (UNKNOWN, LineKind.PLAIN),
        (UNKNOWN + b" me " + TAG + b"\r", LineKind.MANAGED),
        (b"restrict " + UNKNOWN, LineKind.RESTRICTED),
        (b'from="10.0.0.1" ' + UNKNOWN + b" " + TAG, LineKind.RESTRICTED),
        (UNKNOWN[:-1], LineKind.OTHER),
        (b"ssh-foo " + UNKNOWN.split(b" ")[1], LineKind.OTHER),
        (b"ssh-foo", LineKind.OTHER),
        (b"two words " + UNKNOWN, LineKind.OTHER),
    ],
)
def test_a_key_of_an_unknown_type_is_a_key_line(raw: bytes, kind: LineKind) -> None:
    """Incident 30, R5: what a newer sshd may read can be revoked; R6: the rest stays as it is."""
    line = parse_line(raw)
    assert (line.kind, line.raw) == (kind, raw)
    assert line.key is None or line.key.key_type == "ssh-mldsa44-ed25519"


@pytest.mark.parametrize("answer", [True, False, None])
def test_an_unknown_type_is_a_way_in_only_where_sshd_accepts_it(answer: bool | None) -> None:
    """G3: a line that sshd does not read must not count as the last way in."""
    line = parse_line(UNKNOWN)
    assert (line.lets_key_in, line.opens_session_for(without_sshd)) == (False, False)
    assert line.lets_in(lambda _: answer) is line.opens_session_for(lambda _: answer)
    assert line.opens_session_for(lambda _: answer) is bool(answer)
    assert parse_line(b"no-such-option " + UNKNOWN).lets_in(lambda _: True) is False
    forced = parse_line(b'command="x" ' + UNKNOWN)
    assert (forced.lets_in(lambda _: True), forced.opens_session_for(lambda _: True)) == (
        True,
        False,
    )
    assert parse_line(KEY).opens_session_for(lambda _: answer) is (answer is not False)


def test_another_spelling_is_the_same_key() -> None:
    """Identity is the decoded blob, never the text."""
    blob = rsa_blob(2048)
    padded = joined([b"rsa-sha2-256", *(b"\0" + number for number in fields(blob)[1:])])
    line = parse_line(text_of(padded, name=b"rsa-sha2-512").encode())
    assert line.key == parse_line(text_of(blob).encode()).key


@pytest.mark.parametrize(
    ("raw", "lets_in", "way_in"),
    [
        (KEY, True, True),
        (MANAGED[0], True, True),
        (b"restrict,pty " + KEY, True, True),
        (b'command="x" ' + KEY, True, False),
        (b"foo " + KEY, False, False),
        (b'environment="no variable" ' + KEY, False, False),
        (b'from="" ' + KEY, False, False),
        (b"# " + KEY, False, False),
        (DSA, False, False),
        (b"restrict " + DSA, False, False),
    ],
)
def test_which_lines_are_a_way_in(raw: bytes, *, lets_in: bool, way_in: bool) -> None:
    """G3: a usable key is one by which a person gets a session; sshd lets no DSA key in."""
    line = parse_line(raw)
    assert (line.lets_key_in, line.opens_session_for(without_sshd)) == (lets_in, way_in)


# ---- lines of keysync's own (R1, R3) ----

comments = st.text(max_size=60) | st.text(st.sampled_from(" abé🔑")).map(
    lambda text: f"{text} {TAG.decode()} {text}"
)


@given(comments)
def test_a_new_line_is_managed_and_says_the_comment_once(comment: str) -> None:
    """The tag is at the end of the line, and once."""
    try:
        key, comment = parse_entry(f"{KEY.decode()} {comment}", 2048)
    except InvalidKey:
        return
    line = managed_line(key, comment)
    assert (line.kind, line.key) == (LineKind.MANAGED, key)
    assert b"\n" not in line.raw
    assert line.raw.split(b" ").count(TAG) == 1
    assert line.raw.endswith(b" " + TAG)
    words = [word for word in comment.split() if word != TAG.decode()]
    assert line.raw == b" ".join([KEY, *(word.encode() for word in words), TAG])


def test_a_new_line_for_every_type(keys: Mapping[str, bytes]) -> None:
    """R1: ssh-keygen finds each key again in the line that keysync writes for it."""
    lines = [parse_line(line) for line in keys.values()]
    written = [managed_line(line.key, line.comment.decode()) for line in lines if line.key]
    text = b"".join(line.raw + b"\n" for line in written)
    assert fingerprints_by_ssh_keygen(text) == fingerprints_by_ssh_keygen(b"\n".join(keys.values()))


@given(st.sampled_from((b"", b" ", b"\t")), st.sampled_from(_BEHIND) | line_bytes)
def test_an_adopted_line_is_the_same_with_the_tag(before: bytes, behind: bytes) -> None:
    """R3: it becomes managed in place: the tag at the end of what sshd sees, no byte else."""
    line = parse_line(before + KEY + behind)
    if line.kind is not LineKind.PLAIN:
        return
    adopted = adopted_line(line)
    assert (adopted.kind, adopted.key) == (LineKind.MANAGED, line.key)
    at = adopted.raw.partition(b"\0")[0].rfind(b" " + TAG)
    assert adopted.raw[:at] + adopted.raw[at + 1 + len(TAG) :] == line.raw


@pytest.mark.parametrize(
    ("plain", "adopted"),
    [
        (KEY, KEY + b" " + TAG),
        (KEY + b" me", KEY + b" me " + TAG),
        (KEY + b" me \t", KEY + b" me " + TAG + b" \t"),
        (KEY + b" me\r", KEY + b" me " + TAG + b"\r"),
        (KEY + b"\r", KEY + b" " + TAG + b"\r"),
        (KEY + b" me\0x\r", KEY + b" me " + TAG + b"\0x\r"),
        (b"  " + KEY + b" \xff", b"  " + KEY + b" \xff " + TAG),
    ],
)
def test_where_the_tag_goes(plain: bytes, adopted: bytes) -> None:
    """R3 and R6: CR and NUL, and what follows them, stay where they are."""
    assert adopted_line(parse_line(plain)).raw == adopted


# ---- comments for people ----


def _obeyed(text: str) -> list[str]:
    """The characters that a terminal or a log reader would act on instead of showing them."""
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@given(st.text(st.characters(codec=None)), st.integers(1, 100))
def test_what_is_printed_is_printable(text: str, limit: int) -> None:
    """G10 and logs: one line of plain text, nothing that a terminal would obey."""
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert not _obeyed(shown)
    assert shown.isprintable()


@given(line_bytes)
def test_a_shown_comment_is_printable(behind: bytes) -> None:
    """Logs: a comment is its owner's text, also when a stranger wrote it."""
    shown = shown_comment(parse_line(KEY + b" " + behind))
    assert not _obeyed(shown)
    assert len(shown) <= 80


@pytest.mark.parametrize(
    ("comment", "shown"),
    [
        (b"", ""),
        (b" me@home", "me@home"),
        (b" me@home " + TAG, "me@home"),
        (b" " + TAG, ""),
        (b" " + "Zoë 🔑".encode(), "Zoë 🔑"),
        (b" \x1b[31mred\x07", "\\x1b[31mred\\x07"),
        (b" \xff\xfe", "\\xff\\xfe"),
        (" a\u202eb\u2028c".encode(), "a\\u202eb\\u2028c"),
        (b" a\rb", "a\\rb"),
        (b" " + b"x" * 81, "x" * 79 + "…"),
        (b" " + b"x" * 80, "x" * 80),
    ],
)
def test_comments_as_they_are_shown(comment: bytes, shown: str) -> None:
    """Commands: `status` shows comments without the tag, escaped and cut."""
    assert shown_comment(parse_line(KEY + comment)) == shown


def test_a_restricted_line_keeps_its_whole_comment() -> None:
    """R4: the tag means nothing on a restricted line, so it is shown as what it is: a comment."""
    assert shown_comment(parse_line(b"restrict " + KEY + b" me " + TAG)) == f"me {TAG.decode()}"


# ---- editing (R6) ----

# ---- files that are full of something (G12): what is counted is what is kept and read ----


@pytest.mark.parametrize(
    "piece", [b"\n", b"# a comment\n", b" \t#\n", b"\r\n", b"words that are no key of anybody\n"]
)
def test_lines_without_a_key_are_one_value(piece: bytes) -> None:
    """G12, R6: a file full of lines that hold no key costs its bytes, and keeps them."""
    data = piece * 10_000 + KEY + b"\n" + piece * 10_000
    document = AuthorizedKeys.parse(data)
    assert [line.kind for line in document.lines] == [
        LineKind.OTHER,
        LineKind.PLAIN,
        LineKind.OTHER,
    ]
    assert document.render() == data
    assert [number for number, _ in document.numbered()] == [1, 10_001, 10_002]
    assert document.edited({1: None}, ()).render() == piece * 20_000


def test_only_lines_that_may_hold_a_key_are_counted() -> None:
    """R5, G12: padding with blank lines and comments puts no file out of keysync's reach."""
    padding = b"\n \t\n#\n# a comment that is as long as a key\nshort\n" * 100
    keys = (KEY + b"\n") * 5
    assert not may_hold_more_keys(padding + keys, 5)
    assert may_hold_more_keys(padding + keys, 4)
    assert not may_hold_more_keys(keys, 5)
    assert not may_hold_more_keys(keys, 6)
    shortest = text_of(joined([b"aa"]) + b"\0", name=b"aa").encode()
    assert parse_line(shortest).key is not None
    assert may_hold_more_keys(padding + shortest, 0)


def test_the_options_of_a_file_are_read_up_to_a_bound() -> None:
    """G12, G3: of megabytes of options the rest is unread, and its lines are no sure way in.

    They stay restricted lines all the same (R4), whose keys are known.
    """
    quarter = b"pty," * (MAX_OPTIONS_BYTES // 16) + b"pty "
    lines = AuthorizedKeys.parse((quarter + KEY + b"\n") * 20 + b"pty " + KEY).lines
    options = [line.options for line in lines if line.options]
    assert [one.unread for one in options] == [False] * 3 + [True] * 17 + [False]
    assert sum(len(one.names) for one in options) <= MAX_OPTIONS_BYTES // 4
    unread = lines[-2]
    assert (unread.kind, unread.key) == (LineKind.RESTRICTED, parse_line(KEY).key)
    assert (unread.lets_key_in, unread.opens_session_for(without_sshd)) == (True, False)
    assert unread.options is not None
    assert unread.options.depends


edits = st.sampled_from(("keep", "drop", "replace"))


@given(documents, st.lists(edits), st.lists(st.sampled_from((KEY, OTHER_KEY, b"# x"))))
def test_an_edit_changes_the_edited_lines_only(
    data: bytes, choices: list[str], appended: list[bytes]
) -> None:
    """R6: what is not edited is kept byte for byte and in order; appended lines are lines."""
    document = AuthorizedKeys.parse(data)
    chosen = dict(zip(range(len(document.lines)), choices, strict=False))
    changes: dict[int, Line | None] = {}
    expected = []
    for at, line in enumerate(document.lines):
        what = chosen.get(at, "keep")
        if what == "drop":
            changes[at] = None
            continue
        if what == "replace":
            changes[at] = parse_line(b"# replaced")
        expected.append(b"# replaced" if what == "replace" else line.raw)
    after = document.edited(changes, map(parse_line, appended))
    assert [line.raw for line in after.lines] == expected + appended
    text = after.render()
    assert AuthorizedKeys.parse(text).render() == text
    last_dropped = bool(document.lines) and chosen.get(len(document.lines) - 1) == "drop"
    unfinished = bool(data) and not data.endswith(b"\n") and not appended and not last_dropped
    assert text == b"\n".join(expected + appended) + (
        b"" if unfinished or not after.lines else b"\n"
    )


@given(documents)
def test_no_edit_is_no_change(data: bytes) -> None:
    """R6 and R7: a missing final newline stays missing when nothing is appended."""
    assert AuthorizedKeys.parse(data).edited({}, ()).render() == data


def test_append_remove_and_a_stranger_appends() -> None:
    """R6, with a file without its final newline: no glued line, no key that cannot be revoked."""
    start = AuthorizedKeys.parse(KEY)
    mine = managed_line(ed25519(2), "me")
    added = start.edited({}, [mine])
    assert added.render() == KEY + b"\n" + mine.raw + b"\n"
    removed = AuthorizedKeys.parse(added.render()).edited({1: None}, ())
    assert removed.render() == KEY + b"\n"
    strangers = AuthorizedKeys.parse(removed.render() + OTHER_KEY)
    assert [line.key for line in strangers.lines] == [ed25519(1), ed25519(2)]
    assert strangers.edited({1: None}, ()).render() == KEY + b"\n"


def test_two_keys_glued_by_somebody_else_are_no_key() -> None:
    """sshd(8): an append behind a missing newline glues two keys into one bad line."""
    text = KEY + OTHER_KEY + b"\n"
    assert fingerprints_by_ssh_keygen(text) == []
    assert [line.kind for line in AuthorizedKeys.parse(text).lines] == [LineKind.OTHER]


def test_blobs_of_real_keys_are_found_again(keys: Mapping[str, bytes]) -> None:
    """R6: a file of real keys is read in order, with their comments."""
    document = AuthorizedKeys.parse(b"\n".join(keys.values()))
    assert [line.key.blob for line in document.lines if line.key] == [
        blob_of(line) for line in keys.values()
    ]
    assert [line.comment.decode() for line in document.lines] == list(keys)
