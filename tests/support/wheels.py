"""keysync's own wheel, and wheels of what it needs, made from this virtual environment: an
installation that needs no network and gets the locked versions.
"""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
_NOT_IN_WHEELS = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")


def build_wheel(folder: Path) -> Path:
    """keysync's wheel, built from this checkout."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run(
        [*build, str(REPOSITORY)], check=True, stdin=subprocess.DEVNULL, capture_output=True
    )
    [wheel] = folder.glob("keysync-*.whl")
    return wheel


def make_wheelhouse(folder: Path) -> None:
    """A wheel of everything that keysync needs to run, as it is installed here."""
    for name in sorted(_needed("keysync") - {"keysync"}):
        _pack(distribution(name), folder)


def _needed(name: str) -> set[str]:
    """The distribution and all that it requires, on this Python, without extras."""
    found: set[str] = set()
    pending = [name]
    while pending:
        name = canonicalize_name(pending.pop())
        if name in found:
            continue
        found.add(name)
        for text in distribution(name).requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                pending.append(requirement.name)
    return found


def _pack(found: Distribution, folder: Path) -> None:
    """The inverse of an installation: the files of RECORD that lie within site-packages."""
    name = re.sub(r"[-_.]+", "_", found.metadata["Name"]).lower()
    tags = re.findall(r"(?m)^Tag: (\S+)-(\S+)-(\S+)$", found.read_text("WHEEL") or "")
    tag = "-".join(".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True))
    rows = []
    with zipfile.ZipFile(folder / f"{name}-{found.version}-{tag}.whl", "w") as wheel:
        record = ""
        for path in found.files or ():
            if path.name == "RECORD":
                record = str(path)
            if not _is_shipped(path):
                continue
            wheel.writestr(str(path), Path(str(path.locate())).read_bytes())
            rows.append((str(path), "", ""))
        rows.append((record, "", ""))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        wheel.writestr(record, text.getvalue())


def _is_shipped(path: PurePosixPath) -> bool:
    in_info = path.parent.name.endswith(".dist-info")
    made = in_info and path.name in _NOT_IN_WHEELS
    return ".." not in path.parts and path.suffix != ".pyc" and not made
