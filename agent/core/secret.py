"""The API key as a value that hides itself: what may be shown of it, and where it is taken out."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LEAST_SECRET_CHARS = 16  # a shorter one is no key of the console's, and could be an ordinary word
_SHOWN_CHARS = 7  # a longer piece of the key is hidden wherever others quote it
_HIDDEN = "[the API key]"


@dataclass(frozen=True, slots=True)
class Credential:
    """The API key and where it came from; its repr shows the last four characters only."""

    value: str
    source: str

    def __repr__(self) -> str:
        return f"Credential({self.masked}, from {self.source})"

    @property
    def masked(self) -> str:
        """What may be shown of the key (G10); nothing at all of a short one."""
        return "…" + self.value[-4:] if len(self.value) >= _LEAST_SECRET_CHARS else "…"

    def hidden_in(self, text: str) -> str:
        """`text` without the key and without pieces of it: an answer may repeat it (G10)."""
        size = _SHOWN_CHARS + 1
        if len(self.value) < _LEAST_SECRET_CHARS:
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
        """The body of an answer without the key; what is quoted of it goes through `hidden_in`."""
        if len(self.value) < _LEAST_SECRET_CHARS:
            return body
        if b"\\" not in body:
            return body.replace(self.value.encode("ascii"), _HIDDEN.encode("ascii"))
        # JSON may write each character in three ways (RFC 8259 section 7).
        ways = (
            rf"(?:{re.escape(char)}|\\{re.escape(char)}|\\u00(?i:{ord(char):02x}))"
            for char in self.value
        )
        return re.sub("".join(ways).encode("ascii"), _HIDDEN.encode("ascii"), body)
