"""Searches a key file for keysync's tag and for known keys, without parsing its lines."""

from __future__ import annotations

import re
from collections.abc import Container

from agent.core.authorized_keys import IGNORED_IN_BASE64, TAG
from agent.core.public_key import PublicKey, decode_base64, fingerprint_of
from agent.core.wire import InvalidKey

_KEY_BLOB = re.compile(rb"AAAA[A-Za-z0-9+/]{20,}={0,2}")
_ED25519 = b"AAAAC3NzaC1lZDI1NTE5AAAAI"  # such a blob has only one encoding (RFC 8709 section 4)
_MIN_RECODED_CHARS = 64  # sshd accepts only one encoding of keys with less base64 than this


def mentions_tag_or_key(data: bytes, fingerprints: Container[str]) -> bool:
    """Whether a file contains keysync's tag or one of these keys, in any encoding sshd accepts.

    Used by `targets: auto`, which searches the files of all accounts (R5).
    """
    if TAG in data:
        return True
    fields = _KEY_BLOB.findall(data.translate(None, IGNORED_IN_BASE64))
    return any(_is_one_of(fingerprints, field) for field in fields)


def _is_one_of(fingerprints: Container[str], field: bytes) -> bool:
    """Whether `field` is the key data of one of the keys; mostly decided by its hash alone."""
    try:
        blob = decode_base64(field)
        if fingerprint_of(blob) in fingerprints:
            return True
        if len(field) < _MIN_RECODED_CHARS or field.startswith(_ED25519):
            return False
        return PublicKey.from_blob(blob).fingerprint in fingerprints
    except InvalidKey:
        return False
