"""One SSH public key: decoding its blob, its identity, and the rules for a pasted one.

Two doors lead here. `PublicKey.from_blob` reads what sshd(8) reads from a key file and yields the
canonical key, so that two spellings of one key are one key. `parse_entry` is for text that came
from outside and is stricter: only the canonical spelling of a strong key passes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from agent.core.curves import CURVES, Curve

MAX_ENTRY_CHARS = 8192
MAX_COMMENT_BYTES = 1024
_MAX_UNKNOWN_BYTES = MAX_ENTRY_CHARS * 3 // 4  # more does not fit into an entry
# The name of an algorithm (RFC 4251 section 6), as far as OpenSSH gives such names to keys.
_TYPE_NAME = re.compile(rb"[a-z0-9][a-z0-9._+-]+(@[a-z0-9][a-z0-9.-]+)?")
_MAX_TYPE_NAME_BYTES = 64
_CERTIFICATE_NAME = re.compile(rb"-cert(-v[0-9]+)?(@|$)")
_SSHD_MIN_RSA_BITS = 1024  # SSH_RSA_MINIMUM_MODULUS_SIZE: below it sshd reads no key
_SSHD_MAX_MPINT_BYTES = 16384 // 8  # SSHBUF_MAX_BIGNUM
_ED25519_BYTES = 32


class InvalidKey(Exception):
    """Why a text or blob is not an acceptable public key; never holds the text itself."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class _Reader:
    """The data types of RFC 4251 section 5, read from the front of a blob."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def string(self) -> bytes:
        start = self._at + 4
        end = start + int.from_bytes(self._data[self._at : start], "big")
        if start > len(self._data) or end > len(self._data):
            raise InvalidKey("truncated_blob", "the key data ends too early; copy the whole line")
        self._at = end
        return self._data[start:end]

    def cstring(self) -> bytes:
        """A string that sshd reads as text (sshbuf_get_cstring): one NUL at its end is not seen."""
        text = self.string().removesuffix(b"\0")
        if b"\0" in text:
            raise InvalidKey("malformed_blob", "a name in the key data holds a NUL")
        return text

    def mpint(self) -> int:
        """A non-negative mpint, in any spelling that sshd reads (leading zeros allowed)."""
        raw = self.string()
        if raw[:1] > b"\x7f":
            raise InvalidKey("malformed_blob", "a number in the key data is negative")
        if len(raw.lstrip(b"\0")) > _SSHD_MAX_MPINT_BYTES or len(raw) > _SSHD_MAX_MPINT_BYTES + 1:
            raise InvalidKey("malformed_blob", "a number in the key data is too large")
        return int.from_bytes(raw, "big")

    def end(self) -> None:
        extra = len(self._data) - self._at
        if extra:
            raise InvalidKey("trailing_bytes", f"{extra} bytes follow the end of the key data")


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _mpint(value: int) -> bytes:
    return _string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


@dataclass(frozen=True, slots=True)
class _Body:
    """What follows the type name in a blob, rewritten canonically."""

    encoded: bytes
    bits: int
    flaw: str | None = None  # why a key of this shape is too weak to accept from outside


def _ed25519(reader: _Reader) -> _Body:
    """RFC 8709 section 4."""
    point = reader.string()
    if len(point) != _ED25519_BYTES:
        raise InvalidKey("malformed_blob", f"an Ed25519 key has 32 bytes, this one {len(point)}")
    return _Body(_string(point), 256)


def _rsa(reader: _Reader) -> _Body:
    """RFC 4253 section 6.6."""
    exponent, modulus = reader.mpint(), reader.mpint()
    if modulus.bit_length() < _SSHD_MIN_RSA_BITS:
        raise InvalidKey(
            "rsa_too_small", f"an RSA key of {modulus.bit_length()} bits is refused by sshd itself"
        )
    weak = exponent < 3 or exponent % 2 == 0 or modulus % 2 == 0
    flaw = "its RSA numbers are not those of a real key" if weak else None
    return _Body(_mpint(exponent) + _mpint(modulus), modulus.bit_length(), flaw)


def _dsa(reader: _Reader) -> _Body:
    """RFC 4253 section 6.6: p, q, g and y."""
    numbers = [reader.mpint() for _ in range(4)]
    return _Body(b"".join(map(_mpint, numbers)), numbers[0].bit_length())


def _ecdsa(curve: Curve) -> Callable[[_Reader], _Body]:
    """RFC 5656 section 3.1: the curve's name, then an uncompressed point on it."""

    def decode(reader: _Reader) -> _Body:
        name, point = reader.cstring(), reader.string()
        if name != curve.name:
            raise InvalidKey("malformed_blob", "the curve named in the key data is another one")
        if not curve.has(point):
            raise InvalidKey("malformed_blob", "the key's point is not on its curve")
        return _Body(_string(name) + _string(point), curve.bits)

    return decode


