"""An SSH public key: its blob decoded as sshd(8) decodes it, and its identity.

`PublicKey.from_blob` is the only constructor. It accepts every encoding that sshd(8) accepts and
stores the canonical one, so that two encodings of one key are equal. Text from the console or the
configuration goes through `agent.core.key_entry`, which is stricter.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from agent.core.curves import CURVES, Curve
from agent.core.wire import InvalidKey, WireReader, wire_mpint, wire_string

MAX_UNKNOWN_BLOB_BYTES = 6144  # of a key type that only sshd knows
# An algorithm name (RFC 4251 section 6), restricted to the form of OpenSSH's key types.
_TYPE_NAME = re.compile(rb"[a-z0-9][a-z0-9._+-]+(@[a-z0-9][a-z0-9.-]+)?")
_MAX_TYPE_NAME_BYTES = 64
_CERTIFICATE_NAME = re.compile(rb"-cert(-v[0-9]+)?(@|$)")
_SSHD_MIN_RSA_BITS = 1024  # SSH_RSA_MINIMUM_MODULUS_SIZE: below it sshd reads no key
_ED25519_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Body:
    """The part of a blob after the type name, in its canonical encoding."""

    encoded: bytes
    bits: int
    flaw: str | None = None  # why such a key is too weak for an entry, though sshd accepts it


def _ed25519(reader: WireReader) -> _Body:
    """RFC 8709 section 4."""
    point = reader.string()
    if len(point) != _ED25519_BYTES:
        raise InvalidKey("malformed_blob", f"an Ed25519 key has 32 bytes, this one {len(point)}")
    return _Body(wire_string(point), 256)


def _rsa(reader: WireReader) -> _Body:
    """RFC 4253 section 6.6."""
    exponent, modulus = reader.mpint(), reader.mpint()
    if modulus.bit_length() < _SSHD_MIN_RSA_BITS:
        raise InvalidKey(
            "rsa_too_small", f"an RSA key of {modulus.bit_length()} bits is refused by sshd itself"
        )
    weak = exponent < 3 or exponent % 2 == 0 or modulus % 2 == 0
    flaw = "its RSA numbers are not those of a real key" if weak else None
    return _Body(wire_mpint(exponent) + wire_mpint(modulus), modulus.bit_length(), flaw)


def _dsa(reader: WireReader) -> _Body:
    """RFC 4253 section 6.6: p, q, g and y."""
    numbers = [reader.mpint() for _ in range(4)]
    return _Body(b"".join(map(wire_mpint, numbers)), numbers[0].bit_length())


def _ecdsa(curve: Curve) -> Callable[[WireReader], _Body]:
    """RFC 5656 section 3.1: the curve name, then an uncompressed point on the curve."""

    def decode(reader: WireReader) -> _Body:
        name, point = reader.cstring(), reader.string()
        if name != curve.name:
            raise InvalidKey("malformed_blob", "the key data names another curve than its type")
        if not curve.contains(point):
            raise InvalidKey("malformed_blob", "the key's point is not on its curve")
        return _Body(wire_string(name) + wire_string(point), curve.bits)

    return decode


def _security_key(inner: Callable[[WireReader], _Body]) -> Callable[[WireReader], _Body]:
    """PROTOCOL.u2f: the fields of the plain key type, then the application string."""

    def decode(reader: WireReader) -> _Body:
        body = inner(reader)
        return _Body(body.encoded + wire_string(reader.cstring()), body.bits)

    return decode


_P256, _P384, _P521 = (_ecdsa(curve) for curve in CURVES)
_DECODERS: dict[bytes, Callable[[WireReader], _Body]] = {
    b"ssh-ed25519": _ed25519,
    b"ssh-rsa": _rsa,
    b"ssh-dss": _dsa,
    b"ecdsa-sha2-nistp256": _P256,
    b"ecdsa-sha2-nistp384": _P384,
    b"ecdsa-sha2-nistp521": _P521,
    b"sk-ssh-ed25519@openssh.com": _security_key(_ed25519),
    b"sk-ecdsa-sha2-nistp256@openssh.com": _security_key(_P256),
}
KNOWN_TYPES = frozenset(name.decode("ascii") for name in _DECODERS)
# sshd also accepts these signature algorithms in the place of a key type (sshkey.c).
_ALIASES: dict[bytes, bytes] = {
    b"rsa-sha2-256": b"ssh-rsa",
    b"rsa-sha2-512": b"ssh-rsa",
    b"webauthn-sk-ecdsa-sha2-nistp256@openssh.com": b"sk-ecdsa-sha2-nistp256@openssh.com",
}
# Inside a blob sshd also accepts the short names, in upper or lower case.
_SHORT_NAMES: dict[bytes, bytes] = {
    b"rsa": b"ssh-rsa",
    b"dsa": b"ssh-dss",
    b"ed25519": b"ssh-ed25519",
    b"ed25519-sk": b"sk-ssh-ed25519@openssh.com",
}


def canonical_type(name: bytes) -> bytes | None:
    """The key type that the first word of a line names, or None when it names none (sshd(8)).

    A newer sshd may know more types, so any plausible name is returned (PublicKey.known_type).
    """
    name = _ALIASES.get(name, name)
    return name if name in _DECODERS or is_plausible_type(name) else None


def is_known_type(name: str) -> bool:
    """Whether keysync can decode keys of this type."""
    return name in KNOWN_TYPES


def is_certificate_type(name: bytes) -> bool:
    """Whether this names a type of certificates (PROTOCOL.certkeys)."""
    return _CERTIFICATE_NAME.search(name) is not None


def is_plausible_type(name: bytes) -> bool:
    """Whether a newer sshd may use this name for a key type that keysync cannot decode."""
    return (
        name not in _DECODERS
        and name not in _ALIASES
        and len(name) <= _MAX_TYPE_NAME_BYTES
        and _TYPE_NAME.fullmatch(name) is not None
        and not is_certificate_type(name)
    )


# Whether sshd accepts a key type; None when sshd cannot be asked.
Accepts = Callable[[str], bool | None]


def without_sshd(key_type: str) -> bool | None:  # noqa: ARG001  # reason: the shape of Accepts
    """An `Accepts` that knows no answer, for use where sshd is not asked."""
    return None


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key, equal to another when their canonical blobs are (RFC 4253 section 6.6).

    `bits` is the key size as ssh-keygen(1) prints it, and 0 for a type that keysync cannot decode.
    `flaw` says why the key is too weak for an entry, None for a sound one.
    """

    key_type: str
    blob: bytes
    bits: int
    flaw: str | None = None

    @property
    def known_type(self) -> bool:
        """Whether the key data was decoded, not only the name of its type."""
        return is_known_type(self.key_type)

    def accepted_by(self, accepts: Accepts) -> bool:
        """Whether sshd accepts this key type; without an answer, whether keysync knows it."""
        answer = accepts(self.key_type)
        return self.known_type if answer is None else answer

    @classmethod
    def from_blob(cls, blob: bytes) -> PublicKey:
        """The key that sshd(8) reads from `blob`, in its canonical encoding.

        A key of a type that keysync cannot decode keeps its encoding. Raises InvalidKey for a type,
        length, number or point that OpenSSH refuses to read (sshkey_from_blob in sshkey.c).
        """
        reader = WireReader(blob)
        name = reader.cstring()
        name = _ALIASES.get(name) or _SHORT_NAMES.get(name.lower(), name)
        decoder = _DECODERS.get(name)
        if decoder is None:
            return cls._of_unknown_type(name, blob)
        body = decoder(reader)
        reader.end()
        return cls(name.decode("ascii"), wire_string(name) + body.encoded, body.bits, body.flaw)

    @classmethod
    def _of_unknown_type(cls, name: bytes, blob: bytes) -> PublicKey:
        """RFC 4253 section 6.6: the name of the type, then data whose format depends on it."""
        if not is_plausible_type(name) or not blob.startswith(wire_string(name)):
            raise InvalidKey("unknown_type", "the key data names no key type of OpenSSH")
        if len(blob) == len(wire_string(name)):
            raise InvalidKey("truncated_blob", "the key data ends too early; copy the whole line")
        if len(blob) > MAX_UNKNOWN_BLOB_BYTES:
            detail = f"the key data has {len(blob)} bytes, more than {MAX_UNKNOWN_BLOB_BYTES}"
            raise InvalidKey("too_long", detail)
        return cls(name.decode("ascii"), blob, 0)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint, as `ssh-keygen -lf` prints it."""
        return fingerprint_of(self.blob)

    def line(self, comment: str = "") -> bytes:
        """A line of authorized_keys for this key, without options and newline."""
        text = self.key_type.encode("ascii") + b" " + base64.b64encode(self.blob)
        return text + b" " + comment.encode("utf-8") if comment else text


def type_in_blob(blob: bytes) -> bytes:
    """The type name at the front of a blob, as written there. Raises InvalidKey."""
    return WireReader(blob).string()


def fingerprint_of(blob: bytes) -> str:
    """`SHA256:` and unpadded base64, as `ssh-keygen -lf` prints it."""
    digest = hashlib.sha256(blob).digest()
    return "SHA256:" + base64.b64encode(digest).rstrip(b"=").decode("ascii")


def decode_base64(field: bytes) -> bytes:
    """The blob encoded in `field`, which is the second field of a key line.

    Strict like sshd: padded and without stray bits (RFC 4648 sections 3.2 and 3.5). Raises
    InvalidKey, also for an empty field.
    """
    try:
        data = binascii.a2b_base64(field)
    except binascii.Error:
        data = b""
    if not data or binascii.b2a_base64(data, newline=False) != field:
        raise InvalidKey("not_base64", "the key data is not complete base64; copy the line again")
    return data
