"""A pasted key line, from the console or the configuration: what is refused of it, and why."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.authorized_keys import managed_line
from agent.core.key_entry import MAX_COMMENT_BYTES, MAX_ENTRY_CHARS, fingerprints_in, parse_entry
from agent.core.public_key import PublicKey
from agent.core.wire import InvalidKey
from tests.core.support import (
    blob_of,
    ed25519_blob,
    examples,
    fields,
    fingerprints_by_ssh_keygen,
    growth_of_cost,
    joined,
    mpint,
    rsa_blob,
    string,
    text_of,
)

FLOOR = 2048
GOOD = text_of(ed25519_blob(1))
OTHER = text_of(ed25519_blob(2))
TYPE, DATA = GOOD.split(" ")
EVEN = string(b"ssh-rsa") + mpint(65537) + mpint(1 << 2047)
FIRST_EXPONENTS = [rsa_blob(2048, exponent=e) for e in (1, 2, 65536)]
_, RSA_EXPONENT, RSA_MODULUS = fields(rsa_blob(2048))


def refusal_of(text: str, min_rsa_bits: int = FLOOR) -> str:
    """The name of the reason for which an entry is refused."""
    with pytest.raises(InvalidKey) as raised:
        parse_entry(text, min_rsa_bits)
    return raised.value.reason


REFUSED = {
    # newlines, and what acts like one
    "a newline and a second key": (f"{GOOD}\n{OTHER}", "newline"),
    "a newline between": (f"{TYPE}\n{DATA}", "newline"),
    "CR": (f"{GOOD} a\rb", "newline"),
    "CRLF inside": (f"{GOOD} a\r\nb", "newline"),
    "a line separator at the end": (f"{GOOD} me\u2028", "newline"),
    "vertical tab": (f"{GOOD} a\vb", "newline"),
    "form feed": (f"{GOOD} a\fb", "newline"),
    "NEL": (f"{GOOD} a\x85b", "newline"),
    "line separator": (f"{GOOD} a\u2028{OTHER}", "newline"),
    "paragraph separator": (f"{GOOD} a\u2029b", "newline"),
    "file separator": (f"{GOOD} a\x1cb", "newline"),
    # control characters, marks
    "NUL": (f"{GOOD} a\0b", "control_character"),
    "NUL in front": (f"\0{GOOD}", "control_character"),
    "tab": (f"{TYPE}\t{DATA}", "control_character"),
    "escape": (f"{GOOD} \x1b[2J", "control_character"),
    "DEL": (f"{GOOD} a\x7f", "control_character"),
    "C1": (f"{GOOD} a\x9b", "control_character"),
    "a lone surrogate": (f"{GOOD} a\ud800", "control_character"),
    "%0A": (f"{GOOD} a%0Assh-rsa", "control_character"),
    "%0d": (f"{GOOD} a%0d", "control_character"),
    "bidi override": (f"{GOOD} a\u202eb", "bidi_mark"),
    "bidi isolate": (f"{GOOD} \u2066b", "bidi_mark"),
    "right-to-left mark": (f"{GOOD} \u200fb", "bidi_mark"),
    # too much
    "a comment of 9 kB": (f"{GOOD} {'x' * 9000}", "too_long"),
    "a comment of 1025 bytes": (f"{GOOD} {'x' * (MAX_COMMENT_BYTES + 1)}", "too_long"),
    "a comment of 513 two-byte letters": (f"{GOOD} {'é' * 513}", "too_long"),
    "two keys in one entry": (f"{GOOD} {OTHER}", "several_keys"),
    "two keys with comments": (f"{GOOD} me {OTHER} you", "several_keys"),
    # private keys, and other files
    "a private key": (
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n-----END OPENSSH PRIVATE KEY-----",
        "private_key",
    ),
    "a private key in one line": ("-----BEGIN RSA PRIVATE KEY----- MIIE", "private_key"),
    "a private key behind a key": (f"{GOOD} -----BEGIN EC PRIVATE KEY-----", "private_key"),
    "a long private key": ("-----BEGIN PRIVATE KEY-----" + "A" * 9000, "private_key"),
    "a PuTTY key": ("PuTTY-User-Key-File-3: ssh-ed25519", "private_key"),
    "an RFC 4716 file": (
        "---- BEGIN SSH2 PUBLIC KEY ----\nAAAAC3Nz\n---- END SSH2 PUBLIC KEY ----",
        "not_openssh_format",
    ),
    "a path": ("~/.ssh/id_ed25519.pub", "file_path"),
    "an absolute path": ("/root/.ssh/id_rsa", "file_path"),
    "a file name": ("id_ed25519.pub", "file_path"),
    # something in front
    "double quotes": (f'"{GOOD}"', "quoted"),
    "single quotes": (f"'{GOOD}'", "quoted"),
    "command=": (f'command="/bin/sh" {GOOD}', "options"),
    "restrict": (f"restrict {GOOD}", "options"),
    "an option with blanks": (f'environment="A=b c" {GOOD}', "options"),
    "cert-authority": (f"cert-authority {GOOD}", "options"),
    "a host name": (f"example.com {GOOD}", "options"),
    "a comment sign": (f"# {GOOD}", "options"),
    "a quoted type": (f'x "{TYPE}" {DATA}', "options"),
    # no key
    "nothing": ("", "empty"),
    "blanks": ("   ", "empty"),
    "words": ("hello world", "not_a_key"),
    "the data alone": (DATA, "not_a_key"),
    "a type in capitals": (f"{TYPE.upper()} {DATA}", "not_a_key"),
    "a signature algorithm": (text_of(rsa_blob(2048), name=b"rsa-sha2-256"), "not_a_key"),
    "SSH 1": ("2048 65537 1234567890", "not_a_key"),
    "DSA": (text_of(joined([b"ssh-dss", *[b"\1"] * 4])), "unsupported_type"),
    "a certificate": ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificate"),
    # a blob that is not whole, or not what it says
    "the type alone": (TYPE, "truncated_blob"),
    "a truncated blob": (text_of(ed25519_blob(1)[:-3]), "truncated_blob"),
    "a truncated line": (GOOD[:-1], "not_base64"),
    "no base64": (f"{TYPE} {DATA[:-1]}!", "not_base64"),
    "letters like ASCII": (f"{TYPE} {DATA[:-1]}а", "not_base64"),
    "url-safe base64": (f"{TYPE} AAAA_-==", "not_base64"),
    "a wrong declared type": (text_of(ed25519_blob(1), name=b"ssh-rsa"), "type_mismatch"),
    "another curve": (
        text_of(joined([b"ecdsa-sha2-nistp256"]), name=b"ecdsa-sha2-nistp384"),
        "type_mismatch",
    ),
    "a short name inside": (
        text_of(joined([b"ED25519", *fields(ed25519_blob(1))[1:]]), name=b"ssh-ed25519"),
        "type_mismatch",
    ),
    "trailing bytes": (text_of(ed25519_blob(1) + b"\0"), "trailing_bytes"),
    "two blobs": (text_of(ed25519_blob(1) * 2), "trailing_bytes"),
    "a short point": (text_of(joined([b"ssh-ed25519", b"x" * 31])), "malformed_blob"),
    "padded numbers": (
        text_of(joined([b"ssh-rsa", b"\0" + RSA_EXPONENT, RSA_MODULUS])),
        "not_canonical",
    ),
    # RSA of no strength
    "RSA of 4 bits": (text_of(string(b"ssh-rsa") + mpint(3) + mpint(15)), "rsa_too_small"),
    "RSA of 1024 bits": (text_of(rsa_blob(1024)), "rsa_too_small"),
    "RSA of 2047 bits": (text_of(rsa_blob(2048 - 8)), "rsa_too_small"),
    "RSA with an even modulus": (text_of(EVEN), "weak_key"),
    "RSA with exponent 1": (text_of(FIRST_EXPONENTS[0]), "weak_key"),
    "RSA with exponent 2": (text_of(FIRST_EXPONENTS[1]), "weak_key"),
    "RSA with an even exponent": (text_of(FIRST_EXPONENTS[2]), "weak_key"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_entry_is_refused_with_its_reason(name: str) -> None:
    """G2: one bad entry is rejected by name and reason."""
    text, reason = REFUSED[name]
    with pytest.raises(InvalidKey) as raised:
        parse_entry(text, FLOOR)
    assert raised.value.reason == reason
    assert str(raised.value) == f"{reason}: {raised.value.detail}"
    assert raised.value.detail


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        (GOOD, ""),
        (f"  {GOOD}  ", ""),
        # Incident 1: the provider's own client sends the newline that ends a .pub file.
        (f"{GOOD}\n", ""),
        (f"{GOOD} me\r\n", "me"),
        (f"\r\n\t {GOOD} me\t\n\n", "me"),
        (f"{TYPE}   {DATA}   me@home   at  night ", "me@home   at  night"),
        (f"{GOOD} Zoë 🔑 \u00a0", "Zoë 🔑"),
        (f"{GOOD} 100% AAAA", "100% AAAA"),
        (f"{GOOD} {'x' * MAX_COMMENT_BYTES}", "x" * MAX_COMMENT_BYTES),
        (f"{GOOD} keysync:managed", "keysync:managed"),
    ],
)
def test_blanks_and_comments_make_no_other_key(text: str, comment: str) -> None:
    """Never the comment, never the text."""
    assert parse_entry(text, FLOOR) == (PublicKey.from_blob(ed25519_blob(1)), comment)


@pytest.mark.parametrize("exponent", [3, 17, 35, 65537])
def test_any_odd_rsa_exponent_above_one_is_accepted(exponent: int) -> None:
    """RFC 8017 section 3.1: e is odd and at least 3; ssh-keygen's own was 35 once."""
    key, _ = parse_entry(text_of(rsa_blob(2048, exponent=exponent)), FLOOR)
    assert key.bits == 2048