def _security_key(inner: Callable[[_Reader], _Body]) -> Callable[[_Reader], _Body]:
    """PROTOCOL.u2f: the plain key of that type, then the application."""

    def decode(reader: _Reader) -> _Body:
        body = inner(reader)
        return _Body(body.encoded + _string(reader.cstring()), body.bits)

    return decode


_P256, _P384, _P521 = (_ecdsa(curve) for curve in CURVES)
_DECODERS: dict[bytes, Callable[[_Reader], _Body]] = {
    b"ssh-ed25519": _ed25519,
    b"ssh-rsa": _rsa,
    b"ssh-dss": _dsa,
    b"ecdsa-sha2-nistp256": _P256,
    b"ecdsa-sha2-nistp384": _P384,
    b"ecdsa-sha2-nistp521": _P521,
    b"sk-ssh-ed25519@openssh.com": _security_key(_ed25519),
    b"sk-ecdsa-sha2-nistp256@openssh.com": _security_key(_P256),
}
# sshd also takes the name of a signature algorithm where a key type belongs (sshkey.c).
_ALIASES: dict[bytes, bytes] = {
    b"rsa-sha2-256": b"ssh-rsa",
    b"rsa-sha2-512": b"ssh-rsa",
    b"webauthn-sk-ecdsa-sha2-nistp256@openssh.com": b"sk-ecdsa-sha2-nistp256@openssh.com",
}
# Inside a blob sshd takes the short names too, in any case.
_SHORT_NAMES: dict[bytes, bytes] = {
    b"rsa": b"ssh-rsa",
    b"dsa": b"ssh-dss",
    b"ed25519": b"ssh-ed25519",
    b"ed25519-sk": b"sk-ssh-ed25519@openssh.com",
}


def canonical_type(name: bytes) -> bytes | None:
    """The key type that this first word of a line stands for, or None when it can be none.

    A newer sshd may know more types, so each plausible name counts (see PublicKey.known_type).
    """
    name = _ALIASES.get(name, name)
    return name if name in _DECODERS or _is_unknown_type(name) else None


def is_known_type(name: str) -> bool:
    """Whether keysync reads keys of this type itself, and not only sshd."""
    return name in _TYPES_TEXT


def _is_unknown_type(name: bytes) -> bool:
    """Whether this may be the name of a key type that is not known here."""
    return (
        name not in _DECODERS
        and name not in _ALIASES
        and len(name) <= _MAX_TYPE_NAME_BYTES
        and _TYPE_NAME.fullmatch(name) is not None
        and _CERTIFICATE_NAME.search(name) is None
    )


Accepts = Callable[[str], bool | None]  # whether sshd accepts a key type; None: cannot be asked


