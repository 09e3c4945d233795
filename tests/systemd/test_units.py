"""The units as files: what systemd itself says of them, and that both have one sandbox."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.systemd.machine import BOOT, REPOSITORY, SERVICE

_PROGRAM = "/opt/keysync/bin/keysync"
_MOST_EXPOSURE = "20"  # in tenths: 2.0 of 10
# What is a service's own; everything else in [Service] is account and sandbox.
_OWN = (
    "Type=",
    "NotifyAccess=",
    "Exec",
    "Restart",
    "SuccessExitStatus=",
    "TimeoutSt",
    "WatchdogSec=",
    "SyslogLevel=",
)


def _analyze(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip(reason="needs systemd-analyze, from the package systemd")
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip(reason="needs the systemd-analyze of systemd 250 or newer")
    return done


def _lines(unit: str) -> list[str]:
    text = (REPOSITORY / "systemd" / unit).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("unit", [SERVICE, BOOT])
def test_systemd_finds_no_fault(unit: str, tmp_path: Path) -> None:
    """Every setting is known and well-formed, and everything a unit refers to can be found."""
    # Where keysync is not installed, another program has to stand in for it.
    for name in (SERVICE, BOOT):
        text = (REPOSITORY / "systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace(_PROGRAM, "/bin/true"))
    done = _analyze("verify", "--man=no", "--recursive-errors=yes", str(tmp_path / unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", [SERVICE, BOOT])
def test_the_exposure_stays_low(unit: str) -> None:
    """What systemd rates as exposure is at most 2.0, lower than a plain root service can be."""
    path = str(REPOSITORY / "systemd" / unit)
    done = _analyze("security", "--offline=yes", f"--threshold={_MOST_EXPOSURE}", path)
    assert done.returncode == 0, done.stdout


def test_both_units_have_the_same_sandbox() -> None:
    """The sandbox stands in two files, since systemd has no place for it that is read by both."""

    def sandbox(unit: str) -> list[str]:
        lines = _lines(unit)
        inside = lines[lines.index("[Service]") + 1 : lines.index("[Install]")]
        return sorted(line for line in inside if not line.startswith(_OWN))

    assert sandbox(BOOT) == sandbox(SERVICE)


def test_sshd_never_depends_on_keysync() -> None:
    """Only an order is set: what is required or bound could keep sshd down."""
    for unit in (SERVICE, BOOT):
        assert not [
            line for line in _lines(unit) if line.startswith(("Requi", "BindsTo", "PartOf"))
        ]
    assert "Before=ssh.service sshd.service" in _lines(BOOT)
