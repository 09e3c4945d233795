"""The laws and guards once more, for the model check: small, and apart from the code.

`read` is an independent reader of key files; it knows a few keys by their text and shares nothing
with the agent. `Memory` is what the laws let keysync remember, `Asked` what a sync is asked to do,
`fates` what R1-R8 say about each line, `refused` and `held` what G3 and G4 say about a listing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

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


def _held(*names: str) -> frozenset[str]:
    return frozenset(FINGERPRINTS[name] for name in names)


def _spoilt(name: str) -> dict[str, Bad]:
    """The ways in which a good key is refused for its form alone."""
    line = LINES[name]
    return {
        f"{line} # laptop\r\nof mine": Bad("newline", _held(name)),
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
    protected: frozenset[str] = frozenset()  # what the ids of misshapen entries held before (G2)

    def protecting(self, memory: Memory) -> Listed:
        """G2: an entry that is refused for its form revokes nothing that its id held before."""
        misshapen = {key_id for key_id, bad in self.rejected if bad.form}
        held = {key for key, key_id in memory.ids.items() if key_id in misshapen}
        return replace(self, protected=frozenset(held - memory.gone))

    @property
    def ids(self) -> dict[str, int]:
        """The id under which each usable key is listed, the first of several."""
        found: dict[str, int] = {}
        for key_id, text in self.entries:
            if text not in BAD:
                found.setdefault(fingerprint(text), key_id)
        return found

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
    def named(self) -> frozenset[str]:
        """Every key that can be made out in it."""
        bad = (BAD[text].held for _, text in self.entries if text in BAD)
        return frozenset(self.valid).union(*bad)

    @property
    def present(self) -> frozenset[str]:
        return self.named | self.protected

    @property
    def listed_but_malformed(self) -> frozenset[str]:
        bad = (BAD[text] for _, text in self.entries if text in BAD)
        return self.protected.union(*(one.held for one in bad if one.form))


# ---- what is remembered ----


@dataclass(frozen=True)
class Instant:
    """A point in time by the wall clock, and by one that counts since the machine was started."""

    wall: datetime
    boot: str
    seconds: float

    @property
    def text(self) -> str:
        return self.wall.strftime("%Y-%m-%dT%H:%M:%SZ")

    def since(self, earlier: Instant) -> float | None:
        """Seconds; None where the wall clock was set back between two boots."""
        if self.boot == earlier.boot:
            return self.seconds - earlier.seconds
        passed = (self.wall - earlier.wall).total_seconds()
        return max(passed, 0.0) if passed >= -120 else None


@dataclass(frozen=True)
class Hold:
    """G3: the danger that is held or was let pass; `last` is when a poll last counted."""

    reason: str
    seen: int
    needed: int
    waited: float
    wait: float
    last: Instant

    @property
    def passed(self) -> bool:
        return self.seen >= self.needed and self.waited >= self.wait


EVERYBODY = ""  # the name of a hold of all targets


@dataclass(frozen=True)
class Memory:
    """What outlives a sync. `accepted` and `waiting` are for G14; paths are of key files."""

    account: int | None = None
    known: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()  # deleted on the console, and not usable and let in since
    ids: Mapping[str, int] = field(default_factory=dict)
    accepted: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    holds: Mapping[str, Hold] = field(default_factory=dict)
    last_success: Instant | None = None
    failing: bool = False
    rejected: tuple[tuple[int, Bad], ...] = ()
    served: frozenset[str] = frozenset()
    retired: frozenset[str] = frozenset()

    def recorded(self, listed: Listed) -> Memory:
        """R5: what a listing names is known from now on, whatever comes of it."""
        return replace(
            self,
            known=self.known | listed.named,
            ids={**listed.ids, **self.ids},
            rejected=tuple(listed.rejected),
        )

    def still(self, listed: Listed, waiting: frozenset[str]) -> frozenset[str]:
        """R5, G14: what is there and not revoked; a valid entry that enters brings a key back."""
        return (listed.present - self.gone) | (frozenset(listed.valid) - waiting)

    def accepting(self, entering: frozenset[str]) -> Memory:
        """G14: these may enter from now on, also those that had gone and came back."""
        new = entering - self.accepted
        return replace(self, accepted=self.accepted | entering, gone=self.gone - new)

    def applied(self, listed: Listed, waiting: frozenset[str]) -> Memory:
        """R5, G14: what is not listed is revoked, and has to be accepted again when it is."""
        still = self.still(listed, waiting)
        accepted = (self.accepted & still) - self.gone
        return replace(
            self,
            account=listed.account if self.account is None else self.account,
            gone=self.known - still,
            ids={**self.ids, **listed.ids},
            accepted=accepted | (frozenset(listed.valid) - waiting),
            waiting=waiting,
        )

    def targeted(self, configured: frozenset[str]) -> Memory:
        """R5: a target taken out of the configuration is retired."""
        retired = (self.retired | self.served) - configured
        return replace(self, served=configured, retired=retired)


# ---- R1-R8 ----


@dataclass(frozen=True)
class Asked:
    """What a sync is asked to make of each file; the `waiting` keys keep a line that they have."""

    listed: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    listed_but_malformed: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    strict: bool = False

    @classmethod
    def of(
        cls,
        listed: Listed,
        pins: Mapping[str, str],
        memory: Memory,
        waiting: frozenset[str],
        *,
        strict: bool,
    ) -> Asked:
        """R5: revoked is what was on the console, is there no more, and is not pinned."""
        enter = {key: comment for key, comment in listed.valid.items() if key not in waiting}
        still = memory.still(listed, waiting)
        revoked = memory.known - still - set(pins)
        return cls(
            enter, pins, revoked, listed.listed_but_malformed & still, waiting & still, strict
        )

    @property
    def desired(self) -> dict[str, str]:
        return {**self.pins, **self.listed}

    def stays(self, line: Seen) -> bool:
        """R4, R8: a restricted line stays; in strict mode only a pin's, or one whose key waits."""
        stays = not self.strict or line.key in self.pins or line.key in self.waiting
        return line.sort == "restricted" and stays

    def speaks(self, lines: Iterable[Seen]) -> frozenset[str]:
        """R4: the keys that are their owner's decision in this file."""
        return frozenset(line.key for line in lines if self.stays(line))


