"""The configuration: every option with its default, where each value came from, clear errors.

A missing default file means all defaults. Whatever is not understood is an error that names the
file, the line and the nearest right name; all of them are reported at once.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import shlex
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.core.listing import ListedKey
from agent.core.public_key import InvalidKey, parse_entry
from agent.errors import ConfigInvalid

if TYPE_CHECKING:
    import yaml

DEFAULT_PATH = "/etc/keysync/config.yaml"
_CHECK = "Correct it, then run: keysync config check"
_MAX_BYTES = 1 << 20
_AFTER_THE_FILE = _MAX_BYTES + 2  # as a line number, for problems of the environment


@dataclass(frozen=True, slots=True)
class Target:
    """A local user, and the key file when it is not the one that sshd itself would read."""

    user: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """The effective configuration; times are in seconds. `sources` says where a value is from."""

    api_url: str = "https://console.vast.ai"
    api_key_file: str | None = None
    api_timeout: float = 10.0
    poll_interval: float = 30.0
    poll_jitter: float = 5.0
    poll_max_backoff: float = 600.0
    targets: tuple[Target, ...] | None = None  # None: auto, found anew in each cycle
    policy_unmanaged: str = "keep"
    policy_removal_confirmations: int = 3
    policy_removal_hold: float = 300.0
    policy_additions: str = "apply"
    policy_min_rsa_bits: int = 2048
    policy_max_staleness: float | None = 900.0
    pins: tuple[ListedKey, ...] = ()
    state_dir: str = "/var/lib/keysync"
    sources: Mapping[str, str] = field(default_factory=dict)


class _Bad(Exception):
    """One value is wrong; the text completes "OPTION ..."."""


_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _duration(least: float, most: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        found = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value
        elif found:
            seconds = float(found[1]) * _UNITS[found[2]]
        else:
            raise _Bad("must be a time such as 500ms, 30s, 10m or 2h")
        if not least <= seconds <= most:
            raise _Bad(f"must be between {least:g} s and {most:g} s")
        return float(seconds)

    return parse


def _integer(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _Bad(f"must be a whole number from {least} to {most}")
        return value

    return parse


def _absolute_path(value: object) -> str:
    if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
        raise _Bad("must be an absolute path")
    if value.endswith("/") or ".." in value.split("/"):
        raise _Bad('must not end in "/" and not contain ".."')
    return value


def _key_file(value: object) -> str:
    if isinstance(value, str) and value.startswith("~/"):
        return "~" + _absolute_path(value[1:])
    return _absolute_path(value)


def _one_of(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in choices:
            raise _Bad(f"must be one of: {', '.join(choices)}")
        return str(value)

    return parse


_NUMBER = re.compile("[0-9]+|0x[0-9a-f]*")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def _url(value: object) -> str:
    """https, or http to this machine alone: the request carries the API key."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise _Bad("must be an address such as https://console.vast.ai")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its text quotes what may be a password
        raise _Bad("is no address: its host or port is impossible") from None
    if not host or parts.username is not None or {"?", "#", " "} & set(value):
        raise _Bad("must be an address such as https://console.vast.ai, without user or query")
    if not _is_host(host) or not _is_netloc(parts.netloc.lower(), host):
        raise _Bad("names no possible host")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise _Bad("must begin with https:// (http:// is for 127.0.0.1 and localhost only)")
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def _is_host(host: str) -> bool:
    """An IP address, or a name of labels that a resolver takes (RFC 1123 section 2.1).

    Other numbers are no names: a resolver reads 127.1 and 2130706433 as addresses (inet_aton(3)).
    """
    try:
        return "%" not in str(ipaddress.ip_address(host))
    except ValueError:
        labels = host.removesuffix(".").split(".")
        named = len(host) <= 253 and all(map(_LABEL.fullmatch, labels))
        return named and not _NUMBER.fullmatch(labels[-1])


def _is_netloc(netloc: str, host: str) -> bool:
    """Whether this is the host, and at most a port: urlsplit overlooks what stands around [...]."""
    name = f"[{host}]" if ":" in host else host
    rest = netloc.removeprefix(name)
    return netloc.startswith(name) and (not rest or rest[0] == ":")


