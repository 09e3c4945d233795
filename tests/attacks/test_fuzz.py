"""All that reads foreign bytes, under a coverage-guided fuzzer and under random edits.

The long run is `make fuzz`; what must hold is in fuzz/checks_*.py.
"""

from __future__ import annotations

import importlib.util
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.__main__ import fuzz, main
from fuzz.targets import TARGETS, Target
from tests.support.machine import REPOSITORY

pytestmark = pytest.mark.attack

# A slow machine does ten times as much; a run that does less did not fuzz at all.
_LEAST_EXECUTIONS = 200
_LEAST_COVERAGE = 20


@pytest.fixture
def needs_atheris() -> None:
    """pyproject.toml says where atheris can be had; there it must not be missing."""
    if importlib.util.find_spec("atheris") is None:
        there = sys.version_info >= (3, 11) and platform.machine() == "x86_64"
        assert not there, "atheris is in requirements/dev.lock but not installed; run make fuzz"
        pytest.skip(reason="there is no atheris to install for this version of Python or processor")


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(
    name: str, tmp_path: Path, needs_atheris: None, full_sweep: bool
) -> None:
    """G1, G2, R6: whatever the bytes, a value or a named refusal, and nothing lost."""
    run = fuzz(name, 3 if full_sweep else 1, tmp_path)
    assert run.ended_well, run.log.read_text(errors="replace")
    assert not run.findings
    assert run.executions >= _LEAST_EXECUTIONS
    assert run.coverage >= _LEAST_COVERAGE
    assert run.corpus >= 1


def test_a_fault_is_found_and_can_be_reproduced(
    tmp_path: Path, needs_atheris: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fuzzer that cannot find anything proves nothing."""
    words = ["--seconds", "20", "--target", "broken", "--folder", str(tmp_path)]
    assert main(words) == 1
    [found] = (tmp_path / "broken" / "findings").iterdir()
    assert b"PRIVATE KEY" in found.read_bytes()
    said = capsys.readouterr()
    assert shlex.split(said.out.splitlines()[-1])[-5:] == [
        sys.executable,
        "-m",
        "fuzz.engine",
        "broken",
        str(found),
    ]
    assert "AssertionError" in said.err
    again = [sys.executable, "-m", "fuzz.engine", "broken", str(found)]
    done = subprocess.run(again, cwd=REPOSITORY, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0
    assert b"AssertionError" in done.stdout + done.stderr


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_inputs_hold(name: str) -> None:
    """G1, G2, R6, without the fuzzer: for each well-formed input to begin with."""
    seeds = TARGETS[name].seeds()
    assert seeds
    for data in seeds:
        TARGETS[name].check(data)


@st.composite
def _edited(draw: st.DrawFn, target: Target) -> bytes:
    """An input to begin with, into which up to four pieces of it or of noise were put."""
    seeds = target.seeds()
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        at, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        other = draw(st.sampled_from(seeds))
        start = draw(st.integers(0, len(other)))
        noise = draw(st.binary(max_size=4) | st.just(other[start : start + 40]))
        data = data[:at] + noise + data[min(end, at + draw(st.integers(0, 40))) :]
    return data


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=150)
@given(data=st.data())
def test_edited_inputs_hold(name: str, data: st.DataObject) -> None:
    """G1, G2, R6: the same on every Python and machine, where there is no atheris too."""
    target = TARGETS[name]
    target.check(data.draw(_edited(target)))
