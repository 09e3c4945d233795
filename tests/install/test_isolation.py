"""G13: nobody chooses the code that root runs, whatever lies in the environment's way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.machine import REPOSITORY, Machine, clean_environment
from tests.support.wheels import build_wheel

_PLANT = "import os\nopen({mark!r}, 'a').write(__name__ + '\\n')\n"
_MODULES = ("agent/__init__.py", "sitecustomize.py", "usercustomize.py", "yaml.py", "httpx.py")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """keysync's program as pip installs it from the wheel, with the libraries of this venv."""
    folder = tmp_path_factory.mktemp("isolation")
    venv = folder / "with a blank"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    wheel = build_wheel(folder)
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin/python"), "install", "-q"]
    subprocess.run(
        [*pip, "--no-deps", "--no-index", str(wheel)], check=True, stdin=subprocess.DEVNULL
    )
    [packages] = venv.glob("lib/python*/site-packages")
    [libraries] = {path for path in sys.path if path.endswith("site-packages") and ".venv" in path}
    (packages / "libraries.pth").write_text(libraries + "\n")
    return venv / "bin/keysync"


def plant(folder: Path, mark: Path) -> None:
    """Modules that write down that they were run."""
    for name in _MODULES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(_PLANT.format(mark=str(mark)))


def hostile(folder: Path, mark: Path) -> tuple[Path, dict[str, str]]:
    """A current directory and an environment in which somebody planted modules everywhere."""
    here, path, home = folder / "here", folder / "path", folder / "home"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for location in (here, path, home / f".local/lib/{version}/site-packages"):
        plant(location, mark)
    (folder / "startup.py").write_text(_PLANT.format(mark=str(mark)))
    return here, clean_environment() | {
        "HOME": str(home),
        "PYTHONPATH": str(path),
        "PYTHONUSERBASE": str(home / ".local"),
        "PYTHONSTARTUP": str(folder / "startup.py"),
        "PYTHONHOME": str(path),
        "PYTHONINSPECT": "1",
    }


@pytest.mark.parametrize("words", [("sync",), ("run",), ("status",), ("--version",)])
def test_no_planted_module_runs(program: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Incident 21: by PYTHONPATH, the current directory or the user's own packages."""
    mark = tmp_path / "mark"
    here, environment = hostile(tmp_path, mark)
    options = "polll: {}\n" if words == ("run",) else ""  # it ends at once
    machine = Machine(tmp_path, options=options)
    done = subprocess.run(
        [program, "--config", str(machine.config), *words],
        cwd=here,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = {"sync": 75, "run": 78, "status": 4, "--version": 0}[words[0]]
    assert done.returncode == expected, done.stderr
    assert not mark.exists(), mark.read_text()


def test_the_planted_modules_would_run(program: Path, tmp_path: Path) -> None:
    """The scene is a real one: the same Python without -I runs them."""
    mark = tmp_path / "mark"
    here, environment = hostile(tmp_path, mark)
    del environment["PYTHONHOME"]
    subprocess.run(
        [program.parent / "python", "-m", "agent"],
        cwd=here,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert {"sitecustomize", "agent"} <= set(mark.read_text().split())


def test_a_link_leads_to_the_right_python(program: Path, tmp_path: Path) -> None:
    """Commands: install makes /usr/local/bin/keysync, which is found by PATH."""
    (tmp_path / "keysync").symlink_to(program)
    done = subprocess.run(
        ["keysync", "--version"],
        env={"PATH": f"{tmp_path}:{os.defpath}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("keysync ")


@pytest.mark.parametrize(
    "name",
    [
        "systemd/keysync.service",
        "systemd/keysync-boot.service",
        "container/keysync.conf",
        "container/40-keysync.sh",
        "container/onstart.sh",
    ],
)
def test_what_starts_keysync_starts_this_program(name: str) -> None:
    """G13: units, supervisor, boot hook and onstart script call it and no Python without -I."""
    lines = (REPOSITORY / name).read_text().splitlines()
    code = [line for line in lines if not line.lstrip().startswith(("#", ";"))]
    assert any("/opt/keysync/bin/keysync " in line for line in code)
    for line in code:
        assert "/pip " not in line
        for rest in line.split("python3 ")[1:] + line.split("/python ")[1:]:
            assert rest.startswith("-I ") or "install --no-install" in line, line
