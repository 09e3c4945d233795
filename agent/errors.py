"""Everything that can go wrong, each with its kind, its hint and its exit code.

The exit codes are those of sysexits.h where it has one, and part of the public contract.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_HELD = 3
EXIT_NO_WAY_IN = 4  # a user of a target cannot log in by any key
KEYS_STAY = "The keys on this machine stay as they are; the next sync tries again."  # a hint


class KeysyncError(Exception):
    """What happened, to what and why (`message`), and what to do next (`hint`)."""

    exit_code = EXIT_UNEXPECTED

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(kind)  # not the message, which may be changed below
        self.kind = kind
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """The message as it is now: secrets may have been taken out of it since."""
        return self.message


class AnswerUnusable(KeysyncError):
    """The API answered, and the answer is not a complete and well-formed listing (G1)."""

    exit_code = 65


class TargetFailed(KeysyncError):
    """A key file, or keysync's own state, could not be read or written."""

    exit_code = 74


class TemporaryFailure(KeysyncError):
    """No usable answer for now; the same request may succeed later."""

    exit_code = 75

    def __init__(
        self, kind: str, message: str, hint: str, retry_after: float | None = None
    ) -> None:
        super().__init__(kind, message, hint)
        self.retry_after = retry_after  # seconds, from the Retry-After header


class Busy(KeysyncError):
    """Another keysync is at work on this machine and has not finished."""

    exit_code = 75  # the same as above: try again later


class CredentialRejected(KeysyncError):
    """The API key is missing, may not be used, or was refused by the API."""

    exit_code = 77


class RequestInvalid(KeysyncError):
    """The command asks for something that is not there."""

    exit_code = EXIT_USAGE


class ConfigInvalid(KeysyncError):
    """The configuration says something that keysync does not understand."""

    exit_code = 78