def test_an_entry_has_a_largest_length() -> None:
    """G2: the limits are exact, and count characters of the entry and bytes of the comment."""
    longest = GOOD + " " * (MAX_ENTRY_CHARS - len(GOOD) - 1) + "x"
    assert parse_entry(f" {longest}\n", FLOOR)[1] == "x"
    assert refusal_of(longest + "x") == "too_long"
    assert (MAX_ENTRY_CHARS, MAX_COMMENT_BYTES) == (8192, 1024)


UNKNOWN = joined([b"ssh-mldsa44-ed25519", b"x" * 1344])


def test_a_key_of_an_unknown_type_is_read() -> None:
    """Incident 30: sshd may know the type; what it is called and its data must agree."""
    key, comment = parse_entry(f"{text_of(UNKNOWN)} me@home\n", FLOOR)
    assert (key.blob, key.known_type, comment) == (UNKNOWN, False, "me@home")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (text_of(UNKNOWN, name=b"ssh-mldsa44-ed25519@openssh.com"), "type_mismatch"),
        (text_of(ed25519_blob(1), name=b"ssh-ed25518"), "type_mismatch"),
        (text_of(UNKNOWN)[:-1], "not_base64"),
        (text_of(string(b"ssh-foo")), "truncated_blob"),
        (f"restrict {text_of(UNKNOWN)}", "options"),
        (f"{text_of(UNKNOWN)} {GOOD}", "several_keys"),
        (text_of(UNKNOWN, name=b"ssh-mldsa44-ed25519-cert"), "certificate"),
        (text_of(joined([b"x" * 65, b"x"])), "not_a_key"),
        ("ssh-mldsa44-ed25519", "not_a_key"),
        (f"/home/me/{text_of(UNKNOWN)}", "file_path"),
    ],
)
def test_a_bad_key_of_an_unknown_type_is_refused(text: str, reason: str) -> None:
    """G2: an unknown type lowers no other rule."""
    assert refusal_of(text) == reason


