"""The locks of requirements/, read for what they promise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
_ENTRY = re.compile(
    r"(?m)^(?P<name>[a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==(?P<version>\S+)(?: ; (?P<marker>[^\\\n]+))?"
)


@dataclass(frozen=True, slots=True)
class Pin:
    """One library with all its hashes; no marker is: always."""

    name: str
    version: str
    marker: str
    hashes: frozenset[str]


def read_pins(name: str) -> list[Pin]:
    """Every pin of `requirements/<name>.lock`, also those for another Python."""
    text = (REQUIREMENTS / f"{name}.lock").read_text()
    found = []
    for entry in re.split(r"(?m)^(?=[^ #\n])", text)[1:]:
        match = _ENTRY.match(entry)
        assert match, f"{name}.lock holds a line that is no pin: {entry}"
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)
        marker = (match["marker"] or "").strip()
        found.append(Pin(match["name"], match["version"], marker, frozenset(hashes)))
    return found


def pins_here(name: str) -> list[Pin]:
    """Those that an installation with this Python takes."""
    return [pin for pin in read_pins(name) if not pin.marker or Marker(pin.marker).evaluate()]
