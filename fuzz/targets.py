"""Every target by name: what is checked of an input, and where the search begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fuzz import checks_answers, checks_documents, checks_keys, seeds


@dataclass(frozen=True, slots=True)
class Target:
    """A check that raises when a law is broken, its first inputs, and the longest one to try."""

    check: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    max_bytes: int = 4096


def _synced() -> list[bytes]:
    choices = (b"\0\0\0\0", b"\0\0\0\2", b"\0\x1b\x2d\x66")  # the second lists the first key
    return [choice + one for one in seeds.documents() for choice in choices]


def _answers() -> list[bytes]:
    statuses = (301, 401, 404, 429, 503)
    return [(at - 100).to_bytes(2, "big") + one for at in statuses for one in seeds.listings()]


def _broken(data: bytes) -> None:
    """A fault to be found, by which the tests know that faults are found."""
    assert b"PRIVATE KEY" not in data


TARGETS: Mapping[str, Target] = {
    "blob": Target(checks_keys.blob, seeds.blobs),
    "entry": Target(checks_keys.entry, seeds.entries, 10_000),
    "options": Target(checks_keys.options, seeds.options),
    "document": Target(checks_documents.document, seeds.documents),
    "sync": Target(checks_documents.sync, _synced),
    "listing": Target(checks_answers.listing, seeds.listings),
    "answer": Target(checks_answers.answer, _answers),
    "state": Target(checks_answers.state, seeds.states),
    "config": Target(checks_answers.config, seeds.configurations),
}
BROKEN: Mapping[str, Target] = {"broken": Target(_broken, seeds.options)}