def test_a_line_break_inside_is_said() -> None:
    """G2: the reason helps to mend the entry."""
    with pytest.raises(InvalidKey, match="inside the text"):
        parse_entry(f"{GOOD}\n{OTHER}\n", FLOOR)


# ---- real keys, pasted ----


def test_a_pasted_pub_file_line_is_accepted(keys: Mapping[str, bytes]) -> None:
    """G2, the other way round: what ssh-keygen makes today passes, DSA and short RSA apart."""
    for name in keys.keys() - {"dsa", "rsa-1024"}:
        key, comment = parse_entry(keys[name].decode(), FLOOR)
        assert (key.line(), comment) == (keys[name].rpartition(b" ")[0], name)


def test_certificates_are_refused_by_name(certificates: Mapping[str, bytes]) -> None:
    """G2 and sshd(8): a certificate is no key for authorized_keys."""
    assert len(fingerprints_by_ssh_keygen(b"\n".join(certificates.values()))) == len(certificates)
    for line in certificates.values():
        assert refusal_of(line.decode()) == "certificate"
        with pytest.raises(InvalidKey, match="unknown_type"):
            PublicKey.from_blob(blob_of(line))


def test_dsa_is_refused_by_name_and_still_seen_in_a_file(keys: Mapping[str, bytes]) -> None:
    """G2; OpenSSH 7.0 release notes: ssh-dss is refused, though sshd can still read its lines."""
    if "dsa" not in keys:
        pytest.skip(reason="this ssh-keygen makes no DSA key")
    assert refusal_of(keys["dsa"].decode()) == "unsupported_type"
    assert PublicKey.from_blob(blob_of(keys["dsa"])).key_type == "ssh-dss"