def not_asked(key_type: str) -> bool | None:  # noqa: ARG001  # reason: the shape of Accepts
    """For where there is no sshd to ask."""
    return None


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key; two are equal when their canonical blobs are (RFC 4253 section 6.6).

    `bits` is 0 for a type that is not known here.
    """

    key_type: str
    blob: bytes
    bits: int
    flaw: str | None = None

    @property
    def known_type(self) -> bool:
        """Whether the whole key was read, and not only the name of its type."""
        return is_known_type(self.key_type)

    def accepted_by(self, accepts: Accepts) -> bool:
        """Whether sshd accepts this type of key; when it cannot be asked, every known type."""
        answer = accepts(self.key_type)
        return self.known_type if answer is None else answer

    @classmethod
    def from_blob(cls, blob: bytes) -> PublicKey:
        """The key that sshd(8) reads from `blob`, rewritten canonically.

        A key of a type that is not known here is taken as it is. Raises InvalidKey for a name,
        length, number or point that OpenSSH refuses to read.
        """
        reader = _Reader(blob)
        name = reader.cstring()
        name = _ALIASES.get(name) or _SHORT_NAMES.get(name.lower(), name)
        decoder = _DECODERS.get(name)
        if decoder is None:
            return cls._of_unknown_type(name, blob)
        body = decoder(reader)
        reader.end()
        return cls(name.decode("ascii"), _string(name) + body.encoded, body.bits, body.flaw)

    @classmethod
    def _of_unknown_type(cls, name: bytes, blob: bytes) -> PublicKey:
        """RFC 4253 section 6.6: the type's name, and data that only the type can explain."""
        if not _is_unknown_type(name) or not blob.startswith(_string(name)):
            raise InvalidKey("unknown_type", "the key data names no type that OpenSSH can use")
        if len(blob) == len(_string(name)):
            raise InvalidKey("truncated_blob", "the key data ends too early; copy the whole line")
        if len(blob) > _MAX_UNKNOWN_BYTES:
            detail = f"the key data has {len(blob)} bytes, more than {_MAX_UNKNOWN_BYTES}"
            raise InvalidKey("too_long", detail)
        return cls(name.decode("ascii"), blob, 0)

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -lf` prints it."""
        return fingerprint_of(self.blob)

    def line(self, comment: str = "") -> bytes:
        """The key as a line of authorized_keys without its newline."""
        text = self.key_type.encode("ascii") + b" " + base64.b64encode(self.blob)
        return text + b" " + comment.encode("utf-8") if comment else text


def fingerprint_of(blob: bytes) -> str:
    """`SHA256:` and unpadded base64, as `ssh-keygen -lf` prints it."""
    digest = hashlib.sha256(blob).digest()
    return "SHA256:" + base64.b64encode(digest).rstrip(b"=").decode("ascii")


def decode_base64(field: bytes) -> bytes:
    """Strict base64 (RFC 4648 section 4: padded, no stray bits), as sshd reads a key's data."""
    try:
        data = binascii.a2b_base64(field)
    except binascii.Error:
        data = b""
    if not data or binascii.b2a_base64(data, newline=False) != field:
        raise InvalidKey("not_base64", "the key data is not whole base64; copy the line again")
    return data


# ---- text from outside: the console's entries and the configuration's pins ----

_PRIVATE = re.compile(r"PRIVATE KEY|PuTTY-User-Key-File", re.IGNORECASE)
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_ESCAPED_CONTROL = re.compile(r"%0[0ad]", re.IGNORECASE)
_KEY_TEXT = re.compile(r"[a-z0-9@.-][ \t]+(AAAA[A-Za-z0-9+/]+=*)")
_WHITE_SPACE = " \t\r\n"  # around an entry; clients send what a file held, with its newline
_LINE_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")


def parse_entry(text: str, min_rsa_bits: int) -> tuple[PublicKey, str]:
    """The key and comment of one pasted public key line (G2); white space around it is trimmed.

    `min_rsa_bits` is the smallest RSA modulus accepted, in bits. The key may be of a type that is
    not known here: whether sshd accepts it must be asked. Raises InvalidKey with the name of the
    reason and a sentence that says what to do; neither ever holds a part of the text.
    """
    text = text.strip(_WHITE_SPACE)
    _refuse_dangerous(text)
    words = text.split(None, 2)
    _refuse_wrong_start(words)
    key = _decode_words(words[0].encode(), words[1].encode("utf-8"))
    if key.flaw:
        raise InvalidKey("weak_key", key.flaw)
    if key.key_type == "ssh-rsa" and key.bits < min_rsa_bits:
        detail = f"an RSA key of {key.bits} bits is below the floor of {min_rsa_bits}"
        raise InvalidKey("rsa_too_small", detail)
    comment = words[2].strip() if len(words) > 2 else ""
    _refuse_comment(comment)
    return key, comment


def fingerprints_in(text: str) -> frozenset[str]:
    """The keys that can be made out in a refused entry, so that its deletion can be noticed."""
    found = set()
    for field in _KEY_TEXT.findall(text.strip(_WHITE_SPACE)[: 2 * MAX_ENTRY_CHARS]):
        try:
            found.add(PublicKey.from_blob(decode_base64(field.encode("ascii"))).fingerprint)
        except InvalidKey:
            continue
    return frozenset(found)


def _refuse_dangerous(text: str) -> None:
    """Refuses what could become more than one line, or is a secret, wherever it stands."""
    if _PRIVATE.search(text):
        raise InvalidKey(
            "private_key", "this is a private key; delete it, make a new pair, paste the .pub file"
        )
    if len(text) > MAX_ENTRY_CHARS:
        raise InvalidKey("too_long", f"{len(text)} characters, more than {MAX_ENTRY_CHARS}")
    if "BEGIN SSH2 PUBLIC KEY" in text:
        raise InvalidKey("not_openssh_format", "convert it first: ssh-keygen -i -f FILE")
    if any(char in _LINE_BREAKS for char in text):
        inside = not _LINE_BREAKS.isdisjoint(text.strip())
        where = "inside the text" if inside else "at its start or end"
        raise InvalidKey("newline", f"a line break {where}; save the key again as one single line")
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
        raise InvalidKey("control_character", "a control character is in the text")
    if any(char in _BIDI for char in text):
        raise InvalidKey("bidi_mark", "an invisible mark that reorders text is in it")


def _refuse_wrong_start(words: list[str]) -> None:
    """Refuses what does not begin with a key type and its data, saying what it is instead."""
    if not words:
        raise InvalidKey("empty", "the entry holds no text")
    first = words[0]
    if first not in _TYPES_TEXT and not _begins_unknown_key(words):
        raise InvalidKey(*_name_wrong_start(first, words))
    if first == "ssh-dss":
        raise InvalidKey("unsupported_type", "DSA keys (ssh-dss) are refused by OpenSSH since 7.0")
    if len(words) < 2:
        raise InvalidKey("truncated_blob", "the key data is missing; copy the whole line")


_TYPES_TEXT = frozenset(name.decode("ascii") for name in _DECODERS)


def _begins_unknown_key(words: list[str]) -> bool:
    """Whether it looks like a key of a type that is not known here."""
    first = words[0].encode("utf-8")
    return len(words) > 1 and words[1].startswith(_BLOB_START) and _is_unknown_type(first)


_BLOB_START = "AAAA"  # the base64 of the length of a type's name


def _name_wrong_start(first: str, words: list[str]) -> tuple[str, str]:
    if first[0] in "\"'`":
        return "quoted", "quotation marks surround the key; save it without them"
    if _CERTIFICATE_NAME.search(first.encode("utf-8")):
        return "certificate", "a certificate is no key for authorized_keys; paste the .pub file"
    if first[0] in "/~." or first.endswith(".pub"):
        return "file_path", "this is the path of a file; paste what the file holds"
    rest = " ".join(words[1:])
    if any(word.strip("\"'") in _TYPES_TEXT for word in rest.split()) or _KEY_TEXT.search(rest):
        return "options", "something stands in front of the key type; options are not accepted"
    return "not_a_key", "it does not begin with a key type such as ssh-ed25519"


def _decode_words(name: bytes, field: bytes) -> PublicKey:
    """Raises InvalidKey unless the blob is exactly what OpenSSH itself would write."""
    blob = decode_base64(field)
    declared = _Reader(blob).string()
    if declared != name:
        raise InvalidKey("type_mismatch", "the type before the key data is not the one inside it")
    key = PublicKey.from_blob(blob)
    if key.blob != blob:
        raise InvalidKey("not_canonical", "the key data is not as OpenSSH writes it")
    return key


def _refuse_comment(comment: str) -> None:
    if len(comment.encode("utf-8")) > MAX_COMMENT_BYTES:
        raise InvalidKey("too_long", f"the comment has more than {MAX_COMMENT_BYTES} bytes")
    if _ESCAPED_CONTROL.search(comment):
        raise InvalidKey("control_character", "an escaped line break (%0A) is in the comment")
    if _KEY_TEXT.search(comment):
        raise InvalidKey("several_keys", "more than one key is in this entry; save each by itself")
