"""The laws and guards once more, for the model check: small, and apart from the code.

`read` is an independent reader of key files; it knows a few keys by their text and shares nothing
with the agent. `Memory` is what the laws let keysync remember, `Asked` what a sync is asked to do,
`fates` what R1-R8 say about each line, `judge` what G1-G4 say about a listing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.core.support import rsa_blob, text_of
from tests.support.machine import fingerprint, key_line

TAG = b"keysync:managed"
NAMES = ("ada", "ben", "cleo", "dan", "eve", "finn", "gus")
LINES = {name: key_line(name) for name in NAMES}
WEAK = text_of(rsa_blob(1024), "weak")  # below policy.min_rsa_bits, and sshd takes it
FINGERPRINTS = {name: fingerprint(line) for name, line in LINES.items()}
FINGERPRINTS["weak"] = fingerprint(WEAK)
_BY_DATA = {
    line.split()[1].encode(): FINGERPRINTS[name] for name, line in (LINES | {"weak": WEAK}).items()
}
_KEY = re.compile(
    rb"[ \t]*(?:(?P<options>(?:\"[^\"]*\"|[^ \t\"#])(?:\"[^\"]*\"|[^ \t\"])*)[ \t]+)?"
    rb"ssh-(?:ed25519|rsa)[ \t]+(?P<data>[A-Za-z0-9+/=]+)(?:[ \t]+(?P<comment>.*?))?[ \t\r\n]*",
    re.DOTALL,
)
_SHUT = re.compile(rb"command=|expiry-time=|bad-option")


# ---- the key file ----


@dataclass(frozen=True)
class Seen:
    """One line with its newline; `sort` is managed, plain, restricted or other."""

    raw: bytes
    sort: str = "other"
    key: str = ""
    opens: bool = False
    options: bytes = b""

    @property
    def tagged(self) -> bytes:
        """R3: the line adopted: the tag at its end, everything else where it was."""
        body = self.raw.rstrip(b" \t\r\n")
        return body + b" " + TAG + self.raw[len(body) :]


def read(data: bytes) -> list[Seen]:
    """Every line of a key file, as sshd reads it."""
    return [_read_line(raw) for raw in re.findall(rb"[^\n]*\n|[^\n]+", data)]


def _read_line(raw: bytes) -> Seen:
    found = _KEY.fullmatch(raw)
    key = _BY_DATA.get(found["data"]) if found else None
    if found is None or key is None:
        return Seen(raw)
    if found["options"] is not None:
        opens = not _SHUT.search(found["options"])
        return Seen(raw, "restricted", key, opens, found["options"])
    managed = re.split(rb"[ \t]", found["comment"] or b"")[-1] == TAG
    return Seen(raw, "managed" if managed else "plain", key, opens=True)


def keys(lines: Iterable[Seen], *sorts: str) -> list[str]:
    """The fingerprints of the lines of these sorts, in order."""
    return [line.key for line in lines if line.sort in sorts]


# ---- the console ----


@dataclass(frozen=True)
class Bad:
    """A text that is no acceptable key: why, and which keys can be made out in it (G2)."""

    reason: str
    held: frozenset[str] = frozenset()
    form: bool = True  # refused for its form alone, which takes no key away
    detail: str = ""  # what tells two entries with the same reason apart


def _held(*names: str) -> frozenset[str]:
    return frozenset(FINGERPRINTS[name] for name in names)


def _spoilt(name: str) -> dict[str, Bad]:
    """The ways in which a good key is refused for its form alone."""
    line = LINES[name]
    return {
        f"{line}\n": Bad("newline", _held(name), detail="at its end"),
        f"{line} # laptop\r\nof mine": Bad("newline", _held(name), detail="inside"),
        f'command="/bin/true" {line}': Bad("options", _held(name)),
        f'"{line}"': Bad("quoted", _held(name)),
        f"{line}%0a": Bad("control_character", _held(name)),
    }


SPOILT = {name: _spoilt(name) for name in NAMES}
BAD = {
    **{text: bad for spoilt in SPOILT.values() for text, bad in spoilt.items()},
    f"{LINES['eve']} {LINES['finn']}": Bad("several_keys", _held("eve", "finn")),
    WEAK: Bad("rsa_too_small", _held("weak"), form=False),
    LINES["gus"][:40]: Bad("truncated_blob"),
    LINES["gus"].replace("ssh-ed25519", "ssh-rsa"): Bad("type_mismatch", _held("gus")),
    "-----BEGIN OPENSSH PRIVATE KEY-----": Bad("private_key"),
    "/root/.ssh/id_ed25519.pub": Bad("file_path"),
    "   ": Bad("empty"),
}


@dataclass(frozen=True)
class Listed:
    """The console's list as the laws see it; `entries` are ids and texts that are not deleted."""

    entries: tuple[tuple[int, str], ...]
    account: int | None  # None: nobody is named in it

    @property
    def valid(self) -> dict[str, str]:
        """The usable keys in the console's order: fingerprint and comment."""
        found: dict[str, str] = {}
        for _, text in self.entries:
            if text not in BAD:
                found.setdefault(fingerprint(text), " ".join(text.split()[2:]))
        return found

    @property
    def rejected(self) -> list[tuple[int, Bad]]:
        return [(key_id, BAD[text]) for key_id, text in self.entries if text in BAD]

    @property
    def present(self) -> frozenset[str]:
        bad = (BAD[text].held for _, text in self.entries if text in BAD)
        return frozenset(self.valid).union(*bad)

    @property
    def identity(self) -> tuple[frozenset[str], frozenset[str]]:
        """What makes two polls see the same listing, in whatever order."""
        return frozenset(self.valid), self.present

    @property
    def spared(self) -> frozenset[str]:
        bad = (BAD[text] for _, text in self.entries if text in BAD)
        return frozenset[str]().union(*(one.held for one in bad if one.form))


