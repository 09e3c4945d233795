"""What a key is according to others: cryptography's reader, and RFC 4253 read once more."""

from __future__ import annotations

import base64
import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

# What cryptography reads and writes again. Of the sk-* types it drops the application, DSA it has
# given up.
_COMPARED = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384")


def fingerprint(blob: bytes) -> str:
    """RFC 4253's key data under SHA-256, as OpenSSH shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def fields(blob: bytes) -> list[bytes]:
    """The strings of which a key consists (RFC 4251 section 5); fails when a byte is left over."""
    found, at = [], 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 4], "big")
        assert at + 4 + size <= len(blob), "a string of the canonical key is cut short"
        found.append(blob[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def rewritten(line: bytes) -> bytes | None:
    """The key of a line as cryptography writes it; None where it has no opinion."""
    if line.split(b" ")[0].decode() not in _COMPARED:
        return None
    try:
        key: PublicKeyTypes = load_ssh_public_key(line)
    except UnsupportedAlgorithm:
        return None
    except ValueError:
        # It takes no RSA exponent as large as the modulus, and no even modulus.
        if line.startswith(b"ssh-rsa "):
            return None
        raise
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
