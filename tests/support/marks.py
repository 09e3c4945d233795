"""What must never be seen (G10), and whether it is: pieces of API keys, whole and private keys."""

from __future__ import annotations

from tests.support.machine import API_KEY, key_line

PRIVATE_TEXT = "MARKEDPRIVATEKEYMATERIAL"
PRIVATE_KEY = (
    f"-----BEGIN OPENSSH PRIVATE KEY-----\n{PRIVATE_TEXT}\n-----END OPENSSH PRIVATE KEY-----"
)
_PIECE = 8
_BLOB_PIECE = slice(30, 60)  # behind what every Ed25519 key begins with


def marked_keys(*names: str) -> list[str]:
    """The middle of the data of the keys of `key_line`."""
    return [key_line(name).split()[1][_BLOB_PIECE] for name in names]


def pieces(secret: str) -> list[str]:
    """Every eight characters of it that follow each other; four less than that may be shown."""
    return [secret[at : at + _PIECE] for at in range(len(secret) - _PIECE + 1)]


def leaks(text: str | bytes, *more: str, api_key: str = API_KEY) -> list[str]:
    """What of the API key, of private keys and of `more` stands in a text; nothing is good."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return [mark for mark in (*pieces(api_key), PRIVATE_TEXT, *more) if mark in text]
