"""The bench measures what it says: real syncs, on real keys, each command by itself."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from agent.core.authorized_keys import LineKind, parse_line
from agent.core.key_entry import parse_entry
from bench.cold import FLOOR, SYNC, Cold
from bench.keys import file_lines, listed_lines
from bench.large import LINES, STEPS, Large, growth
from bench.measure import BenchError, Command, Cost, Sample, interleaved, run
from bench.options import OptionsGrowth, growth_per_byte
from bench.report import Results
from bench.serve import serving
from bench.site import Site
from sandbox.users import current_user

PYTHON = sys.executable


def cost(seconds: float) -> Cost:
    return Cost.of([Sample(seconds, seconds, 10_000_000)])


def large(*seconds: float) -> list[Large]:
    sizes = [LINES // 4, LINES // 2, LINES]
    return [
        Large(lines, lines // 50, step, cost(time))
        for step in STEPS
        for lines, time in zip(sizes, seconds, strict=True)
    ]


def test_every_listed_key_is_accepted() -> None:
    """The account's keys are usable, and no two are the same."""
    keys = {parse_entry(line, 2048)[0].blob for line in listed_lines(40)}
    assert len(keys) == 40


def test_the_file_holds_what_it_claims() -> None:
    """Of 20 lines 16 are plain keys, 2 restricted ones, 2 neither; no key is there twice."""
    lines = [parse_line(line.encode()) for line in file_lines(40)]
    kinds = Counter(line.kind for line in lines)
    assert kinds == {LineKind.PLAIN: 32, LineKind.RESTRICTED: 4, LineKind.OTHER: 4}
    assert len({line.key.blob for line in lines if line.key}) == 36


def test_a_measured_sync_is_a_real_one(tmp_path: Path) -> None:
    """The account's process gives its keys to the installed command, which adds them all."""
    path = tmp_path / "keys"
    with serving(1, 3) as accounts:
        keysync = Path(PYTHON).with_name("keysync")
        site = Site(tmp_path / "site", keysync, accounts[3], current_user(), path)
        site.write()
        run(site.sync("first", '"added": 3'), tmp_path)
        run(site.sync("second", '"result": "in_sync"'), tmp_path)
    assert [line.split()[1] for line in path.read_text().splitlines()] == [
        line.split()[1] for line in listed_lines(3)
    ]


def test_a_failed_command_gives_no_figure(tmp_path: Path) -> None:
    """An exit code that is not 0 ends the bench, and the message holds the command's own."""
    code = "import sys; print('no luck', file=sys.stderr); sys.exit(3)"
    with pytest.raises(BenchError, match=r"^exit 3 of: (?s:.)*no luck"):
        run(Command("fails", (PYTHON, "-c", code)), tmp_path)


def test_a_command_that_did_something_else_gives_no_figure(tmp_path: Path) -> None:
    """What does not say that it did its work was not measured."""
    with pytest.raises(BenchError, match="in_sync"):
        run(Command("silent", (PYTHON, "-c", "pass"), "in_sync"), tmp_path)


def test_the_peak_is_the_commands_own(tmp_path: Path) -> None:
    """Neither this process, which is larger, nor the command before counts in it."""
    held = bytearray(64_000_000)
    commands = [
        Command("large", (PYTHON, "-S", "-c", "bytearray(48_000_000)")),
        Command("small", (PYTHON, "-S", "-c", "pass")),
    ]
    costs = interleaved(commands, 2, tmp_path)
    assert costs["large"].peak_bytes > 48_000_000
    assert costs["small"].peak_bytes < 24_000_000 < len(held)


def test_growth_is_1_when_linear_and_4_when_quadratic() -> None:
    """The fixed cost of a start is no cost of the lines."""
    assert growth(large(0.2 + 1, 0.2 + 2, 0.2 + 4), STEPS[0], 0.2) == pytest.approx(1)
    assert growth(large(0.2 + 1, 0.2 + 4, 0.2 + 16), STEPS[0], 0.2) == pytest.approx(4)


def test_growth_per_byte_tells_linear_from_quadratic() -> None:
    """1 for a function that reads each byte once, 4 for one that copies the rest at each step."""
    assert growth_per_byte(list, b"a", 200_000) < 2
    assert growth_per_byte(lambda text: [text[at:] for at in range(len(text))], b"a", 4_000) > 2


def test_a_goal_is_met_or_missed() -> None:
    """Each goal says which, with its figure, and a row that could not be measured says why."""
    cold = Cold({FLOOR: cost(0.1), SYNC: cost(0.12)}, {"peer": "no such package"})
    options = OptionsGrowth("parse_options of pty,", 3.9)
    results = Results({"cores": 2}, cold, large(1, 2, 4), options)
    text = results.as_text()
    assert f"{SYNC}: 1.20 x floor, goal at most 1.25: met" in text
    assert "4.00 s, goal at most 3: missed" in text
    assert "peer: not measured: no such package" in text
    goals = json.loads(results.as_json())["goals"]
    assert [goal["met"] for goal in goals] == [True, False, True, True, True, False]