def fates(before: Sequence[Seen], asked: Asked, speaks: frozenset[str]) -> list[str]:
    """What the laws say about each line: keep, tag, or why it goes.

    `speaks` are the keys of restricted lines in all the files of the user.
    """
    order = sorted(range(len(before)), key=lambda at: before[at].sort != "managed")
    first: dict[str, int] = {}
    for at in order:
        if before[at].sort in ("managed", "plain"):
            first.setdefault(before[at].key, at)
    return [_fate(at, line, asked, speaks, first) for at, line in enumerate(before)]


def _fate(
    at: int, line: Seen, asked: Asked, speaks: frozenset[str], first: Mapping[str, int]
) -> str:
    if line.sort == "other" or asked.stays(line):
        return "keep"  # R6, R4
    if line.sort == "restricted":
        return "R8"
    ours = line.sort == "managed" and line.key in asked.listed_but_malformed | asked.waiting
    if line.key in speaks and (line.key in asked.desired or ours):
        return "R4" if line.sort == "managed" else "keep"  # the plain one is the owner's, too
    if line.key in asked.desired:
        if first[line.key] != at:
            return "R1"
        return "tag" if line.sort == "plain" and line.key in asked.listed else "keep"
    if line.sort == "managed":
        return "keep" if ours else "R2"
    if line.key in asked.revoked:
        return "R5"
    return "R8" if asked.strict and line.key not in asked.waiting else "keep"


def _fate_where_nothing_enters(line: Seen, asked: Asked) -> str:
    """R5, G11: of a retired target, and where no new key can be recorded first."""
    if line.sort == "managed" and line.key not in {
        *asked.desired,
        *asked.listed_but_malformed,
        *asked.waiting,
    }:
        return "R2"
    return "R5" if line.sort == "plain" and line.key in asked.revoked else "keep"


