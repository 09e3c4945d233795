"""The encoding inside a public key blob: the data types of RFC 4251 section 5."""

from __future__ import annotations

from typing import Literal

_SSHD_MAX_MPINT_BYTES = 16384 // 8  # SSHBUF_MAX_BIGNUM

# Why a key is refused; the names are part of the log and of `--json` (docs/events.md).
RefusalReason = Literal[
    "bidi_mark",
    "certificate",
    "control_character",
    "empty",
    "file_path",
    "malformed_blob",
    "newline",
    "not_a_key",
    "not_base64",
    "not_canonical",
    "not_openssh_format",
    "options",
    "private_key",
    "quoted",
    "rsa_too_small",
    "several_keys",
    "too_long",
    "trailing_bytes",
    "truncated_blob",
    "type_mismatch",
    "unknown_type",
    "unsupported_type",
    "weak_key",
]


class InvalidKey(Exception):
    """A text or blob is not an acceptable public key.

    `reason` names the rule and `detail` is a sentence for people. Neither contains the text.
    """

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class WireReader:
    """Reads the data types of RFC 4251 section 5 from the front of a blob."""

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
        """A string read as text (sshbuf_get_cstring): sshd ignores one NUL at its end."""
        text = self.string().removesuffix(b"\0")
        if b"\0" in text:
            raise InvalidKey("malformed_blob", "a name in the key data contains a NUL")
        return text

    def mpint(self) -> int:
        """A non-negative mpint; like sshd, it accepts leading zeros."""
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


def wire_string(value: bytes) -> bytes:
    """The encoding of a string (RFC 4251 section 5)."""
    return len(value).to_bytes(4, "big") + value


def wire_mpint(value: int) -> bytes:
    """The shortest encoding of a non-negative integer (RFC 4251 section 5)."""
    return wire_string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")
