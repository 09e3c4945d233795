"""What fails although keysync does not expect it: told with its place, and as what it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.machine import REPOSITORY, Machine, clean_environment, key_line

SECRET = "marked-secret-of-the-exception"
# Stands for a library that breaks while a command runs; a line of it would be quoted.
CHAIN = """\
import os
secret = os.environ["MARKED"]
def first():
    raise PermissionError(13, secret, secret)
def second():
    import no_such_library
try:
    try:
        first()
    except OSError:
        second()
except ImportError as error:
    raise ValueError(secret) from error
"""
CIRCLE = """\
one, two = KeyError("one"), IndexError("two")
one.__cause__, two.__cause__ = two, one
raise one
"""
# A read that fails names no file: nothing is mapped at the beginning of the memory (proc(5)).
UNREADABLE = "open('/proc/self/mem', 'rb').read(1)\n"
GONE = "import os\nr, w = os.pipe()\nos.close(r)\nos.write(w, b'x')\n"
NUMBERED = "import ssl\nraise ssl.SSLError(1, 'x')\n"


def status_with(machine: Machine, library: str) -> tuple[int, str]:
    """The exit code and stderr of `keysync status` where PyYAML is this instead."""
    folder = machine.folder / "broken"
    folder.mkdir()
    (folder / "yaml.py").write_text(library)
    done = machine.process("status", PYTHONPATH=str(folder), MARKED=SECRET)
    assert done.stdout == ""
    return done.code, done.stderr


def test_a_defect_is_told_with_all_that_led_to_it(machine: Machine) -> None:
    """G10: each kind and where it was raised, in order; of the exceptions' texts nothing."""
    code, told = status_with(machine, CHAIN)
    assert code == 1
    parts = [
        *(", in first\n", "PermissionError: Permission denied\n"),
        *(", in second\n", "ModuleNotFoundError: no_such_library\n"),
        *(
            "agent/config_yaml.py",
            "\nValueError\nkeysync: Internal error (ValueError); details withheld, ",
        ),
        "please report it",
    ]
    places = [told.find(part) for part in parts]
    assert -1 not in places, told
    assert places == sorted(places), told
    assert SECRET not in told


def test_a_circle_of_causes_comes_to_an_end(machine: Machine) -> None:
    """Commands: a defect is told whatever the exceptions say of each other."""
    code, told = status_with(machine, CIRCLE)
    assert code == 1
    assert "\nIndexError\n" in told
    assert told.endswith(
        "(KeyError); details withheld, they may contain secrets.\n"
        "This is a bug in keysync: please report it with the lines above.\n"
    )


def test_a_number_of_a_library_is_no_errno(machine: Machine) -> None:
    """Commands: OpenSSL's error 1 is not the system's, which is about permission."""
    _, told = status_with(machine, NUMBERED)
    assert "\nSSLError\n" in told


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (UNREADABLE, "OSError: Input/output error\n"),
        (GONE, "BrokenPipeError: Broken pipe\n"),
    ],
)
def test_another_file_is_not_the_result(machine: Machine, library: str, said: str) -> None:
    """Commands: what fails in reading is told as that, with its place, and not as a full stdout."""
    code, told = status_with(machine, library)
    assert code == 1
    assert "could not be written" not in told
    assert "broken/yaml.py" in told
    assert said in told


@pytest.mark.parametrize("keys", [1, 40, 400])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_result_without_room(machine: Machine, keys: int, form: list[str]) -> None:
    """Commands: that is said once, with exit code 1, however much of it came before the end."""
    lines = "".join(key_line(str(at)) + "\n" for at in range(keys))
    machine.key_file.write_text(lines)
    command = [sys.executable, "-m", "agent", "--config", str(machine.config), "status", *form]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=clean_environment() | {"HOME": str(machine.folder)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    said = "keysync: The result could not be written: No space left on device.\n"
    assert (done.returncode, done.stderr) == (1, said)
