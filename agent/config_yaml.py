"""Parses the text of the configuration file node by node, so that every error has its line."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.config import Config, Target
from agent.config_options import (
    SECTIONS,
    TOP_LEVEL,
    InvalidValue,
    absolute_path,
    notation,
    options_in,
    parse_option,
    suggestion,
)
from agent.core.key_entry import parse_entry
from agent.core.listing import ListedKey
from agent.core.wire import InvalidKey
from agent.errors import ConfigInvalid

if TYPE_CHECKING:
    import yaml

_CHECK = "Correct it, then run: keysync config check"
_AFTER_THE_FILE = sys.maxsize  # the line number of an error in a variable
_MAX_NAME_CHARS = 32  # of an unknown option that an error repeats


class ConfigReader:
    """Collects the values and errors of one file and the environment, then makes a Config."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._values: dict[str, object] = {}
        self._sources: dict[str, str] = {}
        self._problems: list[tuple[int, str]] = []
        self._pins: list[tuple[str, int]] = []

    def read(self, text: bytes) -> None:
        """Reads the file's bytes; errors are kept for `config`."""
        import yaml

        loader = None
        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            if root is not None:
                self._read_root(root, loader)
        except RecursionError:
            self._problem(1, "not valid YAML: it is nested too deeply")
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
            self._problem(_line_of(error, text, loader), f"not valid YAML: {what}")

    def _read_root(self, root: yaml.Node, loader: yaml.SafeLoader) -> None:
        for name, line, node in self._pairs(root, TOP_LEVEL, ""):
            if name in SECTIONS:
                self._read_section(name, node, loader)
            elif name == "targets":
                self._read_targets(node, line, loader)
            elif name == "pins":
                self._read_pins(node, line, loader)
            else:
                self._set_at(name, node, line, loader)

    def _read_section(self, section: str, node: yaml.Node, loader: yaml.SafeLoader) -> None:
        _flatten(node, loader)
        for name, line, child in self._pairs(node, options_in(section), section + "."):
            self._set_at(f"{section}.{name}", child, line, loader)

    def _pairs(
        self, node: yaml.Node, allowed: tuple[str, ...] | list[str], prefix: str
    ) -> list[tuple[str, int, yaml.Node]]:
        """The known names of a mapping with their lines; unknown and repeated ones are errors."""
        import yaml

        if node.tag == "tag:yaml.org,2002:null":
            return []
        line = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            where = prefix.rstrip(".") or "the file"
            self._problem(line, f"{where} must contain NAME: VALUE lines")
            return []
        found: dict[str, tuple[str, int, yaml.Node]] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if not name:
                self._problem(line, "the name of an option must be one word")
            elif name not in allowed:
                shown = name if len(name) <= _MAX_NAME_CHARS else "…"  # it could be a secret
                self._problem(line, f'unknown option "{prefix}{shown}"{suggestion(name, allowed)}')
            elif name in found:
                self._problem(line, f'"{prefix}{name}" is given twice')
            else:
                found[name] = (name, line, value)
        return list(found.values())

    def _read_targets(self, node: yaml.Node, line: int, loader: yaml.SafeLoader) -> None:
        import yaml

        _flatten(node, loader)
        self._sources["targets"] = f"{self._path}:{line}"
        if isinstance(node, yaml.ScalarNode) and node.value == "auto":
            return
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._problem(line, "targets must be auto, or a list with at least one - user: NAME")
            return
        targets = [t for t in (self._target(child, loader) for child in node.value) if t]
        files = [target.path or f"the file of {target.user}" for target in targets]
        for name in sorted({name for name in files if files.count(name) > 1}):
            self._problem(line, f"targets names {name} twice")
        self._values["targets"] = tuple(targets)

    def _target(self, node: yaml.Node, loader: yaml.SafeLoader) -> Target | None:
        line = node.start_mark.line + 1
        _flatten(node, loader)
        user, path = None, None
        for name, at, child in self._pairs(node, ("user", "path"), "targets."):
            try:
                value = _construct(child, loader)
                if name == "user":
                    user = value
                elif value is not None:
                    path = absolute_path(value)
            except InvalidValue as error:
                self._problem(at, f"targets.{name} {error}")
                return None
        if not isinstance(user, str) or not user:
            self._problem(line, "each target needs a user: NAME")
            return None
        return Target(user, path)

    def _read_pins(self, node: yaml.Node, line: int, loader: yaml.SafeLoader) -> None:
        import yaml

        _flatten(node, loader)
        self._sources["pins"] = f"{self._path}:{line}"
        if node.tag == "tag:yaml.org,2002:null":
            return
        children = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for child in children:
            at = child.start_mark.line + 1
            try:
                value = _construct(child, loader)
            except InvalidValue as error:
                self._problem(at, f"pins {error}")
                continue
            if child is node or not isinstance(value, str):
                self._problem(line, "pins must be a list of public key lines")
                return
            self._pins.append((value, at))

    def _set_at(self, name: str, node: yaml.Node, line: int, loader: yaml.SafeLoader) -> None:
        try:
            self._assign(name, _construct(node, loader), f"{self._path}:{line}")
        except InvalidValue as error:
            self._problem(line, f"{name} {error}")

    def set(self, name: str, value: object, source: str) -> None:
        """Sets an option from a variable, which `source` names."""
        try:
            self._assign(name, value, source)
        except InvalidValue as error:
            self._problems.append((_AFTER_THE_FILE, f"{source}: {name} {error}"))

    def _assign(self, name: str, value: object, source: str) -> None:
        self._values[name.replace(".", "_")] = parse_option(name, value)
        self._sources[name] = source

    @property
    def state_dir(self) -> str:
        """What was read of it so far, else the default."""
        return str(self._values.get("state_dir", Config().state_dir))

    def _problem(self, line: int, text: str) -> None:
        self._problems.append((line, f"{self._path}:{line}: {text}"))

    def config(self) -> Config:
        """The configuration. Raises ConfigInvalid with all errors, in the order of lines."""
        found = Config(**self._values, sources=self._sources)  # type: ignore[arg-type]  # reason: each value went through its option's parser
        found = replace(found, pins=self._parsed_pins(found.policy_min_rsa_bits))
        if found.poll_max_backoff < found.poll_interval:
            found = self._with_longer_backoff(found)
        if self._problems:
            texts = (text for _, text in sorted(self._problems, key=lambda problem: problem[0]))
            raise ConfigInvalid("config_invalid", "\n".join(texts), _CHECK)
        return found

    def _parsed_pins(self, min_rsa_bits: int) -> tuple[ListedKey, ...]:
        pins = []
        for text, line in self._pins:
            try:
                key, comment = parse_entry(text, min_rsa_bits)
                pins.append(ListedKey(key, comment, None))
            except InvalidKey as error:
                self._problem(line, f"pins: {error.detail} ({error.reason})")
        return tuple(pins)

    def _with_longer_backoff(self, found: Config) -> Config:
        """A failure must not be retried sooner than a success is followed by the next poll."""
        source = self._sources.get("poll.max_backoff")
        if source is None:  # only the interval was given
            self._sources["poll.max_backoff"] = "default, raised to poll.interval"
            return replace(found, poll_max_backoff=found.poll_interval)
        text = (
            f"poll.max_backoff ({notation(found.poll_max_backoff)}) must not be shorter than "
            f"poll.interval ({notation(found.poll_interval)})"
        )
        self._problem(int(source.rpartition(":")[2]), text)
        return found


def _line_of(error: Exception, text: bytes, loader: yaml.SafeLoader | None) -> int:
    mark = getattr(error, "problem_mark", None)
    position = getattr(error, "position", None)
    if mark is None and position is not None:
        return text[:position].count(b"\n") + 1
    mark = mark or loader  # without a mark where the scanner itself fails, as at "\UFFFFFFFF"
    return mark.line + 1 if mark else 1


def _flatten(node: yaml.Node, loader: yaml.SafeLoader) -> None:
    """Merges what `<<` names into a mapping. Raises YAMLError for a tag of another type."""
    import yaml

    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        loader.flatten_mapping(node)
    elif isinstance(node, yaml.CollectionNode) and node.tag != "tag:yaml.org,2002:seq":
        raise yaml.constructor.ConstructorError(
            None, None, f"could not determine a constructor for the tag {node.tag}", node.start_mark
        )


def _construct(node: yaml.Node, loader: yaml.SafeLoader) -> object:
    """Raises InvalidValue for text that does not fit its tag or form: !!int '', 2024-13-45."""
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, LookupError, OverflowError, AttributeError, TypeError):
        kind = node.tag.rpartition(":")[2]
        raise InvalidValue(f"has an impossible value ({kind}); quote it if it is text") from None
