"""The API key as a value that masks itself and removes itself from other text (G10)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MIN_SECRET_CHARS = 16  # a shorter text is no API key of the console and may be an ordinary word
_MAX_SHOWN_CHARS = 7  # longer pieces of the key are removed from text
_HIDDEN = "[the API key]"


@dataclass(frozen=True, slots=True)
class Credential:
    """The API key and where it was read; its repr shows at most the last four characters."""

    value: str
    source: str

    def __repr__(self) -> str:
        return f"Credential({self.masked}, from {self.source})"

    @property
    def masked(self) -> str:
        """The last four characters of the key, which may be shown (G10); none of a short key."""
        return "…" + self.value[-4:] if len(self.value) >= _MIN_SECRET_CHARS else "…"

    def hidden_in(self, text: str) -> str:
        """`text` without the key and without pieces of it; the API may echo it (G10)."""
        size = _MAX_SHOWN_CHARS + 1
        if len(self.value) < _MIN_SECRET_CHARS:
            return text
        pieces = {self.value[at : at + size] for at in range(len(self.value) - size + 1)}
        hidden = {
            at + offset
            for at in range(len(text) - size + 1)
            if text[at : at + size] in pieces
            for offset in range(size)
        }
        kept = (
            "" if at in hidden and at - 1 in hidden else _HIDDEN if at in hidden else char
            for at, char in enumerate(text)
        )
        return "".join(kept)

    def hidden_in_body(self, body: bytes) -> bytes:
        """The body of an answer without the key (G10).

        Pieces of the key stay, so whatever is quoted from the body must go through `hidden_in`.
        """
        if len(self.value) < _MIN_SECRET_CHARS:
            return body
        if b"\\" not in body:
            return body.replace(self.value.encode("ascii"), _HIDDEN.encode("ascii"))
        # JSON has three ways to write each character (RFC 8259 section 7).
        spellings = (
            rf"(?:{re.escape(char)}|\\{re.escape(char)}|\\u00(?i:{ord(char):02x}))"
            for char in self.value
        )
        return re.sub("".join(spellings).encode("ascii"), _HIDDEN.encode("ascii"), body)
