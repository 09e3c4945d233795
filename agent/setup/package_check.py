"""Whether keysync and its libraries are completely installed.

pip writes a package's files one by one and its list of files (RECORD) last, so an interrupted
installation can be detected before anything relies on it.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path

from agent.errors import TargetFailed

_NAME = re.compile(r"[\w.-]+")


def check_installation() -> None:
    """Raises TargetFailed when a library, or a file of one, is missing or truncated."""
    broken = _find_broken("keysync", set())
    if broken:
        names = ", ".join(sorted(broken))
        raise TargetFailed(
            "installation_incomplete",
            f"keysync is not completely installed in {sys.prefix}: {names} "
            "is missing or lacks files, so a service could not run. Nothing was changed.",
            _how_to_repair(),
        )


def _how_to_repair() -> str:
    if sys.prefix == sys.base_prefix:  # the system's own Python, which must not be removed
        return "Install keysync into a virtual environment of its own, as docs/install.md says."
    return f"Remove {sys.prefix} and install keysync again, as docs/install.md says."


def _find_broken(name: str, seen: set[str]) -> list[str]:
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in seen:
        return []
    seen.add(name)
    found = _installed(name)
    if found is None:
        return [name]
    broken = [] if _is_complete(found) else [name]
    for text in found.requires or ():
        needed, condition = _NAME.match(text), text.partition(";")[2]
        # A condition may be about another Python or an extra: then the library may be absent.
        if needed and not (condition and _installed(needed[0]) is None):
            broken += _find_broken(needed[0], seen)
    return broken


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _is_complete(found: Distribution) -> bool:
    """Whether every file has its size; the system's own packages are not checked."""
    if sys.prefix == sys.base_prefix or not _is_below(Path(str(found.locate_file(""))), sys.prefix):
        return True
    files = [file for file in found.files or () if file.suffix != ".pyc"]
    return bool(files) and all(map(_has_its_size, files))


def _has_its_size(file: PackagePath) -> bool:
    """A script in bin/ need only exist: its first line changes when its folder is moved."""
    path = Path(str(file.locate()))
    return path.is_file() and (".." in file.parts or file.size in (None, path.stat().st_size))


def _is_below(path: Path, folder: str) -> bool:
    return Path(folder).resolve() in path.resolve().parents
