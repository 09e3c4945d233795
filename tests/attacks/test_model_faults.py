"""The model check can fail: each fault here, built into a copy of the agent, must be found by it.

That takes many minutes, so it runs with --hypothesis-profile=long alone. That each fault still
finds its place is checked always.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.machine import REPOSITORY

LONG = settings().max_examples > 1000  # --hypothesis-profile=long
_COPIED = ("agent", "sandbox", "tests", "pyproject.toml", "README.md")


@dataclass(frozen=True)
class Fault:
    """In one file of agent/, `old` becomes `new`; it is there exactly once."""

    name: str
    file: str
    old: str
    new: str
    needs_root: bool = False


BOOKKEEPING, SERVED_FILES = "service/bookkeeping.py", "service/served_files.py"
PLAN, POLICY, LEDGER = "core/plan.py", "core/guards.py", "core/ledger.py"
KNOWN_KEYS = "core/known_keys.py"
LISTING, DOCUMENT = "core/listing.py", "core/authorized_keys.py"

FAULTS = (
    # ---- R1-R8 ----
    Fault("R1: duplicates stay", PLAN, "elif self._chosen[key.blob] != at:", "elif False:"),
    Fault("R1: pins are not added", PLAN, "listed, self._desired.pins)", "listed,)"),
    Fault("R3: nothing is adopted", PLAN, "self._edits[at] = adopted_line(line)", "pass"),
    Fault(
        "R4: the plain line beside a restricted one goes",
        PLAN,
        "if line.kind is LineKind.PLAIN and key.blob in self._restricted:",
        "if False:",
    ),
    Fault(
        "R4: only the same file's restrictions count",
        PLAN,
        "self._restricted = own | restricted_elsewhere",
        "self._restricted = own",
    ),
    Fault(
        "R5: a revoked plain line stays", PLAN, "elif self._desired.revoked(key):", "elif False:"
    ),
    Fault(
        "R5: a retired target is forgotten",
        SERVED_FILES,
        "retired = _retired(config, ledger, found, now)",
        "retired = ()",
    ),
    Fault(
        "R5: a retired target still gets keys",
        SERVED_FILES,
        "        if self.origin is Origin.RETIRED:",
        "        if False:",
    ),
    Fault(
        "R5: a refused entry brings a deleted key back",
        KNOWN_KEYS,
        "(listing.present - revoked)",
        "(listing.present - waiting)",
    ),
    Fault("R6: an appended line has no end", DOCUMENT, "or bool(added) or", "or"),
    Fault("R8: strict mode keeps foreign lines", PLAN, "elif strict:", "elif False:"),
    # ---- G1-G5 ----
    Fault(
        "G2: a misshapen entry revokes", LISTING, "replace(self, protected=fingerprints)", "self"
    ),
    Fault("G3: an empty list is applied", POLICY, "if self._listing.keys:", "if True:"),
    Fault(
        "G3: one user's hold holds everybody",
        POLICY,
        "        if would_lock_out(plans, opens_session):",
        "        if would_lock_out(plans, opens_session)"
        " or any(not hold.confirmed for hold in self._ledger.holds.values()):",
    ),
    Fault(
        "G3: users share one count",
        POLICY,
        "self._counted(self._ledger.holds.get(user),",
        "self._counted(next(iter(self._ledger.holds.values()), None),",
    ),
    Fault(
        "G3: another listing starts the count anew",
        POLICY,
        "        if earlier is None:\n",
        "        if earlier is None or earlier.reason != reason:\n",
    ),
    Fault(
        "G3, G14: a key that waits ends what was confirmed",
        POLICY,
        "self._listing.usable <= self._waiting",
        "False",
    ),
    Fault(
        "G3: what was confirmed stays so for ever",
        POLICY,
        "earlier.confirmed and not has_way_in(plans, opens_session)",
        "earlier.confirmed",
    ),
    Fault(
        "G3: a passed list without a usable key passes every lockout",
        POLICY,
        "not self._listing.keys and not (earlier and earlier.confirmed)",
        "not self._listing.keys",
    ),
    Fault(
        "G3: a failed poll ends the hold",
        BOOKKEEPING,
        "return ledger.failed(",
        "return replace(ledger, holds=ledger.holds if reports else {}).failed(",
    ),
    Fault("G3: early polls count", POLICY, "_EARLY = 0.9", "_EARLY = 0.0"),
    Fault(
        "G3: polls alone end a hold",
        LEDGER,
        "self.seen >= self.needed and self.waited_s >= self.wait_s",
        "self.seen >= self.needed",
    ),
    Fault(
        "G3: time alone ends a hold",
        LEDGER,
        "self.seen >= self.needed and self.waited_s >= self.wait_s",
        "self.waited_s >= self.wait_s",
    ),
    Fault(
        "G3: a lockout is quiet",
        "service/announce.py",
        "        if one.locked_out:\n",
        "        if False:\n",
    ),
    Fault(
        "G4: any account will do",
        POLICY,
        "if expected is None or listing.account_id == expected:",
        "if True:",
    ),
    Fault("G5: no journal", BOOKKEEPING, "            if removed:\n", "            if False:\n"),
    # ---- G11, G14 ----
    Fault(
        "G11: keys enter before the ledger knows them",
        BOOKKEEPING,
        "        return self._save()\n",
        "        self._save()\n        return True\n",
        needs_root=True,
    ),
    Fault(
        "G11: no revocation where the journal cannot be written",
        "service/target.py",
        "            self._update(file, records)\n\n",
        "\n",
        needs_root=True,
    ),
    Fault(
        "G3, G11: a journal that cannot be written locks out",
        "service/target.py",
        "if locks_out():",
        "if False:",
        needs_root=True,
    ),
    Fault(
        "G11: what could not be saved is forgotten at once",
        BOOKKEEPING,
        "if self.unsaved and _same(",
        "if False and _same(",
        needs_root=True,
    ),
    Fault(
        "G14: a waiting key enters",
        "service/terms.py",
        "if one.key.fingerprint not in waiting}",
        "if True}",
    ),
    Fault(
        "G14: a deleted key comes back while it waits",
        KNOWN_KEYS,
        "(listing.usable - waiting)",
        "listing.usable",
    ),
    Fault(
        "G14: a key that comes back does not wait",
        "service/additions.py",
        "return known is not None and known.is_accepted",
        "return known is not None",
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_fault_finds_its_place(fault: Fault) -> None:
    """A change of the agent's text must not make the check of a law vain unnoticed."""
    assert (REPOSITORY / "agent" / fault.file).read_text().count(fault.old) == 1


@pytest.mark.attack
@pytest.mark.timeout(900)
@pytest.mark.skipif(not LONG, reason="takes long: add --hypothesis-profile=long")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_model_finds(fault: Fault, tmp_path: Path) -> None:
    """A law that is broken is seen to be broken, by one of the twenty seeds."""
    if fault.needs_root and os.geteuid() != 0:
        pytest.skip(reason="needs root: only root makes a state that cannot be written")
    for name in _COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    file = tmp_path / "agent" / fault.file
    file.write_text(file.read_text().replace(fault.old, fault.new))
    words = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
    done = subprocess.run(
        [*words, "--full-sweep", "tests/attacks/test_model.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 1, done.stdout[-2000:]
    assert "AssertionError" in done.stdout, done.stdout[-2000:]
    assert "state.boot(" in done.stdout, done.stdout[-2000:]
