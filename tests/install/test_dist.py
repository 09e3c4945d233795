"""`make dist`: wheel, source archive, bill of materials and checksums, the same for everybody."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.install.support import sha256
from tests.support.locks import read_pins
from tests.support.machine import REPOSITORY
from tests.support.wheels import audit_python

_VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(str(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()) or "") or 0)
"""


def _git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@localhost")
    subprocess.run(["git", "-C", folder, *who, *words], check=True, capture_output=True)


def _make_dist(folder: Path, *, umask: int) -> Path:
    for name in (".venv", ".venv-audit"):
        (folder / name).symlink_to(REPOSITORY / name)
        with (folder / ".git/info/exclude").open("a") as exclude:
            exclude.write(f"/{name}\n")
    done = subprocess.run(
        [folder / "tools/dist.sh"], capture_output=True, text=True, check=False, umask=umask
    )
    assert done.returncode == 0, done.stderr
    assert "differ from commit" not in done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of this checkout as a commit of its own, and what is made of them."""
    audit_python()
    folder = tmp_path_factory.mktemp("first") / "here"
    listed = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(["git", "-C", REPOSITORY, *listed], check=True, capture_output=True)
    for name in filter(None, names.stdout.decode().split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    _git(folder.parent, "init", "-q", "here")
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", "as it is")
    return _make_dist(folder, umask=0o022)


def _bill(dist: Path) -> dict[str, Any]:
    [path] = dist.glob("*.cdx.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _wheel(dist: Path) -> Path:
    [path] = dist.glob("*.whl")
    return path


def test_the_same_commit_gives_the_same_bytes(
    first: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Another folder, another umask, other times of the files: every file of dist/ is the same."""
    folder = tmp_path_factory.mktemp("second") / "elsewhere"
    _git(folder.parent, "clone", "-q", str(first.parent), str(folder))
    second = _make_dist(folder, umask=0o077)
    made = [{path.name: sha256(path) for path in dist.iterdir()} for dist in (first, second)]
    assert made[0] == made[1]
    assert len(made[0]) == 4


def test_the_checksums_are_of_all_files(first: Path) -> None:
    """SHA256SUMS is what the installation from a release is checked against."""
    lines = (first / "SHA256SUMS").read_text().splitlines()
    assert {line.split()[1]: line.split()[0] for line in lines} == {
        path.name: sha256(path) for path in first.iterdir() if path.name != "SHA256SUMS"
    }


def test_the_bill_is_valid(first: Path) -> None:
    """By the schema of CycloneDX 1.6, with nothing in it that the schema does not know."""
    for text, code in ((json.dumps(_bill(first)), 0), ('{"bomFormat": "CycloneDX"}', 1)):
        done = subprocess.run(
            [audit_python(), "-c", _VALIDATE],
            input=text,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, done.stderr


def test_the_bill_lists_the_runtime_lock(first: Path) -> None:
    """Each library, version and hash of the lock, and none besides."""
    found = {
        (part["name"], part["version"], part["purl"]): frozenset(
            one["content"] for location in part["externalReferences"] for one in location["hashes"]
        )
        for part in _bill(first)["components"]
    }
    assert found == {
        (pin.name, pin.version, f"pkg:pypi/{pin.name}@{pin.version}"): pin.hashes
        for pin in read_pins("runtime")
    }
    licensed = [part["name"] for part in _bill(first)["components"] if "licenses" in part]
    assert {"httpx", "paramiko", "pyyaml", "structlog", "apscheduler"} <= set(licensed)


def test_the_bill_is_about_this_wheel(first: Path) -> None:
    """keysync itself, with version, licence and hash, and not under PyPI's project of that name."""
    about = _bill(first)["metadata"]["component"]
    wheel = _wheel(first)
    assert about["hashes"] == [{"alg": "SHA-256", "content": sha256(wheel)}]
    assert wheel.name == f"{about['name']}-{about['version']}-py3-none-any.whl"
    assert about["licenses"][0]["expression"] == "MIT"
    assert about["purl"].startswith("pkg:generic/keysync@")


def test_the_graph_is_whole(first: Path) -> None:
    """From keysync every component is reached, by edges that the libraries' own metadata names."""
    bill = _bill(first)
    edges = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    names = {part["bom-ref"]: part["name"] for part in bill["components"]}
    root = bill["metadata"]["component"]["bom-ref"]
    assert edges.keys() == names.keys() | {root}
    direct = {names[ref] for ref in edges[root]}
    assert direct == {"apscheduler", "httpx", "paramiko", "pyyaml", "structlog"}
    reached: set[str] = set()
    waiting = [root]
    while waiting:
        ref = waiting.pop()
        waiting += set(edges[ref]) - reached
        reached |= {ref}
    assert reached == edges.keys()


def test_the_wheel_holds_the_lock(first: Path) -> None:
    """Whoever has the wheel's checksum has those of all libraries; the archive holds both locks."""
    lock, build = (
        (REPOSITORY / f"requirements/{name}.lock").read_bytes() for name in ("runtime", "build")
    )
    with zipfile.ZipFile(_wheel(first)) as wheel:
        assert wheel.read("agent/share/runtime.lock") == lock
    [archive] = first.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        for name, data in (("runtime", lock), ("build", build)):
            [path] = [one for one in files.getnames() if one.endswith(f"requirements/{name}.lock")]
            member = files.extractfile(path)
            assert member is not None
            with member:
                assert member.read() == data
