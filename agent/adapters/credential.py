"""The API key: where it is looked for, and which files are refused.

A file is used only if root or keysync's own user owns it, and nobody else decides where its path
leads (G8).
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
from agent.providers import provider

INSTALLED_KEY = "/etc/keysync/api_key"  # where `keysync install` puts a copy
_MAX_BYTES = 4096
_CREATE_ONE = (
    f"Create an API key with the permission {provider.API_KEY_PERMISSION} on the console's "
    "Keys page"
)
_HOW_TO_GET_ONE = f"{_CREATE_ONE}, and put it into a file of mode 0600 named by api.key_file."


def find_credential(
    key_file: str | None, environment: Mapping[str, str], installed: str = INSTALLED_KEY
) -> Credential:
    """The API key, from the first place that has one.

    The places are `key_file` alone if it is set (a missing file is an error then), and otherwise:
    the file that `keysync install` makes, the systemd credential api_key (systemd.exec(5)), the
    provider's variable, and the files of the provider's own client.

    Raises CredentialRejected when there is no API key, or the first one found may not be used.
    """
    if key_file is not None:
        return _read_named(key_file)
    found = (
        _read_installed(installed)
        or _read_systemd(environment)
        or _from_variable(environment)
        or next(filter(None, map(_read_private, provider.API_KEY_FILES)), None)
    )
    if found is None:
        raise CredentialRejected(
            "credential_missing",
            f"No API key was found: not in api.key_file, {installed}, the systemd credential "
            f"api_key, {provider.API_KEY_VARIABLE}, {' or '.join(provider.API_KEY_FILES)}.",
            _HOW_TO_GET_ONE,
        )
    return found


def sources_signature(
    key_file: str | None, environment: Mapping[str, str], installed: str = INSTALLED_KEY
) -> tuple[object, ...]:
    """A value that changes when a file that `find_credential` looks at does; reads none of them.

    Content, mode and owner all move a file's change time (st_ctime in stat(2)).
    """
    if key_file is not None:
        paths = [key_file]
    else:
        paths = [installed, *filter(None, [_systemd_file(environment)]), *provider.API_KEY_FILES]
    return tuple(_signature(os.path.expanduser(path)) for path in paths)


def _signature(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


def _read_named(key_file: str) -> Credential:
    found = _read_private(key_file)
    if found is None:
        raise CredentialRejected(
            "credential_missing",
            f"The API key file {key_file} (api.key_file) does not exist.",
            _HOW_TO_GET_ONE,
        )
    return found


def _read_private(path: str) -> Credential | None:
    return _read(os.path.expanduser(path), private=True)


def _read_installed(path: str) -> Credential | None:
    """It may be empty, as install makes it without a key; an ordinary user may not read it."""
    try:
        return _read(path, private=True, may_be_empty=True)
    except CredentialRejected as error:
        if os.geteuid() != 0 and isinstance(error.__cause__, PermissionError):
            return None
        raise


def _read_systemd(environment: Mapping[str, str]) -> Credential | None:
    path = _systemd_file(environment)
    return _read(path, private=False, may_be_empty=True) if path else None


def _systemd_file(environment: Mapping[str, str]) -> str | None:
    directory = environment.get("CREDENTIALS_DIRECTORY")
    return os.path.join(directory, "api_key") if directory else None


def _from_variable(environment: Mapping[str, str]) -> Credential | None:
    value = environment.get(provider.API_KEY_VARIABLE, "").strip()
    return _checked(value, f"the variable {provider.API_KEY_VARIABLE}") if value else None


def _read(path: str, *, private: bool, may_be_empty: bool = False) -> Credential | None:
    """The API key in a file; None if the file is missing, or empty where it may be.

    `private` refuses a file that others can read; systemd protects its own directory.
    """
    fd = _opened(path)
    if fd is None:
        return None
    try:
        status = os.fstat(fd)
        _refuse_foreign(path, status.st_uid)
        data = os.read(fd, _MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    finally:
        os.close(fd)
    if may_be_empty and not data.strip():
        return None
    if private and status.st_mode & 0o077:
        raise _exposed(path, stat.S_IMODE(status.st_mode))
    if len(data) > _MAX_BYTES:
        raise _malformed(path, f"is in a file of more than {_MAX_BYTES} bytes")
    return _checked(data.decode("utf-8", "replace").strip(), path)


def _opened(path: str) -> int | None:
    try:
        return open_file(path, trusted=_is_service)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except TargetFailed as error:
        raise CredentialRejected(
            "credential_untrusted", f"The API key file is not used. {error.message}", error.hint
        ) from error
    except OSError as error:
        raise _unreadable(path, error.strerror) from error


def _refuse_foreign(path: str, uid: int) -> None:
    """The file decides which account's keys may log in, so no unprivileged user may own it."""
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
    """Whether it is the service's account, whose API key root may use when working by hand."""
    if os.geteuid() != 0:
        return False
    service = find_user(SERVICE_ACCOUNT)
    return service is not None and service.pw_uid == uid


def _exposed(path: str, mode: int) -> CredentialRejected:
    return CredentialRejected(
        "credential_exposed",
        f"The API key file {path} can be read or written by others (mode {mode:04o}).",
        f"chmod 600 {shlex.quote(path)}  "
        "(and reset the key on the console if others use this machine)",
    )


def _unreadable(path: str, why: str | None) -> CredentialRejected:
    return CredentialRejected(
        "credential_unreadable",
        f"The API key file {path} could not be read: {why}.",
        "Correct the path or the permissions; it must be a file of mode 0600.",
    )


def _checked(value: str, source: str) -> Credential:
    """Accepts only what may stand in an Authorization header (RFC 6750, section 2.1)."""
    if not value:
        raise _empty(source)
    if len(value) <= _MAX_BYTES and all("!" <= char <= "~" for char in value):
        return Credential(value, source)
    raise _malformed(source, "is not an API key")


def _empty(path: str) -> CredentialRejected:
    return CredentialRejected(
        "credential_malformed",
        f"{path} is empty.",
        f"{_CREATE_ONE}, and put it there, alone on one line: "
        f"cat >{shlex.quote(path)}    # paste, Enter, Ctrl-D",
    )


def _malformed(source: str, what: str) -> CredentialRejected:
    return CredentialRejected(
        "credential_malformed",
        f"The API key from {source} {what}.",
        "There must be the key alone, on one line. Copy it again from the console's Keys page.",
    )
