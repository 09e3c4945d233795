"""Every failure, by class: its kinds and its exit code. This is the one table of both.

The exit codes are those of sysexits.h where it has one. Kinds and exit codes are part of the public
contract (docs/events.md, Kinds). Who raises a new kind adds it to its class here.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_HELD = 3
EXIT_NO_WAY_IN = 4  # a user of a target cannot log in by any key
KEYS_STAY = "The keys on this machine stay as they are; the next sync tries again."  # a hint

# What a guard holds back is a value, not an error (core/guards.py); its exit code is EXIT_HELD.
# The first set waits for confirmation (G3), the second is refused whole, like another account's
# list (G4).
LOCKOUT_KINDS = frozenset({"empty_listing", "no_valid_entry", "would_lock_out"})
REFUSED_KINDS = frozenset({"account_changed", "account_unknown"})


class KeysyncError(Exception):
    """What happened, to what and why (`message`), and what to do next (`hint`).

    `kind` is the failure's name for programs, one of the class's `kinds`.
    """

    exit_code: ClassVar[int] = EXIT_UNEXPECTED
    kinds: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(kind)  # not the message, which may be changed below
        self.kind = kind
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """The current message: secrets may have been removed from it."""
        return self.message


class AnswerUnusable(KeysyncError):
    """The API answered, and the answer is not a complete and well-formed listing (G1)."""

    exit_code = 65
    kinds = frozenset(
        {
            *("empty_body", "error_answer", "html_page", "malformed_account", "not_found"),
            *("not_http", "not_json", "partial_list", "redirected", "several_accounts"),
            *("too_large", "truncated", "unexpected_encoding", "unexpected_status"),
            "unknown_shape",
        }
    )


class TargetFailed(KeysyncError):
    """A key file, keysync's own state or a part of its installation could not be used."""

    exit_code = 74
    kinds = frozenset(
        {
            # what the system reports (adapters/files/os_errors.py)
            *("disk_full", "interrupted", "io_error", "missing", "not_a_directory"),
            *("not_permitted", "os_error", "permission_denied", "quota_exceeded", "read_only"),
            *("symlink", "too_large"),
            # key files and the state
            *("hard_link", "keeps_changing", "key_file_too_large", "not_a_file", "sshd_not_asked"),
            *("sshd_reads_no_file", "state_dir_shared", "state_unreadable", "unknown_user"),
            "wrong_owner",
            # keysync original, install and uninstall
            *("account_taken", "agent_stays", "command_failed", "installation_incomplete"),
            *("original_absent", "original_ambiguous", "original_missing", "program_misplaced"),
            *("program_missing", "program_private"),
        }
    )


class TemporaryFailure(KeysyncError):
    """No usable answer for now; the same request may succeed later.

    `retry_after` is the Retry-After header's value in seconds, None without one.
    """

    exit_code = 75
    kinds = frozenset(
        {
            *("connection_failed", "connection_lost", "name_unknown", "proxy_failed"),
            *("proxy_unusable", "rate_limited", "server_error", "timeout", "tls_failed"),
        }
    )

    def __init__(
        self, kind: str, message: str, hint: str, retry_after: float | None = None
    ) -> None:
        super().__init__(kind, message, hint)
        self.retry_after = retry_after


class Busy(KeysyncError):
    """Another keysync is at work on this machine and has not finished."""

    exit_code = 75  # the same as above: try again later
    kinds = frozenset({"busy"})


class CredentialRejected(KeysyncError):
    """The API key is missing, may not be used, or was refused by the API."""

    exit_code = 77
    kinds = frozenset(
        {
            *("credential_exposed", "credential_malformed", "credential_missing"),
            *("credential_rejected", "credential_unreadable", "credential_untrusted"),
        }
    )


class RequestInvalid(KeysyncError):
    """The command names a key or a file that it cannot be applied to."""

    exit_code = EXIT_USAGE
    kinds = frozenset({"not_listed", "not_retired", "still_a_target"})


class ConfigInvalid(KeysyncError):
    """The configuration is missing, unreadable or wrong, or must not be trusted."""

    exit_code = 78
    kinds = frozenset(
        {
            *("config_elsewhere", "config_exposed", "config_invalid", "config_missing"),
            *("config_too_large", "config_unreadable"),
        }
    )


_CYCLE_ERRORS = (AnswerUnusable, TemporaryFailure, Busy, CredentialRejected)


def exit_code_of(kind: str) -> int:
    """The exit code of the last cycle's failure, of which the state keeps the kind alone.

    A kind that no other class has counts as TargetFailed, also one of another version.
    `too_large` is a kind of two classes: here it is the answer's.
    """
    if kind in LOCKOUT_KINDS | REFUSED_KINDS:
        return EXIT_HELD
    found = (error.exit_code for error in _CYCLE_ERRORS if kind in error.kinds)
    return next(found, TargetFailed.exit_code)