# ---- what is remembered ----


@dataclass(frozen=True)
class Hold:
    """G3: the listing that is held or was let pass, and in how many polls in a row it was seen."""

    reason: str
    identity: tuple[frozenset[str], frozenset[str]]
    seen: int
    needed: int

    @property
    def passed(self) -> bool:
        return self.seen >= self.needed


@dataclass(frozen=True)
class Memory:
    """What outlives a sync."""

    account: int | None = None
    known: frozenset[str] = frozenset()
    hold: Hold | None = None
    last_success: str | None = None
    failing: bool = False
    gone: frozenset[str] = frozenset()  # what the last applied listing did not hold any more
    rejected: tuple[tuple[int, Bad], ...] = ()

    def broken_row(self) -> Memory:
        """G3: "in a row" is over; what had been let pass stays so."""
        return replace(self, hold=self.hold if self.hold and self.hold.passed else None)


# ---- R1-R8 ----


@dataclass(frozen=True)
class Asked:
    """What a sync is asked to make of each file."""

    listed: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    spared: frozenset[str] = frozenset()
    strict: bool = False

    @classmethod
    def of(cls, listed: Listed, pins: Mapping[str, str], memory: Memory, *, strict: bool) -> Asked:
        """R5: revoked is what was on the console, is there no more, and is not pinned."""
        revoked = memory.known - listed.present - set(pins)
        return cls(listed.valid, pins, revoked, listed.spared, strict)

    @property
    def wanted(self) -> dict[str, str]:
        return {**self.pins, **self.listed}

    def stays(self, line: Seen) -> bool:
        """R4, R8: a restricted line stays; in strict mode only a pin's."""
        return line.sort == "restricted" and (not self.strict or line.key in self.pins)


def fates(before: Sequence[Seen], asked: Asked) -> list[str]:
    """What the laws say about each line: keep, tag, or why it goes."""
    speaks = {line.key for line in before if asked.stays(line)}
    order = sorted(range(len(before)), key=lambda at: before[at].sort != "managed")
    first: dict[str, int] = {}
    for at in order:
        if before[at].sort in ("managed", "plain"):
            first.setdefault(before[at].key, at)
    return [_fate(at, line, asked, speaks, first) for at, line in enumerate(before)]