def test_rsa_below_the_floor_is_refused(keys: Mapping[str, bytes]) -> None:
    """G2: RSA below `min_rsa_bits` is refused, at the floor it is not."""
    for name, bits in (("rsa-1024", 1024), ("rsa-2048", 2048), ("rsa-3072", 3072)):
        text = keys[name].decode()
        assert parse_entry(text, bits)[0].bits == bits
        with pytest.raises(InvalidKey) as raised:
            parse_entry(text, bits + 1)
        assert raised.value.reason == "rsa_too_small"
        assert str(bits) in raised.value.detail


_NOISE = (
    "\t",
    " ",
    "\n",
    "\r",
    "\0",
    '"',
    "'",
    "#",
    "=",
    "+",
    "/",
    "A",
    ",",
    "\\",
    "é",
    "\u2028",
    "",
)


@st.composite
def edited_entries(draw: st.DrawFn, lines: Sequence[bytes]) -> str:
    """A line of any type, certificates too, with up to three characters put in, lost or changed."""
    text = draw(st.sampled_from(lines)).decode()
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)) | st.integers(0, 40))
        text = text[:at] + draw(st.sampled_from(_NOISE)) + text[at + draw(st.integers(0, 1)) :]
    return text


@settings(max_examples=examples(40))
@given(data=st.data())
def test_an_accepted_entry_is_the_key_that_openssh_reads(
    keys: Mapping[str, bytes], certificates: Mapping[str, bytes], data: st.DataObject
) -> None:
    """R1, G2: for the entry itself and for the line written for it, ssh-keygen names that key."""
    lines = [*keys.values(), *certificates.values()]
    accepted = []
    for text in data.draw(st.lists(edited_entries(lines), min_size=20, max_size=60)):
        with contextlib.suppress(InvalidKey):
            key, comment = parse_entry(text, FLOOR)
            if key.known_type:  # this ssh-keygen knows no others
                accepted.append((text.strip(), key, comment))
    expected = [key.fingerprint for _, key, _ in accepted]
    pasted = "".join(f"{text}\n" for text, _, _ in accepted).encode()
    written = b"".join(managed_line(key, comment).raw + b"\n" for _, key, comment in accepted)
    assert fingerprints_by_ssh_keygen(pasted) == expected
    assert fingerprints_by_ssh_keygen(written) == expected


# ---- nothing of the text comes out ----

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
secrets = st.text(_LETTERS, min_size=24, max_size=24)


