"""How the page judges a text that is meant to be a public key; it never changes the text.

The page parses keys by itself (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4), so that it is
independent of the agent. Where both refuse a text for the same reason, they use the same words.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

# Key type to the number of length-prefixed fields in its blob, the type itself included.
_FIELDS = {
    "ssh-ed25519": 2,
    "ssh-rsa": 3,
    "ssh-dss": 5,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
_SMALLEST_RSA_BITS = 2048
_KEY = re.compile(r"(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]{1,64}\s+AAAA")
_DATA = re.compile(r"AAAA[A-Za-z0-9+/=]{28,}")


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a text may not work as a key: a name for the program, a sentence for people."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class KeyText:
    """A text that somebody stores as a key; without a fingerprint it cannot be used as one."""

    fingerprint: str | None
    key_type: str
    comment: str
    doubt: Doubt | None = None

    @property
    def name(self) -> str:
        """How the key is called on the page."""
        return self.comment or self.fingerprint or "(a text that is no key)"


class NotAKey(ValueError):
    """Says as a `Doubt` why a text has no fingerprint."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.doubt = Doubt(code, text)


def several(text: str) -> list[str]:
    """The lines of a text that holds more than one key, each by itself; else nothing."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(_KEY.findall(text)) > 1 and all(map(_KEY.match, lines)) else []


def read_key(text: str) -> KeyText:
    """Read a stored or pasted text, whatever it is."""
    words = text.split(None, 2)
    try:
        fingerprint, doubt = _judge(text, words)
    except NotAKey as problem:
        return KeyText(None, "", _shown(text), problem.doubt)
    comment = _shown(words[2].strip()) if len(words) > 2 else ""
    return KeyText(fingerprint, words[0], comment, doubt)


def shortened(text: str, limit: int = 160) -> str:
    """A line for people: the data of its keys shortened, nothing unprintable, not too long."""
    return _shown(_DATA.sub(lambda found: f"{found[0][:12]}…{found[0][-8:]}", text), limit)


def printable(text: str, keep: str = "") -> str:
    """The text with control, bidirectional and half characters as escapes, but for those to keep.

    They would hide or reorder what stands beside them.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def _judge(text: str, words: list[str]) -> tuple[str, Doubt | None]:
    if len(_KEY.findall(text)) > 1:
        raise NotAKey("several", "It contains several keys; save each one by itself.")
    if not words or words[0] not in _FIELDS:
        raise _no_type(words[0] if words else "")
    if len(words) < 2:
        raise NotAKey("no_data", "The key data is missing; copy the whole line.")
    blob = _decode(words[1])
    fields = _split(blob)
    if not fields or fields[0] != words[0].encode():
        raise NotAKey("mismatch", "The key type differs from the type in the key data.")
    if len(fields) != _FIELDS[words[0]]:
        raise NotAKey("cut_off", "The key data ends too early; copy the whole line.")
    return _fingerprint(blob), _weakness(text, words[0], fields)


def _no_type(first: str) -> NotAKey:
    if first.startswith(("/", "~", "./", "../")) or first.endswith(".pub"):
        return NotAKey("path", "This is the path of a file; paste the content of the file.")
    return NotAKey("no_type", "It does not begin with a key type such as ssh-ed25519.")


def _weakness(text: str, key_type: str, fields: list[bytes]) -> Doubt | None:
    """What a well-formed key may still be refused for."""
    if "\n" in text.strip() or "\r" in text.strip():
        return Doubt(
            "line_break", "A line break inside the text; save the key again as one single line."
        )
    if text != text.strip():
        return Doubt(
            "blank", "A line break or blank at its start or end; save the key again without it."
        )
    if key_type == "ssh-dss":
        return Doubt("dsa", "DSA keys are refused by OpenSSH since 7.0; make an Ed25519 key.")
    bits = int.from_bytes(fields[-1], "big").bit_length()
    if key_type == "ssh-rsa" and bits < _SMALLEST_RSA_BITS:
        return Doubt(
            "small", f"An RSA key of {bits} bits is below the minimum of {_SMALLEST_RSA_BITS}."
        )
    return None


def _decode(field: str) -> bytes:
    try:
        return base64.b64decode(field, validate=True)
    except (binascii.Error, ValueError):
        raise NotAKey(
            "not_base64", "The key data is not complete base64; copy the line again."
        ) from None


def _split(blob: bytes) -> list[bytes]:
    """The length-prefixed fields of a blob (RFC 4251 §5, `string`); nothing when it is cut off."""
    fields = []
    at = 0
    while at < len(blob):
        length = int.from_bytes(blob[at : at + 4], "big")
        field = blob[at + 4 : at + 4 + length]
        if len(field) != length or at + 4 > len(blob):
            return []
        fields.append(field)
        at += 4 + length
    return fields


def _fingerprint(blob: bytes) -> str:
    digest = base64.b64encode(hashlib.sha256(blob).digest())
    return f"SHA256:{digest.rstrip(b'=').decode()}"


def _shown(text: str, limit: int = 80) -> str:
    safe = printable(text[: limit + 1])
    return safe if len(safe) <= limit else f"{safe[: limit - 1]}…"
