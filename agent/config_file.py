"""The configuration file: where it is, who may have written it, and the resulting configuration.

If the default file is missing, all defaults apply. Everything that is not understood is an error
that names the file, the line and the nearest valid name; all errors are reported at once.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Mapping

from agent.adapters.files.safe_path import open_file
from agent.config import DEFAULT_PATH, Config
from agent.config_yaml import ConfigReader
from agent.errors import ConfigInvalid, TargetFailed
from agent.providers import provider

_MAX_BYTES = 1 << 20


def chosen_path(path: str | None, environment: Mapping[str, str]) -> str | None:
    """The file that --config (`path`) or KEYSYNC_CONFIG names; None for the default file."""
    return path or environment.get("KEYSYNC_CONFIG") or None


def load(path: str | None, environment: Mapping[str, str]) -> Config:
    """The configuration in the file at `path`, else KEYSYNC_CONFIG, else the default file.

    The provider's variable overrides api.url. Raises ConfigInvalid with every problem found.
    """
    explicit = chosen_path(path, environment)
    text = _read(explicit or DEFAULT_PATH, must_exist=explicit is not None)
    return _effective(explicit or DEFAULT_PATH, text, environment)


def state_dir_of(path: str | None, environment: Mapping[str, str]) -> str:
    """The state_dir of a configuration that may be wrong elsewhere; else the default."""
    explicit = chosen_path(path, environment)
    reader = ConfigReader(explicit or DEFAULT_PATH)
    with contextlib.suppress(ConfigInvalid):
        reader.read(_read(explicit or DEFAULT_PATH, must_exist=False) or b"")
    return reader.state_dir


def defaults(environment: Mapping[str, str]) -> Config:
    """The configuration without a file. Raises ConfigInvalid for a wrong variable."""
    return _effective(DEFAULT_PATH, None, environment)


def _effective(path: str, text: bytes | None, environment: Mapping[str, str]) -> Config:
    reader = ConfigReader(path)
    if text is not None:
        reader.read(text)
    url = environment.get(provider.API_URL_VARIABLE)
    if url:
        reader.set("api.url", url, f"the variable {provider.API_URL_VARIABLE}")
    return reader.config()


def _read(path: str, *, must_exist: bool) -> bytes | None:
    """The bytes of the file, or None if it is missing. Raises ConfigInvalid."""
    try:
        text = _read_trusted(path)
    except FileNotFoundError:
        if not must_exist:
            return None
        raise ConfigInvalid(
            "config_missing",
            f"The configuration file {path} does not exist.",
            "Correct --config or KEYSYNC_CONFIG; without both, the defaults apply.",
        ) from None
    except OSError as error:
        raise ConfigInvalid(
            "config_unreadable",
            f"The configuration file {path} could not be read: {error.strerror}.",
            "Correct its path or permissions.",
        ) from None
    if len(text) > _MAX_BYTES:
        raise ConfigInvalid(
            "config_too_large",
            f"The configuration file {path} has more than {_MAX_BYTES} bytes.",
            "Correct --config or KEYSYNC_CONFIG: this does not seem to be a configuration.",
        )
    return text


def _read_trusted(path: str) -> bytes:
    """At most _MAX_BYTES + 1 bytes of the file. Raises OSError and ConfigInvalid.

    Whoever can write the configuration can pin a key, so only root and keysync's user may. Group 0
    is no exception: in the platform's images an ordinary user is in it.
    """
    try:
        fd = open_file(path)
    except TargetFailed as error:  # somebody else decides where the path leads
        raise _exposed(path, error.message, error.hint) from error
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if others_write or status.st_uid not in (0, os.geteuid()):
            raise _exposed(
                path,
                f"It belongs to user id {status.st_uid}, with mode "
                f"{stat.S_IMODE(status.st_mode):04o}.",
                f"chown {os.geteuid()} {shlex.quote(path)} && chmod go-w {shlex.quote(path)}",
            )
        return file.read(_MAX_BYTES + 1)


def _exposed(path: str, why: str, hint: str) -> ConfigInvalid:
    return ConfigInvalid(
        "config_exposed",
        f"The configuration file {path} can be changed by other users, who could let themselves "
        f"in. {why}",
        hint,
    )
