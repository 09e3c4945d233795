"""Addresses from which a client meets a `Match Address` block of sshd's configuration.

The source is Match and PATTERNS in sshd_config(5): a list of networks, addresses and patterns with
`*` and `?`, separated by commas; one that begins with `!` excludes.
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
_FILLERS = ("1", "1.1", "1.1.1", "1.1.1.1", ":1")  # one of them makes an address of a pattern


def address_lists(line: str) -> Iterator[str]:
    """The value of each `Address` in what follows the word Match."""
    words = iter(_WORD.findall(line))
    for word in words:
        if word.lower() in _WITHOUT_VALUE:
            continue
        value = next(words, "")
        if word.lower() == "address":
            yield value.replace('"', "")


def matching_address(patterns: str) -> str | None:
    """An address that the list matches; None where none is found at the first few tries."""
    words = [word.strip() for word in patterns.split(",")]
    excluded = [word.removeprefix("!") for word in words if word.startswith("!")]
    for word in words:
        if not word.startswith("!"):
            for address in _candidates(word):
                if not any(_matches(pattern, address) for pattern in excluded):
                    return str(address)
    return None


def _candidates(pattern: str) -> Iterable[_Address]:
    """Addresses that one pattern matches: of a network its first host, one amidst, and the last."""
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
