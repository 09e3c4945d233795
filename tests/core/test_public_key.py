"""One public key: its blob and its fingerprint, with ssh-keygen as the oracle."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.public_key import PublicKey, canonical_type, decode_base64
from agent.core.wire import InvalidKey
from tests.core.support import (
    KEY_TYPES,
    blob_of,
    ed25519_blob,
    examples,
    fields,
    joined,
    listed_by_ssh_keygen,
    mpint,
    read_by_ssh_keygen,
    rsa_blob,
    string,
)

# ---- real keys ----


def test_fingerprint_type_and_size_are_those_of_ssh_keygen(keys: Mapping[str, bytes]) -> None:
    """A key's identity is the fingerprint that `ssh-keygen -lf` prints."""
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


def test_equality_is_that_of_the_canonical_blob() -> None:
    """Identity is the decoded blob; leading zeros of an mpint make no other key."""
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
    "name",
    [
        b"",
        b"x",
        b"SSH-RSA",
        b"RSA",
        b"ssh-rsa-cert-v01@openssh.com",
        b"ssh-mldsa44-ed25519-cert",
        b"ssh,foo",
        b"ssh-foo@",
        b"ssh-f\xc3\xa9",
        b"ssh-" + b"x" * 61,
    ],
)
def test_other_words_are_no_key_type(name: bytes) -> None:
    """RFC 4251 section 6: what a name may look like; certificates are no keys."""
    assert canonical_type(name) is None
    with pytest.raises(InvalidKey):
        PublicKey.from_blob(joined([name, b"x" * 32]))


@pytest.mark.parametrize("name", [b"ssh-mldsa44-ed25519", b"ssh-mldsa44-ed25519@openssh.com"])
def test_a_key_of_an_unknown_type_is_its_blob(name: bytes) -> None:
    """Incident 30: a newer sshd knows more types, and such a key must be revocable."""
    assert canonical_type(name) == name
    blob = joined([name, b"x" * 1344])
    key = PublicKey.from_blob(blob)
    assert (key.key_type, key.blob, key.known_type) == (name.decode(), blob, False)
    assert PublicKey.from_blob(rsa_blob(2048)).known_type


@pytest.mark.parametrize(
    ("known", "answer", "accepted"),
    [
        (True, True, True),
        (True, None, True),
        (True, False, False),
        (False, True, True),
        (False, None, False),
        (False, False, False),
    ],
)
def test_sshd_decides_about_a_type(known: bool, answer: bool | None, accepted: bool) -> None:
    """G2: what sshd accepts may enter; when it cannot be asked, only known types."""
    key = PublicKey.from_blob(rsa_blob(2048) if known else joined([b"ssh-foo", b"x"]))
    asked = []

    def accepts(key_type: str) -> bool | None:
        asked.append(key_type)
        return answer

    assert key.accepted_by(accepts) is accepted
    assert asked == [key.key_type]


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
            key = PublicKey.from_blob(blob)
        except InvalidKey:
            continue
        if key.known_type:  # this ssh-keygen knows no others
            found[number] = key.fingerprint
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


@settings(max_examples=examples(40))
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
        (joined([b"SSH-FOO", b"x"]), "unknown_type"),
        (joined([b"ssh-foo\0", b"x"]), "unknown_type"),
        (string(b"ssh-foo"), "truncated_blob"),
        (joined([b"ssh-foo", b"x" * 6130]), "too_long"),
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