def is_loopback(host: str) -> bool:
    """Whether requests to `host` never leave the machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
    "state_dir": _absolute_path,
}
_NULLABLE = {"api.key_file", "policy.max_staleness"}
_SECTIONS = ("api", "poll", "policy")
_TOP = (*_SECTIONS, "targets", "pins", "state_dir")


def load(path: str | None, environment: Mapping[str, str]) -> Config:
    """The configuration in the file at `path`, else KEYSYNC_CONFIG, else the default file.

    VAST_URL overrides api.url. Raises ConfigInvalid with every problem that was found.
    """
    explicit = path or environment.get("KEYSYNC_CONFIG") or None
    text = _read(explicit or DEFAULT_PATH, must_exist=explicit is not None)
    return _effective(explicit or DEFAULT_PATH, text, environment)


def state_dir_of(path: str | None, environment: Mapping[str, str]) -> str:
    """The state_dir of a configuration in which other things may be wrong; else the default."""
    explicit = path or environment.get("KEYSYNC_CONFIG") or None
    reader = _Reader(explicit or DEFAULT_PATH)
    with contextlib.suppress(ConfigInvalid):
        reader.read(_read(explicit or DEFAULT_PATH, must_exist=False) or b"")
    return reader.state_dir


def defaults(environment: Mapping[str, str]) -> Config:
    """What applies where there is no configuration file. Raises ConfigInvalid for VAST_URL."""
    return _effective(DEFAULT_PATH, None, environment)


def _effective(path: str, text: bytes | None, environment: Mapping[str, str]) -> Config:
    reader = _Reader(path)
    if text is not None:
        reader.read(text)
    url = environment.get("VAST_URL")
    if url:
        reader.set("api.url", url, "the variable VAST_URL")
    return reader.config()


def _read(path: str, *, must_exist: bool) -> bytes | None:
    try:
        # Without waiting for the other end of a named pipe, and without a device's effects.
        _refuse_other_kinds(os.stat(path))
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            _refuse_other_kinds(status)
            _refuse_foreign(path, os.lstat(path))
            _refuse_foreign(path, status)
            text = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        if not must_exist:
            return None
        raise ConfigInvalid(
            "config_missing",
            f"The configuration file {path} does not exist.",
            "Correct --config or KEYSYNC_CONFIG; without both, defaults are used.",
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
            "Correct --config or KEYSYNC_CONFIG: it does not seem to be a configuration.",
        )
    return text


def _refuse_other_kinds(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a directory, pipe or device, not a regular file")


def _refuse_foreign(path: str, status: os.stat_result) -> None:
    """Who may write the configuration may pin a key, so only root and keysync's user may.

    Group 0 is no exception: in the platform's images an ordinary user has it.
    """
    is_link = stat.S_ISLNK(status.st_mode)  # whose mode says nothing, and whose owner may move it
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_link
    if others_write or status.st_uid not in (0, os.geteuid()):
        name = shlex.quote(path)
        raise ConfigInvalid(
            "config_exposed",
            f"The configuration file {path} can be changed by others than its rightful owner "
            f"(owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}), who could let "
            "themselves in.",
            f"chown {'-h ' * is_link}{os.geteuid()} {name} && chmod go-w {name}",
        )


_LONGEST_NAME = 32  # of an option that is worth repeating


class _Reader:
    """Walks the YAML nodes, so that every problem has its line."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._values: dict[str, object] = {}
        self._sources: dict[str, str] = {}
        self._problems: list[tuple[int, str]] = []
        self._pins: list[tuple[str, int]] = []

    def read(self, text: bytes) -> None:
        import yaml

        loader = None
        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            if root is not None:
                self._read_root(root, loader)
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
            if isinstance(error, RecursionError):
                line, what = 1, "it is nested too deeply"
            elif mark is None and hasattr(error, "position"):
                line = text[: error.position].count(b"\n") + 1
            else:  # a mark is missing where the scanner itself stumbles, as over "\UFFFFFFFF"
                at = mark or loader
                line = at.line + 1 if at else 1
            self._problem(line, f"not valid YAML: {what}")

    def _read_root(self, root: yaml.Node, loader: yaml.SafeLoader) -> None:
        for name, line, node in self._pairs(root, _TOP, ""):
            if name in _SECTIONS:
                self._read_section(name, node, loader)
            elif name == "targets":
                self._read_targets(node, line, loader)
            elif name == "pins":
                self._read_pins(node, line, loader)
            else:
                self._set_at(name, node, line, loader)

    def _read_section(self, section: str, node: yaml.Node, loader: yaml.SafeLoader) -> None:
        names = [name.partition(".")[2] for name in _OPTIONS if name.startswith(section + ".")]
        _unfold(node, loader)
        for name, line, child in self._pairs(node, names, section + "."):
            self._set_at(f"{section}.{name}", child, line, loader)

    def _pairs(
        self, node: yaml.Node, allowed: tuple[str, ...] | list[str], prefix: str
    ) -> list[tuple[str, int, yaml.Node]]:
        """The known keys of a mapping with their lines; unknown and doubled ones are problems."""
        import yaml

        if node.tag == "tag:yaml.org,2002:null":
            return []
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            self._problem(line, f"{prefix.rstrip('.') or 'the file'} must hold NAME: VALUE lines")
            return []
        found: dict[str, tuple[str, int, yaml.Node]] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if not name:
                self._problem(line, "the name of an option must be one word")
            elif name not in allowed:
                shown = name if len(name) <= _LONGEST_NAME else "…"  # it could be a secret
                self._problem(line, f'unknown option "{prefix}{shown}"{_nearest(name, allowed)}')
            elif name in found:
                self._problem(line, f'"{prefix}{name}" is given twice')
            else:
                found[name] = (name, line, value)
        return list(found.values())

    def _read_targets(self, node: yaml.Node, line: int, loader: yaml.SafeLoader) -> None:
        import yaml

        _unfold(node, loader)
        self._sources["targets"] = f"{self._path}:{line}"
        if isinstance(node, yaml.ScalarNode) and node.value == "auto":
            return
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._problem(line, "targets must be auto, or a list with at least one - user: NAME")
            return
        targets = [t for t in (self._target(child, loader) for child in node.value) if t]
        if len({target.path or (target.user,) for target in targets}) < len(targets):
            self._problem(line, "targets names the same file twice")
        self._values["targets"] = tuple(targets)

    def _target(self, node: yaml.Node, loader: yaml.SafeLoader) -> Target | None:
        line = node.start_mark.line + 1
        _unfold(node, loader)
        values = {}
        for name, at, child in self._pairs(node, ("user", "path"), "targets."):
            try:
                values[name] = _value(child, loader)
            except _Bad as bad:
                self._problem(at, f"targets.{name} {bad}")
                return None
        user, path = values.get("user"), values.get("path")
        if not isinstance(user, str) or not user:
            self._problem(line, "each target needs a user: NAME")
            return None
        try:
            return Target(user, None if path is None else _absolute_path(path))
        except _Bad as bad:
            self._problem(line, f"targets.path {bad}")
            return None

    def _read_pins(self, node: yaml.Node, line: int, loader: yaml.SafeLoader) -> None:
        import yaml

        _unfold(node, loader)
        self._sources["pins"] = f"{self._path}:{line}"
        if node.tag == "tag:yaml.org,2002:null":
            return
        children = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for child in children:
            at = child.start_mark.line + 1
            try:
                value = _value(child, loader)
            except _Bad as bad:
                self._problem(at, f"pins {bad}")
                continue
            if child is node or not isinstance(value, str):
                self._problem(line, "pins must be a list of public key lines")
                return
            self._pins.append((value, at))

    def _set_at(self, name: str, node: yaml.Node, line: int, loader: yaml.SafeLoader) -> None:
        try:
            self._assign(name, _value(node, loader), f"{self._path}:{line}")
        except _Bad as bad:
            self._problem(line, f"{name} {bad}")

    def set(self, name: str, value: object, source: str) -> None:
        """A value from somewhere else than the file."""
        try:
            self._assign(name, value, source)
        except _Bad as bad:
            self._problems.append((_AFTER_THE_FILE, f"{source}: {name} {bad}"))

    def _assign(self, name: str, value: object, source: str) -> None:
        parsed = None if value is None and name in _NULLABLE else _OPTIONS[name](value)
        self._values[name.replace(".", "_")] = parsed
        self._sources[name] = source

    @property
    def state_dir(self) -> str:
        """As far as it was read."""
        return str(self._values.get("state_dir", Config().state_dir))

    def _problem(self, line: int, text: str) -> None:
        self._problems.append((line, f"{self._path}:{line}: {text}"))

    def config(self) -> Config:
        """The whole; raises ConfigInvalid when anything was wrong."""
        defaults = Config()
        floor = self._values.get("policy_min_rsa_bits", defaults.policy_min_rsa_bits)
        floor = floor if isinstance(floor, int) else defaults.policy_min_rsa_bits
        pins = []
        for text, line in self._pins:
            try:
                key, comment = parse_entry(text, floor)
                pins.append(ListedKey(key, comment, None))
            except InvalidKey as error:
                self._problem(line, f"pins: {error.detail} ({error.reason})")
        self._check_backoff(defaults)
        if self._problems:
            texts = (text for _, text in sorted(self._problems, key=lambda found: found[0]))
            raise ConfigInvalid("config_invalid", "\n".join(texts), _CHECK)
        return Config(**self._values, pins=tuple(pins), sources=self._sources)  # type: ignore[arg-type]  # reason: each value went through its option's parser

    def _check_backoff(self, defaults: Config) -> None:
        """A failure must not be retried sooner than the next poll after a success would come."""
        interval = self._values.get("poll_interval", defaults.poll_interval)
        backoff = self._values.get("poll_max_backoff", defaults.poll_max_backoff)
        if not (isinstance(interval, float) and isinstance(backoff, float)) or backoff >= interval:
            return
        source = self._sources.get("poll.max_backoff")
        if source is None:  # only the interval was given
            self._values["poll_max_backoff"] = interval
            self._sources["poll.max_backoff"] = "default, raised to poll.interval"
            return
        text = (
            f"poll.max_backoff ({_notation(backoff)}) must not be shorter than poll.interval "
            f"({_notation(interval)})"
        )
        self._problem(int(source.rpartition(":")[2]), text)


