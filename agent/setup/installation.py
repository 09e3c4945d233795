"""Whether keysync and the libraries that it needs are installed whole.

pip puts a package's files in place one by one and its list of them (RECORD) last, so that an
interrupted installation can be seen before anything relies on it.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path

from agent.errors import TargetFailed

_NAME = re.compile(r"[\w.-]+")


def check_installation() -> None:
    """Raises TargetFailed when a library, or a file of one, is missing or cut short."""
    broken = _find_broken("keysync", set())
    if broken:
        names = ", ".join(sorted(broken))
        raise TargetFailed(
            "installation_incomplete",
            f"keysync is not installed whole in {sys.prefix}: {names} "
            "is missing or lacks files, so a service could not run. Nothing was changed.",
            _how_to_mend(),
        )


def _how_to_mend() -> str:
    if sys.prefix == sys.base_prefix:  # the system's own Python, which nobody may remove
        return "Install keysync into a virtual environment of its own, as docs/install.md says."
    return f"Remove {sys.prefix} and install keysync anew, as docs/install.md says."


def _find_broken(name: str, seen: set[str]) -> list[str]:
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in seen:
        return []
    seen.add(name)
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return [name]
    broken = [] if _is_whole(found) else [name]
    for text in found.requires or ():
        needed, condition = _NAME.match(text), text.partition(";")[2]
        # A condition is about another Python or an extra: what it asks for may well be absent.
        if needed and not (condition and not _is_known(needed[0])):
            broken += _find_broken(needed[0], seen)
    return broken


def _is_known(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _is_whole(found: Distribution) -> bool:
    """Every file has its size; what the system's own packages hold is theirs to check."""
    if sys.prefix == sys.base_prefix or not _is_below(Path(str(found.locate_file(""))), sys.prefix):
        return True
    files = [file for file in found.files or () if file.suffix != ".pyc"]
    return bool(files) and all(map(_is_there, files))


def _is_there(file: PackagePath) -> bool:
    """Whole, too; but a script in bin/ has another first line once its folder was moved."""
    path = Path(str(file.locate()))
    return path.is_file() and (".." in file.parts or file.size in (None, path.stat().st_size))


def _is_below(path: Path, folder: str) -> bool:
    return Path(folder).resolve() in path.resolve().parents
