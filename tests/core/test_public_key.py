"""One public key: its blob, its fingerprint, and what is refused of a pasted one."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.public_key import (
    MAX_COMMENT_BYTES,
    MAX_ENTRY_CHARS,
    InvalidKey,
    PublicKey,
    canonical_type,
    decode_base64,
    fingerprints_in,
    parse_entry,
)
from tests.core.support import (
    KEY_TYPES,
    blob_of,
    ed25519_blob,
    fields,
    fingerprints_by_ssh_keygen,
    joined,
    listed_by_ssh_keygen,
    mpint,
    read_by_ssh_keygen,
    rsa_blob,
    string,
    text_of,
)

FLOOR = 2048

# ---- real keys ----


def test_fingerprint_type_and_size_are_those_of_ssh_keygen(keys: Mapping[str, bytes]) -> None:
    """Section 2: a key's identity is the fingerprint that `ssh-keygen -lf` prints."""
    printed = listed_by_ssh_keygen(b"\n".join(keys.values()) + b"\n")
    read = [PublicKey.from_blob(blob_of(line)) for line in keys.values()]
    assert [(key.bits, key.fingerprint, name) for key, name in zip(read, keys, strict=True)] == [
        (found.bits, found.fingerprint, found.comment) for found in printed
    ]
    assert [key.key_type for key in read] == [line.split()[0].decode() for line in keys.values()]


def test_a_key_is_written_back_as_ssh_keygen_wrote_it(keys: Mapping[str, bytes]) -> None:
    """RFC 4253 section 6.6: blob and line make a strict round trip."""
    for name, line in keys.items():
        key = PublicKey.from_blob(blob_of(line))
        assert key.blob == blob_of(line)
        assert key.line(name) == line
        assert key.line() == line.rpartition(b" ")[0]


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
        pytest.skip("this ssh-keygen makes no DSA key")
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


def test_equality_is_that_of_the_canonical_blob() -> None:
    """Section 2: identity is the decoded blob; leading zeros of an mpint make no other key."""
    plain = rsa_blob(2048)
    name, exponent, modulus = fields(plain)
    padded = joined([name, b"\0\0" + exponent, b"\0" + modulus])
    assert padded != plain
    assert PublicKey.from_blob(padded) == PublicKey.from_blob(plain)
    assert PublicKey.from_blob(rsa_blob(2048, seed=1)) != PublicKey.from_blob(plain)


@pytest.mark.parametrize("alias", [b"rsa-sha2-256", b"rsa-sha2-512"])
def test_a_signature_algorithm_stands_for_its_key_type(alias: bytes) -> None:
    """sshkey.c: keyimpls holds the names of RFC 8332 too, and they mean ssh-rsa."""
    assert canonical_type(alias) == b"ssh-rsa"
    _, *rest = fields(rsa_blob(2048))
    assert PublicKey.from_blob(joined([alias, *rest])).blob == rsa_blob(2048)


@pytest.mark.parametrize(
    "name", [b"", b"ssh-foo", b"SSH-RSA", b"RSA", b"ssh-rsa-cert-v01@openssh.com"]
)
def test_other_words_are_no_key_type(name: bytes) -> None:
    """sshd(8): the key types are a closed list, in lower case."""
    assert canonical_type(name) is None


# ---- mutated blobs, with ssh-keygen as the oracle ----

_NAMES = (
    *KEY_TYPES,
    b"rsa-sha2-256",
    b"rsa-sha2-512",
    b"webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
    b"SSH-ED25519",
    b"ECDSA",
    b"ECDSA-SK",
    b"nistp256",
    b"nistp384",
    b"nistp521",
    b"",
)
_SHORT_NAMES = (b"RSA", b"rsa", b"DSA", b"Ed25519", b"ED25519", b"ed25519-sk", b"ED25519-SK")