@st.composite
def texts_with_a_secret(draw: st.DrawFn) -> tuple[str, str]:
    """An entry, good or bad, in which one secret stands in every place that has room for it."""
    secret = draw(secrets)
    in_blob = base64.b64encode(secret.encode()).decode()
    parts = [
        secret,
        GOOD,
        TYPE,
        DATA,
        f"{TYPE} {secret}",
        f"{TYPE} AAAA{secret}",
        f"{TYPE}{secret}",
        f"ssh-rsa {in_blob}",
        text_of(joined([b"ssh-ed25519", secret.encode()])),
        text_of(joined([secret.encode(), secret.encode()]), name=b"ssh-rsa"),
        text_of(ed25519_blob(1) + secret.encode()),
        f'command="{secret}"',
        f"{secret}-cert-v01@openssh.com",
        f"/{secret}.pub",
        f'"{secret}"',
        f"-----BEGIN {secret} PRIVATE KEY-----",
        f"%0A{secret}",
        "\u202e",
        "\n",
        "\0",
        "x" * MAX_ENTRY_CHARS,
    ]
    chosen = draw(st.lists(st.sampled_from(parts), min_size=1, max_size=5))
    return draw(st.sampled_from((" ", ""))).join(chosen), secret


@settings(max_examples=examples(200))
@given(texts_with_a_secret())
def test_a_refusal_never_holds_a_part_of_the_text(case: tuple[str, str]) -> None:
    """G10: no secret and no whole key is ever logged; a pasted private key is one."""
    text, secret = case
    in_base64 = base64.b64encode(secret.encode()).decode()
    try:
        parse_entry(text, FLOOR)
    except InvalidKey as error:
        said = f"{error} {error.reason} {error.detail} {error!r}"
        for hidden in (secret, in_base64, DATA):
            windows = {hidden[at : at + 6] for at in range(len(hidden) - 5)}
            assert not any(window in said for window in windows)


@given(st.text(st.characters(codec=None)) | texts_with_a_secret().map(lambda case: case[0]))
def test_any_text_is_a_canonical_key_or_refused(text: str) -> None:
    """G2: what comes out of the strict door is exactly what OpenSSH writes, in one line."""
    try:
        key, comment = parse_entry(text, FLOOR)
    except InvalidKey:
        return
    assert PublicKey.from_blob(key.blob) == key
    assert key.flaw is None
    assert b"\n" not in key.line(comment)


# ---- what can be made out in a refused entry ----


def test_every_key_in_a_refused_entry_is_made_out(keys: Mapping[str, bytes]) -> None:
    """R5: also a refused entry's deletion must be noticed, so its keys are known."""
    expected = {PublicKey.from_blob(blob_of(line)).fingerprint for line in keys.values()}
    lines = [line.decode() for line in keys.values()]
    found = [fingerprints_in(f'command="x" {line}') for line in lines]
    assert frozenset().union(*found) == expected
    assert fingerprints_in("\r\n".join(lines)[: 2 * MAX_ENTRY_CHARS]) == expected


@pytest.mark.parametrize(
    "text",
    [
        f"{TYPE}\t{DATA}",
        f"{TYPE} \t {DATA}",
        f'"{TYPE} {DATA}"',
        f"\ufeff{TYPE}  {DATA}\0",
        f"{OTHER[:-4]} {GOOD} {'x' * 9000}",
        f"rsa-sha2-256 {DATA}",
    ],
)
def test_a_key_is_made_out_wherever_sshd_would_see_one(text: str) -> None:
    """sshd(8): type and data are parted by blanks, that is by spaces or tabs."""
    assert PublicKey.from_blob(ed25519_blob(1)).fingerprint in fingerprints_in(text)


@pytest.mark.parametrize(
    "text", ["", DATA, f"{TYPE} {DATA[:-1]}", f"{TYPE} AAAA", "x AAAA!", "\ud800 AAAA"]
)
def test_what_is_no_key_is_not_made_out(text: str) -> None:
    """R5: nothing is revoked that was never listed."""
    assert fingerprints_in(text) == frozenset()


@pytest.mark.parametrize("piece", ["a", "a ", "a AAAA ", " ", "=", "ssh-rsa AAAAB"])
def test_a_long_refused_entry_costs_no_more_than_its_length(piece: str) -> None:
    """G2: one bad entry never stops the good ones, not by being long either."""
    length = 2 * MAX_ENTRY_CHARS // 4
    growth = growth_of_cost(fingerprints_in, (piece * length)[:length], times=4)
    assert growth < 10  # 4 when linear, 16 when quadratic
