"""keysync's own wheel, and the very wheels that its locks name: an installation without network,
with the hash checks of a real one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def build_wheel(folder: Path) -> Path:
    """keysync's wheel, built from this checkout."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run(
        [*build, str(REPOSITORY)], check=True, stdin=subprocess.DEVNULL, capture_output=True
    )
    [wheel] = folder.glob("keysync-*.whl")
    return wheel


def locked_wheels() -> list[Path]:
    """Downloaded once by tools/setup.sh, as `make` does before the tests; here when that is due."""
    set_up("wheels")
    return sorted((REPOSITORY / ".wheels").glob("*.whl"))


def audit_python() -> Path:
    """The interpreter that sees pip-audit and cyclonedx-py, and nothing of the project's own."""
    set_up("audit")
    return REPOSITORY / ".venv-audit/bin/python"


def set_up(part: str) -> None:
    """Makes one part ready; quick when it is."""
    done = subprocess.run(
        [REPOSITORY / "tools/setup.sh", part],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
