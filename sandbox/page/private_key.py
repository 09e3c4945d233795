"""Whether a text is, or holds, a private key: the one thing that must never be stored."""

import base64
import re

_MARKS = re.compile(r"PRIVATE\s+KEY|PuTTY-User-Key-File|Private-Lines:|Private-MAC:", re.IGNORECASE)
# openssh-key-v1 and its NUL (PROTOCOL.key of OpenSSH) in base64.
_OPENSSH = "b3BlbnNzaC1rZXktdjEA"
# Where base64 of a DER SEQUENCE may begin: 0x30 is M, and 32 characters are enough to know it.
_START = re.compile(r"(?<![A-Za-z0-9+/])(?=(M(?:\s*[A-Za-z0-9+/]){31}))")
_LENGTH = rb"(?:[\x00-\x7f]|\x81.|\x82..)"
_HEAD = re.compile(
    rb"\x30"
    + _LENGTH
    + rb"(?:\x02\x01\x00\x02"  # PKCS #1 (RFC 8017, A.1.2), and DSA in the same manner
    + rb"|\x02\x01[\x00\x01]\x30"  # PKCS #8 (RFC 5208, RFC 5958)
    + rb"|\x02\x01\x01\x04"  # SEC 1 (RFC 5915)
    + rb"|\x30"  # PKCS #8, encrypted as in PKCS #5 or PKCS #12
    + _LENGTH
    + rb"\x06.\x2a\x86\x48\x86\xf7\x0d\x01(?:\x05|\x0c\x01))",
    re.DOTALL,
)


def is_private(text: str) -> bool:
    """Whether a private key, or a recognizable part of one, is in the text.

    A body without its BEGIN and END lines is known by how it begins.
    """
    if _MARKS.search(text) or _OPENSSH in "".join(text.split()):
        return True
    return any(_HEAD.match(_decoded(found[1])) for found in _START.finditer(text))


def _decoded(start: str) -> bytes:
    return base64.b64decode("".join(start.split()))
