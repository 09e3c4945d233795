"""The API key: where it is looked for, and which files are refused.

A file is used when root or keysync's own user owns it, and nobody else chose where its path leads.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping

from agent.adapters.files.safe_path import open_file
from agent.adapters.users import SERVICE_ACCOUNT, find_user
from agent.core.secret import Credential
from agent.errors import CredentialRejected, TargetFailed

INSTALLED_KEY = "/etc/keysync/api_key"  # where `keysync install` puts a copy
_MAX_BYTES = 4096
_HOME_FILES = ("~/.config/vastai/vast_api_key", "~/.vast_api_key")
_HOW_TO_GET_ONE = (
    "Make an API key with the permission user_read on the console's Keys page, and put it into a "
    "file of mode 0600 named by api.key_file."
)


def find_credential(
    key_file: str | None, environment: Mapping[str, str], installed: str = INSTALLED_KEY
) -> Credential:
    """The first API key of: `key_file`, the file that install makes, systemd's credential,
    VAST_API_KEY, the client's files.

    Raises CredentialRejected when there is none, and when one is there and may not be used.
    """
    if key_file is not None:
        found = _read(os.path.expanduser(key_file), private=True)
        if found is None:
            raise CredentialRejected(
                "credential_missing",
                f"The API key file {key_file} (api.key_file) does not exist.",
                _HOW_TO_GET_ONE,
            )
        return found
    if found := _read_installed(installed):
        return found
    directory = environment.get("CREDENTIALS_DIRECTORY")
    if directory and (
        found := _read(os.path.join(directory, "api_key"), private=False, may_be_empty=True)
    ):
        return found
    if value := environment.get("VAST_API_KEY", "").strip():
        return _checked(value, "the variable VAST_API_KEY")
    for name in _HOME_FILES:
        if found := _read(os.path.expanduser(name), private=True):
            return found
    raise CredentialRejected(
        "credential_missing",
        f"No API key was found: not in api.key_file, {installed}, the systemd credential api_key, "
        + "VAST_API_KEY, "
        + " or ".join(_HOME_FILES)
        + ".",
        _HOW_TO_GET_ONE,
    )


def sources_signature(
    key_file: str | None, environment: Mapping[str, str], installed: str = INSTALLED_KEY
) -> tuple[object, ...]:
    """Changes when a file that `find_credential` looks at does; none of them is read for it."""
    if key_file is not None:
        paths = [key_file]
    else:
        directory = environment.get("CREDENTIALS_DIRECTORY")
        paths = [installed]
        paths += [os.path.join(directory, "api_key")] if directory else []
        paths += _HOME_FILES
    return tuple(_signature(os.path.expanduser(path)) for path in paths)


def _signature(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    # The change time moves with content, mode and owner alike.
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


def _read_installed(path: str) -> Credential | None:
    """Install makes it empty when it finds no key; an ordinary user's agent may not read it."""
    try:
        return _read(path, private=True, may_be_empty=True)
    except CredentialRejected as error:
        if os.geteuid() != 0 and isinstance(error.__cause__, PermissionError):
            return None
        raise


def _read(path: str, *, private: bool, may_be_empty: bool = False) -> Credential | None:
    """`private` refuses a file that others can read; systemd guards its own directory."""
    try:
        fd = open_file(path, trusted=_is_service)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except TargetFailed as error:
        raise CredentialRejected(
            "credential_untrusted", f"The API key file is not used. {error.message}", error.hint
        ) from error
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    try:
        status = os.fstat(fd)
        _refuse_foreign(path, status.st_uid)
        data = os.read(fd, _MAX_BYTES + 1)
        if may_be_empty and not data.strip():
            return None
        if private and status.st_mode & 0o077:
            raise CredentialRejected(
                "credential_exposed",
                f"The API key file {path} can be read or written by others "
                f"(mode {stat.S_IMODE(status.st_mode):04o}).",
                f"chmod 600 {shlex.quote(path)}  "
                "(and reset the key on the console if others use this machine)",
            )
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    finally:
        os.close(fd)
    if len(data) > _MAX_BYTES:
        raise _malformed(path, f"is in a file of more than {_MAX_BYTES} bytes")
    return _checked(data.decode("utf-8", "replace").strip(), path)


def _refuse_foreign(path: str, uid: int) -> None:
    """Whose file it is decides which account's keys may log in; the platform's `user` may not."""
    if uid in (0, os.geteuid()) or _is_service(uid):
        return
    name = shlex.quote(path)
    raise CredentialRejected(
        "credential_untrusted",
        f"The API key file {path} belongs to user id {uid}, who could put another account's key "
        f"there; keysync runs as user id {os.geteuid()}.",
        f"If the key in it is the right one: chown {os.geteuid()} {name}  (or copy it to a file of "
        "your own, mode 0600, and name that one in api.key_file)",
    )


def _is_service(uid: int) -> bool:
    """Root, working by hand, uses the same key as the service."""
    if os.geteuid() != 0:
        return False
    service = find_user(SERVICE_ACCOUNT)
    return service is not None and service.pw_uid == uid


def _unreadable(path: str, why: str | None) -> CredentialRejected:
    return CredentialRejected(
        "credential_unreadable",
        f"The API key file {path} could not be read: {why}.",
        "Correct the path or the permissions; it must be a file of mode 0600.",
    )


def _checked(value: str, source: str) -> Credential:
    """Only what can stand in an Authorization header (RFC 6750 section 2.1) goes on."""
    if not value:
        raise _empty(source)
    if len(value) <= _MAX_BYTES and all("!" <= char <= "~" for char in value):
        return Credential(value, source)
    raise _malformed(source, "holds something that is no API key")


def _empty(path: str) -> CredentialRejected:
    return CredentialRejected(
        "credential_malformed",
        f"{path} is empty.",
        "Make an API key with the permission user_read on the console's Keys page, and put it "
        f"there, alone on one line: cat >{shlex.quote(path)}    # paste, Enter, Ctrl-D",
    )


def _malformed(source: str, what: str) -> CredentialRejected:
    return CredentialRejected(
        "credential_malformed",
        f"The API key from {source} {what}.",
        "It must be the key alone, on one line. Copy it again from the console's Keys page.",
    )
