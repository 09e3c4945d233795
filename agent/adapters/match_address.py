"""Finds a client address that matches a `Match Address` block of sshd_config.

The source is Match and PATTERNS in sshd_config(5): a comma-separated list of networks, addresses
and patterns with `*` and `?`; a `!` in front negates an item.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_WORD = re.compile(r'(?:"[^"]*"|[^\s="])+')
_WITHOUT_VALUE = frozenset(("all", "canonical", "final", "invalid-user"))
_FILLERS = ("1", "1.1", "1.1.1", "1.1.1.1", ":1")  # tried in place of `*`


def address_lists(line: str) -> Iterator[str]:
    """The value of each `Address` criterion; `line` is the text after the word Match."""
    words = iter(_WORD.findall(line))
    for word in words:
        if word.lower() in _WITHOUT_VALUE:
            continue
        value = next(words, "")
        if word.lower() == "address":
            yield value.replace('"', "")


def matching_address(patterns: str) -> str | None:
    """An address that the list matches, or None if none of a few candidates does."""
    words = [word.strip() for word in patterns.split(",")]
    excluded = [word.removeprefix("!") for word in words if word.startswith("!")]
    for word in words:
        if not word.startswith("!"):
            for address in _candidates(word):
                if not any(_matches(pattern, address) for pattern in excluded):
                    return str(address)
    return None


def _candidates(pattern: str) -> Iterable[_Address]:
    """Addresses that `pattern` matches; of a network a few at its start, middle and end."""
    with contextlib.suppress(ValueError):
        network = ipaddress.ip_network(pattern)
        size = network.num_addresses
        for at in dict.fromkeys((1, size // 2 + 1, size - 2, 0)):
            if 0 <= at < size:
                yield network[at]
        return
    for filler in _FILLERS:
        with contextlib.suppress(ValueError):
            yield ipaddress.ip_address(pattern.replace("?", "1").replace("*", filler))


def _matches(pattern: str, address: _Address) -> bool:
    try:
        return address in ipaddress.ip_network(pattern)
    except ValueError:
        return fnmatchcase(str(address), pattern)