def _fate(at: int, line: Seen, asked: Asked, speaks: set[str], first: Mapping[str, int]) -> str:
    if line.sort == "other" or asked.stays(line):
        return "keep"  # R6, R4
    if line.sort == "restricted":
        return "R8"
    ours = line.sort == "managed" and line.key in asked.spared
    if line.key in speaks and (line.key in asked.wanted or ours):
        return "R4"
    if line.key in asked.wanted:
        if first[line.key] != at:
            return "R1"
        return "tag" if line.sort == "plain" and line.key in asked.listed else "keep"
    if line.sort == "managed":
        return "keep" if ours else "R2"
    if line.key in asked.revoked:
        return "R5"
    return "R8" if asked.strict else "keep"


@dataclass(frozen=True)
class Expected:
    """What a file must become: these bytes, and behind them a managed line for each added key."""

    before: tuple[Seen, ...]
    fate: tuple[str, ...]
    added: frozenset[str]

    @classmethod
    def of(cls, data: bytes, asked: Asked) -> Expected:
        before = tuple(read(data))
        fate = tuple(fates(before, asked))
        there = {line.key for line, what in zip(before, fate, strict=True) if what[0] != "R"}
        return cls(before, fate, frozenset(set(asked.wanted) - there))

    @property
    def kept(self) -> bytes:
        """R6: what stays, byte for byte and in order."""
        parts = []
        for line, what in zip(self.before, self.fate, strict=True):
            if what[0] != "R":
                parts.append(line.tagged if what == "tag" else line.raw)
        text = b"".join(parts)
        return text + b"\n" if self.added and text and not text.endswith(b"\n") else text

    @property
    def changes(self) -> bool:
        return bool(self.added) or any(what != "keep" for what in self.fate)

    @property
    def removed(self) -> list[Seen]:
        pairs = zip(self.before, self.fate, strict=True)
        return [line for line, what in pairs if what[0] == "R"]

    @property
    def adopted(self) -> list[str]:
        pairs = zip(self.before, self.fate, strict=True)
        return [line.key for line, what in pairs if what == "tag"]


# ---- G3, G4 ----


@dataclass(frozen=True)
class Order:
    """What the operator says with this sync."""

    confirm: bool = False
    accept: int | None = None
    dry_run: bool = False


def refused(listed: Listed, memory: Memory, order: Order) -> str | None:
    """G4: the kind of refusal for a listing of another account; an empty one names nobody."""
    follows = memory.account if order.accept is None else order.accept
    if listed.account is None or follows is None or listed.account == follows:
        return None
    return "account_changed"


def danger(listed: Listed, files: Mapping[str, Sequence[Expected]]) -> str | None:
    """G3: the kind of danger; `files` are those of each user that could be read."""
    if not listed.entries:
        return "empty_listing"
    if not listed.valid:
        return "no_valid_entry"
    return "would_lock_out" if any(map(_shut, files.values())) else None


def _shut(own: Sequence[Expected]) -> bool:
    """All the files of one user count together."""
    removes = any(one.removed for one in own)
    left = [one for one in own if one.added or _ways_in(one)]
    return removes and not left


def _ways_in(one: Expected) -> bool:
    pairs = zip(one.before, one.fate, strict=True)
    return any(line.opens for line, what in pairs if what[0] != "R")


def held(
    listed: Listed, found: str | None, memory: Memory, needed: int, order: Order
) -> tuple[str | None, Hold | None]:
    """G3: the kind under which it is held, or None, and the hold to remember.

    It was seen in `needed` polls in a row when every one of them saw this listing. A listing that
    was let pass stays let pass while it is the same, whatever others do to the files (R5).
    """
    last = memory.hold
    if found is None:
        same = last and last.passed and listed.identity == last.identity
        return None, last if same and last and last.reason == "would_lock_out" else None
    again = last is not None and (last.reason, last.identity) == (found, listed.identity)
    seen = last.seen + 1 if last and again else 1
    hold = Hold(found, listed.identity, max(seen, needed) if order.confirm else seen, needed)
    return None if hold.passed else found, hold