def _unfold(node: yaml.Node, loader: yaml.SafeLoader) -> None:
    """Puts what `<<` names into a mapping; raises YAMLError for a tag that does not belong here."""
    import yaml

    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        loader.flatten_mapping(node)
    elif isinstance(node, yaml.CollectionNode) and node.tag != "tag:yaml.org,2002:seq":
        raise yaml.constructor.ConstructorError(
            None, None, f"could not determine a constructor for the tag {node.tag}", node.start_mark
        )


def _value(node: yaml.Node, loader: yaml.SafeLoader) -> object:
    """Raises _Bad for text that is not what its tag or its form says, as !!int '' or 2024-13-45."""
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, LookupError, OverflowError, AttributeError, TypeError):
        kind = node.tag.rpartition(":")[2]
        raise _Bad(f"has an impossible value ({kind}); if it is a text, quote it") from None


def _nearest(name: str, allowed: tuple[str, ...] | list[str]) -> str:
    import difflib  # loaded only when something is wrong

    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    elsewhere = [option for option in _OPTIONS if option.partition(".")[2] == name]
    if elsewhere and name not in near:
        return f"; did you mean {' or '.join(elsewhere)}?"
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; known here: {', '.join(allowed)}"


def _notation(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".") + "s"
    return "null" if value is None else str(value)


def effective(config: Config) -> list[tuple[str, str, str]]:
    """Each option's name, its value in the file's own notation, and its source."""
    rows = []
    for name in _OPTIONS:
        value = getattr(config, name.replace(".", "_"))
        rows.append((name, _notation(value), config.sources.get(name, "default")))
    if config.targets is None:
        rows.append(("targets", "auto", config.sources.get("targets", "default")))
    for at, target in enumerate(config.targets or ()):
        text = target.user + (f" {target.path}" if target.path else "")
        rows.append((f"targets[{at}]", text, config.sources.get("targets", "default")))
    for at, pin in enumerate(config.pins):
        text = f"{pin.key.fingerprint} {pin.comment}".strip()
        rows.append((f"pins[{at}]", text, config.sources.get("pins", "default")))
    return rows