@dataclass(frozen=True)
class Expected:
    """What a file must become: these bytes, and behind them a managed line for each added key."""

    before: tuple[Seen, ...]
    fate: tuple[str, ...]
    added: frozenset[str] = frozenset()

    @classmethod
    def of(cls, data: bytes, asked: Asked, speaks: frozenset[str]) -> Expected:
        before = tuple(read(data))
        fate = tuple(fates(before, asked, speaks))
        there = {line.key for line, what in zip(before, fate, strict=True) if what[0] != "R"}
        return cls(before, fate, frozenset(set(asked.desired) - there - speaks))

    @classmethod
    def where_nothing_enters(cls, data: bytes, asked: Asked) -> Expected:
        before = tuple(read(data))
        return cls(before, tuple(_fate_where_nothing_enters(line, asked) for line in before))

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
    def only_revokes(self) -> bool:
        """Whether all that goes are lines of keys that are not on the console (any more)."""
        return all(what in ("keep", "tag", "R2", "R5") for what in self.fate)

    @property
    def adopted(self) -> list[str]:
        pairs = zip(self.before, self.fate, strict=True)
        return [line.key for line, what in pairs if what == "tag"]

    @property
    def ways_in(self) -> bool:
        """Whether somebody can log in by what it becomes."""
        pairs = zip(self.before, self.fate, strict=True)
        return bool(self.added) or any(line.opens for line, what in pairs if what[0] != "R")


# ---- G3, G4 ----


@dataclass(frozen=True)
class Order:
    """What the operator says with this sync; `additions` are names, or all."""

    confirm: bool = False
    accept: int | None = None
    dry_run: bool = False
    additions: tuple[str, ...] = ()

    @property
    def confirmed(self) -> tuple[str, ...]:
        return tuple(FINGERPRINTS.get(name, name) for name in self.additions)


def refused(listed: Listed, memory: Memory, order: Order) -> str | None:
    """G4: the kind of refusal for a listing of another account; an empty one names nobody."""
    follows = memory.account if order.accept is None else order.accept
    if follows is None or listed.account == follows:
        return None
    if listed.account is None:
        return None if follows == memory.account else "account_unknown"
    return "account_changed"


def waits(listed: Listed, memory: Memory, order: Order) -> frozenset[str]:
    """G14: the keys that were never accepted, where additions are held."""
    if "all" in order.additions:
        return frozenset()
    return frozenset(listed.valid) - (memory.accepted - memory.gone) - set(order.confirmed)


def danger(listed: Listed) -> str | None:
    """G3: why a listing is held for everybody."""
    if not listed.entries:
        return "empty_listing"
    return None if listed.valid else "no_valid_entry"


def locks_out(own: Sequence[Expected]) -> bool:
    """G3: whether something goes and no way in is left; all the files of one user together."""
    return any(one.removed for one in own) and not any(one.ways_in for one in own)


@dataclass(frozen=True)
class HoldRule:
    """G3: polls and seconds that a listing is held; `confirmed` is the operator's word."""

    needed: int
    wait: float
    interval: float
    confirmed: bool = False


def held(
    found: str, last: Hold | None, rule: HoldRule, now: Instant, *, counts: bool = True
) -> tuple[bool, Hold]:
    """G3: whether it is held, and the hold to remember.

    However the listing changes, the danger that is seen again is the same; what was let pass stays
    let pass while it lasts, whatever others do to the files (R5).
    """
    if last is None:
        hold = Hold(found, 1, rule.needed, 0.0, rule.wait, now)
    else:
        hold = last if last.passed else _seen_again(last, rule, now, counts=counts)
        hold = replace(hold, reason=found)
    if rule.confirmed:
        hold = replace(hold, seen=max(hold.seen, hold.needed), waited=hold.wait)
    return not hold.passed, hold


def _seen_again(hold: Hold, rule: HoldRule, now: Instant, *, counts: bool) -> Hold:
    """A poll counts when about an interval has passed since the last that did."""
    hold = replace(hold, needed=rule.needed, wait=rule.wait)
    if not counts:
        return replace(hold, last=now)
    passed = now.since(hold.last)
    if passed is not None and hold.last.boot != now.boot:
        passed = min(passed, rule.interval)  # nobody knows for how long the machine was off
    if passed is not None and passed < 0.9 * rule.interval:
        return hold
    return replace(hold, seen=hold.seen + 1, waited=hold.waited + (passed or 0.0), last=now)
