"""A public key line pasted by a person: the console's entries and the configuration's pins.

`parse_entry` is stricter than sshd(8): only a strong key in its canonical encoding is accepted, as
one line without options (G2).
"""

from __future__ import annotations

import re
import unicodedata

from agent.core.public_key import (
    KNOWN_TYPES,
    PublicKey,
    decode_base64,
    is_certificate_type,
    is_plausible_type,
    type_in_blob,
)
from agent.core.wire import InvalidKey, RefusalReason

MAX_ENTRY_CHARS = 8192
MAX_COMMENT_BYTES = 1024
_PRIVATE = re.compile(r"PRIVATE KEY|PuTTY-User-Key-File", re.IGNORECASE)
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_ESCAPED_CONTROL = re.compile(r"%0[0ad]", re.IGNORECASE)
_KEY_FIELDS = re.compile(r"[a-z0-9@.-][ \t]+(AAAA[A-Za-z0-9+/]+=*)")
_WHITE_SPACE = " \t\r\n"  # trimmed: clients send the content of a file with its newline
_BLOB_START = "AAAA"  # base64 of the first bytes of the length of a type name
_LINE_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")


def parse_entry(text: str, min_rsa_bits: int) -> tuple[PublicKey, str]:
    """The key and comment of one pasted public key line (G2); white space around it is trimmed.

    `min_rsa_bits` is the smallest accepted RSA modulus, in bits. The key may be of a type that
    keysync cannot decode; the caller asks sshd whether it accepts the type. Raises InvalidKey,
    which never contains a part of the text.
    """
    text = text.strip(_WHITE_SPACE)
    _refuse_dangerous_text(text)
    words = text.split(None, 2)
    _refuse_wrong_start(words)
    key = _decode_words(words[0].encode(), words[1].encode("utf-8"))
    if key.flaw:
        raise InvalidKey("weak_key", key.flaw)
    if key.key_type == "ssh-rsa" and key.bits < min_rsa_bits:
        detail = f"an RSA key of {key.bits} bits is below the minimum of {min_rsa_bits}"
        raise InvalidKey("rsa_too_small", detail)
    comment = words[2].strip() if len(words) > 2 else ""
    _refuse_comment(comment)
    return key, comment


def fingerprints_in(text: str) -> frozenset[str]:
    """The fingerprints of the keys found in a refused entry.

    They show later whether the console still lists the key (G2). Reads a bounded part of the text.
    """
    found = set()
    for field in _KEY_FIELDS.findall(text.strip(_WHITE_SPACE)[: 2 * MAX_ENTRY_CHARS]):
        try:
            found.add(PublicKey.from_blob(decode_base64(field.encode("ascii"))).fingerprint)
        except InvalidKey:
            continue
    return frozenset(found)


def _refuse_dangerous_text(text: str) -> None:
    """Refuses secrets, and characters that could turn the entry into more than one line."""
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
        raise InvalidKey("control_character", "the text contains a control character")
    if any(char in _BIDI for char in text):
        raise InvalidKey("bidi_mark", "the text contains an invisible mark that reorders it")


def _refuse_wrong_start(words: list[str]) -> None:
    """Refuses text that does not begin with a key type and key data."""
    if not words:
        raise InvalidKey("empty", "the entry is empty")
    first = words[0]
    if first not in KNOWN_TYPES and not _begins_unknown_key(words):
        raise InvalidKey(*_wrong_start(first, words))
    if first == "ssh-dss":
        raise InvalidKey("unsupported_type", "DSA keys (ssh-dss) are refused by OpenSSH since 7.0")
    if len(words) < 2:
        raise InvalidKey("truncated_blob", "the key data is missing; copy the whole line")


def _begins_unknown_key(words: list[str]) -> bool:
    """Whether this looks like a key of a type that keysync cannot decode."""
    first = words[0].encode("utf-8")
    return len(words) > 1 and words[1].startswith(_BLOB_START) and is_plausible_type(first)


def _wrong_start(first: str, words: list[str]) -> tuple[RefusalReason, str]:
    """What the text is instead of a key line, and what to do about it."""
    if first[0] in "\"'`":
        return "quoted", "quotation marks surround the key; save it without them"
    if is_certificate_type(first.encode("utf-8")):
        return "certificate", "certificates do not belong in authorized_keys; paste the .pub file"
    if first[0] in "/~." or first.endswith(".pub"):
        return "file_path", "this is the path of a file; paste the content of the file"
    rest = " ".join(words[1:])
    if any(word.strip("\"'") in KNOWN_TYPES for word in rest.split()) or _KEY_FIELDS.search(rest):
        return "options", "there is text before the key type; options are not accepted"
    return "not_a_key", "it does not begin with a key type such as ssh-ed25519"


def _decode_words(name: bytes, field: bytes) -> PublicKey:
    """Raises InvalidKey unless the blob is encoded exactly as OpenSSH encodes it."""
    blob = decode_base64(field)
    if type_in_blob(blob) != name:
        raise InvalidKey("type_mismatch", "the key type differs from the type in the key data")
    key = PublicKey.from_blob(blob)
    if key.blob != blob:
        raise InvalidKey("not_canonical", "the key data is not encoded as OpenSSH encodes it")
    return key


def _refuse_comment(comment: str) -> None:
    if len(comment.encode("utf-8")) > MAX_COMMENT_BYTES:
        raise InvalidKey("too_long", f"the comment has more than {MAX_COMMENT_BYTES} bytes")
    if _ESCAPED_CONTROL.search(comment):
        raise InvalidKey("control_character", "the comment contains an escaped line break (%0A)")
    if _KEY_FIELDS.search(comment):
        raise InvalidKey("several_keys", "the entry contains several keys; save each one by itself")
