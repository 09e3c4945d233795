"""The options of the configuration: which values each accepts, and how a value is written."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from agent.config import Config
from agent.core.url import InvalidUrl, parse_url


class InvalidValue(Exception):
    """A value is not accepted; the message completes "OPTION ..."."""


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _duration(minimum: float, maximum: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        found = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value
        elif found:
            seconds = float(found[1]) * _UNITS[found[2]]
        else:
            raise InvalidValue("must be a time such as 500ms, 30s, 10m or 2h")
        if not minimum <= seconds <= maximum:
            raise InvalidValue(f"must be between {minimum:g} s and {maximum:g} s")
        return float(seconds)

    return parse


def _integer(minimum: int, maximum: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise InvalidValue(f"must be a whole number from {minimum} to {maximum}")
        return value

    return parse


def absolute_path(value: object) -> str:
    """An absolute path without ".." and a final slash. Raises InvalidValue."""
    if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
        raise InvalidValue("must be an absolute path")
    if value.endswith("/") or ".." in value.split("/"):
        raise InvalidValue('must not end in "/" or contain ".."')
    return value


def _key_file(value: object) -> str:
    if isinstance(value, str) and value.startswith("~/"):
        return "~" + absolute_path(value[1:])
    return absolute_path(value)


def _one_of(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in choices:
            raise InvalidValue(f"must be one of: {', '.join(choices)}")
        return str(value)

    return parse


def _url(value: object) -> str:
    try:
        return parse_url(value)
    except InvalidUrl as error:
        raise InvalidValue(str(error)) from None


_OPTIONS: dict[str, Callable[[object], object]] = {
    "api.url": _url,
    "api.key_file": _key_file,
    "api.timeout": _duration(0.1, 300),
    "poll.interval": _duration(1, 86400),
    "poll.jitter": _duration(0, 3600),
    "poll.max_backoff": _duration(1, 86400),
    "policy.unmanaged": _one_of("keep", "remove"),
    "policy.removal_confirmations": _integer(1, 1000),
    "policy.removal_hold": _duration(0, 7 * 86400),
    "policy.additions": _one_of("apply", "hold"),
    "policy.min_rsa_bits": _integer(1024, 16384),
    "policy.max_staleness": _duration(1, 366 * 86400),
    "state_dir": absolute_path,
}
_NULLABLE = {"api.key_file", "policy.max_staleness"}
SECTIONS = ("api", "poll", "policy")
TOP_LEVEL = (*SECTIONS, "targets", "pins", "state_dir")


def parse_option(name: str, value: object) -> object:
    """The value of the option `name` (`api.url`) as Config holds it. Raises InvalidValue."""
    return None if value is None and name in _NULLABLE else _OPTIONS[name](value)


def options_in(section: str) -> list[str]:
    """The names of the options in a section, without the section's name."""
    return [name.partition(".")[2] for name in _OPTIONS if name.startswith(section + ".")]


def suggestion(name: str, allowed: Sequence[str]) -> str:
    """The end of the error about an unknown `name`: what may have been meant."""
    import difflib  # loaded only for an error

    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    elsewhere = [option for option in _OPTIONS if option.partition(".")[2] == name]
    if elsewhere and name not in near:
        return f"; did you mean {' or '.join(elsewhere)}?"
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; known here: {', '.join(allowed)}"


def notation(value: object) -> str:
    """A value as it is written in the file."""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".") + "s"
    return "null" if value is None else str(value)


def effective_options(config: Config) -> list[tuple[str, str, str]]:
    """Name, value in the file's notation, and source of each option."""
    rows = []
    for name in _OPTIONS:
        value = getattr(config, name.replace(".", "_"))
        rows.append((name, notation(value), config.sources.get(name, "default")))
    if config.targets is None:
        rows.append(("targets", "auto", config.sources.get("targets", "default")))
    for at, target in enumerate(config.targets or ()):
        text = target.user + (f" {target.path}" if target.path else "")
        rows.append((f"targets[{at}]", text, config.sources.get("targets", "default")))
    for at, pin in enumerate(config.pins):
        text = f"{pin.key.fingerprint} {pin.comment}".strip()
        rows.append((f"pins[{at}]", text, config.sources.get("pins", "default")))
    return rows