_FIELD_EDITS: Mapping[str, Callable[[bytes], bytes]] = {
    "zero in front": lambda raw: b"\0" + raw,
    "three zeros in front": lambda raw: b"\0\0\0" + raw,
    "zeros to 2048 bytes": lambda raw: raw.rjust(2048, b"\0"),
    "zeros to 2049 bytes": lambda raw: raw.rjust(2049, b"\0"),
    "zeros to 2050 bytes": lambda raw: raw.rjust(2050, b"\0"),
    "large": lambda raw: raw[:0] + b"\x7f" * 2048,
    "a byte too large": lambda raw: raw[:0] + b"\x7f" * 2049,
    "largest behind a zero": lambda raw: raw[:0] + b"\0" + b"\xff" * 2048,
    "negative": lambda raw: b"\x80" + raw[1:],
    "no sign byte": lambda raw: raw.removeprefix(b"\0"),
    "empty": lambda raw: raw[:0],
    "zero": lambda raw: raw[:0] + b"\0",
    "one": lambda raw: raw[:0] + b"\1",
    "even": lambda raw: raw[:-1] + b"\2",
    "cut": lambda raw: raw[:-1],
    "half": lambda raw: raw[: len(raw) // 2],
    "grown": lambda raw: raw + b"\1",
    "NUL behind": lambda raw: raw + b"\0",
    "two NUL behind": lambda raw: raw + b"\0\0",
    "NUL inside": lambda raw: raw[:3] + b"\0" + raw[3:],
    "first byte lost": lambda raw: raw[1:],
    "compressed": lambda raw: b"\2" + raw[1:],
    "upper case": lambda raw: raw.upper(),
}


@dataclass(frozen=True)
class Mutation:
    """One thing done to a blob: what, and a number from 0 to 1 that says where."""

    what: str
    where: float = 0.0
    value: int = 0

    def __call__(self, blob: bytes) -> bytes:
        at = int(self.where * len(blob))
        if self.what == "bit":
            turned = bytes(byte ^ 1 << self.value % 8 for byte in blob[at : at + 1])
            return blob[:at] + turned + blob[at + 1 :]
        if self.what == "truncate":
            return blob[:at]
        if self.what == "insert":
            return blob[:at] + bytes([self.value % 256]) + blob[at:]
        if self.what == "append":
            return blob + bytes([self.value % 256]) * (1 + self.value % 5)
        return self._on_fields(blob)

    def _on_fields(self, blob: bytes) -> bytes:
        try:
            parts = fields(blob)
        except IndexError:
            return blob
        at = min(int(self.where * len(parts)), len(parts) - 1)
        if at < 0 or joined(parts) != blob:
            return blob
        if self.what == "name":
            parts[at] = _NAMES[self.value % len(_NAMES)]
        elif self.what == "drop":
            del parts[at]
        elif self.what == "twice":
            parts[at:at] = parts[at : at + 1]
        elif self.what == "repeat":
            parts += parts[1:]
        elif self.what == "swap":
            parts[at], parts[-1] = parts[-1], parts[at]
        elif self.what == "length":
            wrong = ((len(parts[at]) + self.value - 2) % 2**32).to_bytes(4, "big")
            return joined(parts[:at]) + wrong + parts[at] + joined(parts[at + 1 :])
        else:
            parts[at] = _FIELD_EDITS[self.what](parts[at])
        return joined(parts)


_ON_BYTES = ("bit", "truncate", "insert", "append")
_ON_ALL_FIELDS = ("name", "drop", "twice", "repeat", "swap", "length")
mutations = st.builds(
    Mutation,
    st.sampled_from(_ON_BYTES + _ON_ALL_FIELDS) | st.sampled_from(tuple(_FIELD_EDITS)),
    st.floats(0, 1, exclude_max=True, width=16),
    st.integers(0, 1023) | st.just(2**31) | st.just(2**32 - 1),
)


def mutated(blob: bytes, how: Sequence[Mutation]) -> bytes:
    for mutation in how:
        blob = mutation(blob)
    return blob


def read_by_core(blobs: Sequence[bytes]) -> dict[int, str]:
    """As `read_by_ssh_keygen`, with the core's own reading."""
    found = {}
    for number, blob in enumerate(blobs):
        try:
            found[number] = PublicKey.from_blob(blob).fingerprint
        except InvalidKey:
            continue
    return found


def assert_same_reading(blobs: Sequence[bytes], *, dsa: bool) -> dict[int, str]:
    """The core reads exactly what ssh-keygen reads, as the same key."""
    ours, theirs = read_by_core(blobs), read_by_ssh_keygen(blobs)
    if not dsa:  # this OpenSSH was built without
        ours = {n: f for n, f in ours.items() if fields(blobs[n])[0].rstrip(b"\0") != b"ssh-dss"}
    wrong = {
        number: (ours.get(number), theirs.get(number), blobs[number].hex())
        for number in ours.keys() | theirs.keys()
        if ours.get(number) != theirs.get(number)
    }
    assert not wrong
    return theirs


@settings(max_examples=40)
@given(data=st.data())
def test_mutated_blobs_are_read_as_by_openssh(
    keys: Mapping[str, bytes], data: st.DataObject
) -> None:
    """RFC 4253 6.6, RFC 5656, RFC 8709, PROTOCOL.u2f: accepted exactly when OpenSSH accepts."""
    recipe = st.tuples(st.sampled_from(sorted(keys)), st.lists(mutations, min_size=1, max_size=3))
    recipes = data.draw(st.lists(recipe, min_size=15, max_size=60))
    blobs = [mutated(blob_of(keys[name]), how) for name, how in recipes]
    assert_same_reading(blobs, dsa="dsa" in keys)


@pytest.mark.parametrize("what", _FIELD_EDITS)
def test_every_field_edit_of_every_type_is_read_as_by_openssh(
    keys: Mapping[str, bytes], what: str
) -> None:
    """RFC 4251 section 5: strings and mpints, also in spellings that only OpenSSH would read."""
    blobs = [
        Mutation(what, (at + 0.5) / count)(blob_of(line))
        for line in keys.values()
        for count in [len(fields(blob_of(line)))]
        for at in range(count)
    ]
    assert_same_reading(blobs, dsa="dsa" in keys)


def test_every_name_in_front_of_every_key_is_read_as_by_openssh(keys: Mapping[str, bytes]) -> None:
    """sshkey.c, sshkey_type_from_name: what stands inside the blob decides how it is read."""
    blobs = [
        joined([name + end, *fields(blob_of(line))[1:]])
        for line in keys.values()
        for name in _NAMES
        for end in (b"", b"\0", b"\0\0")
    ]
    read = assert_same_reading(blobs, dsa="dsa" in keys)
    assert len(read) > len(keys)


def test_short_names_inside_a_blob_are_read_as_by_openssh(keys: Mapping[str, bytes]) -> None:
    """sshkey.c: most versions take "ED25519" for "ssh-ed25519" inside a blob, so must keysync."""
    rests = [fields(blob_of(line))[1:] for line in keys.values()]
    blobs = [joined([name, *rest]) for rest in rests for name in _SHORT_NAMES]
    ours, theirs = read_by_core(blobs), read_by_ssh_keygen(blobs)
    assert theirs.items() <= ours.items()
    if theirs and "dsa" in keys:
        assert ours == theirs


@pytest.mark.parametrize("name", ["ed25519", "ed25519-sk", "ecdsa-256", "ecdsa-256-sk"])
def test_every_bit_and_every_length_is_read_as_by_openssh(
    keys: Mapping[str, bytes], name: str
) -> None:
    """RFC 4251 section 5: truncated, overlong or with a bit turned over, as OpenSSH judges it."""
    blob = blob_of(keys[name])
    number = int.from_bytes(blob, "big")
    turned = [(number ^ 1 << bit).to_bytes(len(blob), "big") for bit in range(8 * len(blob))]
    cut = [blob[:size] for size in range(1, len(blob))]
    assert_same_reading([blob, *turned, *cut, blob + b"\0", blob + blob], dsa="dsa" in keys)
    assert not read_by_core(cut)


@pytest.mark.parametrize(
    ("modulus_bits", "accepted"),
    [(1023, False), (1024, True), (16384, True), (16385, False)],
)
def test_rsa_sizes_are_judged_as_by_openssh(modulus_bits: int, *, accepted: bool) -> None:
    """sshkey.h: SSH_RSA_MINIMUM_MODULUS_SIZE is 1024; sshbuf.h: SSHBUF_MAX_BIGNUM is 16384 bits."""
    modulus = 1 << (modulus_bits - 1) | 1
    blob = string(b"ssh-rsa") + mpint(65537) + mpint(modulus)
    assert bool(assert_same_reading([blob], dsa=False)) is accepted


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"", "truncated_blob"),
        (b"\0\0\0", "truncated_blob"),
        (b"\0\0\0\x0bssh-ed2551", "truncated_blob"),
        (string(b"ssh-ed25519"), "truncated_blob"),
        (joined([b"ssh-foo", b"x"]), "unknown_type"),
        (joined([b"ssh-\xff\xfe", b"x"]), "unknown_type"),
        (joined([b"ssh\0-rsa", b"x"]), "malformed_blob"),
        (joined([b"ssh-ed25519", b"x" * 31]), "malformed_blob"),
        (joined([b"ssh-rsa", b"\3", b"\x80" * 256]), "malformed_blob"),
        (joined([b"ssh-rsa", b"\3", b"\1" * 2049]), "malformed_blob"),
        (joined([b"ssh-rsa", b"\3", b"\x0f"]), "rsa_too_small"),
        (joined([b"ecdsa-sha2-nistp256", b"nistp384", b"\4"]), "malformed_blob"),
        (joined([b"ecdsa-sha2-nistp256", b"nistp256", b"\4" * 65]), "malformed_blob"),
        (joined([b"sk-ssh-ed25519@openssh.com", b"x" * 32, b"ssh:\0a"]), "malformed_blob"),
        (ed25519_blob(0) + b"\0", "trailing_bytes"),
    ],
)
def test_a_bad_blob_says_what_is_wrong(blob: bytes, reason: str) -> None:
    """G2: refused by name and reason."""
    with pytest.raises(InvalidKey) as raised:
        PublicKey.from_blob(blob)
    assert raised.value.reason == reason


