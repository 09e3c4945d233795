"""The virtual environments that are measured: the wheel as users get it, and the peer."""

import os
import subprocess
import sys
from pathlib import Path

from bench.measure import BenchError

REPOSITORY = Path(__file__).resolve().parent.parent
_PEER = "ssh-import-id"


def keysync_venv(directory: Path) -> Path:
    """keysync from the one wheel in dist/, its libraries exactly as runtime.lock says.

    Gives the folder of its commands; pip compiles the bytecode.
    """
    wheels = sorted((REPOSITORY / "dist").glob("*.whl"))
    if len(wheels) != 1:
        raise BenchError(f"dist/ holds {len(wheels)} wheels instead of one: run make bench")
    commands = _venv(directory)
    lock = REPOSITORY / "requirements" / "runtime.lock"
    _pip(commands, "--require-hashes", "-r", str(lock))
    _pip(commands, "--no-deps", "--no-index", str(wheels[0]))
    return commands


def peer_venv(directory: Path) -> Path:
    """The newest ssh-import-id. Raises BenchError when it is not to be had."""
    commands = _venv(directory)
    _pip(commands, _PEER)
    return commands


def peer_name(commands: Path) -> str:
    """What was installed, with its version."""
    code = f"from importlib.metadata import version; print(version({_PEER!r}))"
    return f"{_PEER} {_output([str(commands / 'python'), '-c', code]).strip()}"


def _venv(directory: Path) -> Path:
    _output([sys.executable, "-m", "venv", str(directory)])
    return directory / "bin"


def _pip(commands: Path, *words: str) -> None:
    options = ["--disable-pip-version-check", "--no-input", "-q", "install"]
    _output([str(commands / "python"), "-m", "pip", *options, *words])


def _output(words: list[str]) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise BenchError(f"{' '.join(words[1:4])} failed: {said[-1]}")
    return done.stdout