# ---- base64 ----


@given(st.binary(min_size=1))
def test_base64_is_read_as_it_is_written(data: bytes) -> None:
    """RFC 4648 section 4: each blob has one spelling."""
    assert decode_base64(base64.b64encode(data)) == data


@pytest.mark.parametrize(
    "field",
    [
        *(b"", b"A", b"AA", b"AAA", b"AA=A", b"AAAA=", b"AAAA====", b"AA==AA=="),
        *(b"AB==", b"AAB=", b"A A A", b"AA-_", b"\xff\xff\xff\xff", b"AAAA\n"),
    ],
)
def test_anything_else_is_no_base64(field: bytes) -> None:
    """RFC 4648 sections 3.2, 3.3 and 3.5: padding is there, nothing foreign, no stray bits."""
    with pytest.raises(InvalidKey, match="not_base64"):
        decode_base64(field)


# ---- pasted text (G2; the attacks of the field) ----

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
    "a newline at the end": (f"{GOOD} me\n", "newline"),
    "a newline in front": (f"\n{GOOD}", "newline"),
    "CR": (f"{GOOD} a\rb", "newline"),
    "CRLF at the end": (f"{GOOD} me\r\n", "newline"),
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
        (f"{TYPE}   {DATA}   me@home   at  night ", "me@home   at  night"),
        (f"{GOOD} Zoë 🔑 \u00a0", "Zoë 🔑"),
        (f"{GOOD} 100% AAAA", "100% AAAA"),
        (f"{GOOD} {'x' * MAX_COMMENT_BYTES}", "x" * MAX_COMMENT_BYTES),
        (f"{GOOD} keysync:managed", "keysync:managed"),
    ],
)
def test_blanks_and_comments_make_no_other_key(text: str, comment: str) -> None:
    """Section 2: never the comment, never the text."""
    assert parse_entry(text, FLOOR) == (PublicKey.from_blob(ed25519_blob(1)), comment)


def test_a_newline_at_the_end_is_told_from_one_inside() -> None:
    """G2: the reason helps to mend the entry."""
    details = []
    for text in (f"{GOOD}\r\n", f"\n{GOOD}", f"{GOOD}\n{OTHER}", f"{GOOD}\n{OTHER}\n"):
        with pytest.raises(InvalidKey) as raised:
            parse_entry(text, FLOOR)
        details.append(raised.value.detail)
    assert ["inside the text" in detail for detail in details] == [False, False, True, True]


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


@settings(max_examples=500)
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


@given(st.text(st.sampled_from("a A=-\tB\n")), st.integers(1, 5000))
def test_making_out_keys_costs_no_more_than_the_text(text: str, times: int) -> None:
    """G1 and G2: one entry of one letter, however long, does not stop the others."""
    assert fingerprints_in(text * times) == frozenset()
