"""Writes the software bill of materials of a wheel beside it: CycloneDX 1.6 in JSON.

Runs in .venv-audit. What is in it, and from where: names, versions and hashes from
requirements/runtime.lock, by cyclonedx-py; licences from the metadata of what .venv holds, by
cyclonedx-py; who needs whom from the lock's own notes (`# via`), since they are right for every
Python at once; keysync itself from the wheel.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

REPOSITORY = Path(__file__).parents[1]
LOCK = REPOSITORY / "requirements/runtime.lock"
_PIN = re.compile(r"([a-z0-9-]+)==([^\s;]+)")
Json = dict[str, Any]  # CycloneDX's own form; the validator below is its type


def main(wheel: Path) -> int:
    """Writes `<name>-<version>.cdx.json`; ends with 1 when the schema does not allow it."""
    keysync = describe_wheel(wheel)
    bill = cyclonedx("requirements", str(LOCK))
    licences = {
        purl(component): component["licenses"]
        for component in cyclonedx("environment", str(REPOSITORY / ".venv"))["components"]
        if {"licenses", "purl"} <= component.keys()
    }
    for component in bill["components"]:
        del component["description"]  # the line of the lock once more
        component["bom-ref"] = component["purl"]
        if component["purl"] in licences:
            component["licenses"] = licences[component["purl"]]
    bill["components"].sort(key=purl)
    bill["metadata"]["component"] = keysync
    bill["dependencies"] = dependencies(LOCK.read_text(), keysync["bom-ref"])
    text = json.dumps(bill, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        print(f"keysync: the bill of materials is not valid: {problem}", file=sys.stderr)
        return 1
    name = f"{keysync['name']}-{keysync['version']}.cdx.json"
    wheel.with_name(name).write_text(text, encoding="utf-8")
    return 0


def cyclonedx(*words: str) -> Json:
    """What cyclonedx-py says, without the time and the random number that it would add."""
    options = ("--spec-version", "1.6", "--output-reproducible", "--no-validate")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", *words, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    found: Json = json.loads(done.stdout)
    return found


def purl(component: Json) -> str:
    """The component's package URL."""
    return str(component["purl"])


def describe_wheel(wheel: Path) -> Json:
    """keysync as the component that the bill is about, with the wheel's hash."""
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        fields = HeaderParser().parsestr(archive.read(metadata).decode())
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    # Not pkg:pypi: the project of that name on PyPI is another one.
    reference = f"pkg:generic/{fields['Name']}@{fields['Version']}?checksum=sha256:{digest}"
    return {
        "type": "application",
        "bom-ref": reference,
        "purl": reference,
        "name": fields["Name"],
        "version": fields["Version"],
        "description": fields["Summary"],
        "licenses": [{"expression": fields["License-Expression"], "acknowledgement": "declared"}],
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }


def dependencies(lock: str, keysync: str) -> list[Json]:
    """The graph: each package with what it needs, as the notes below each pin tell."""
    needs: dict[str, set[str]] = {keysync: set()}
    names: dict[str, list[str]] = {"keysync": [keysync]}
    notes: list[tuple[str, Iterable[str]]] = []
    for entry in re.split(r"(?m)^(?=[a-z0-9])", lock):
        if pin := _PIN.match(entry):
            reference = f"pkg:pypi/{pin[1]}@{pin[2]}"
            needs[reference] = set()
            names.setdefault(pin[1], []).append(reference)
            notes.append((reference, re.findall(r"(?m)^ +# +(?:via +)?([a-z0-9][\w-]*)", entry)))
    for reference, needed_by in notes:
        for name in set(needed_by) - {"via"}:
            for user in names[name]:
                needs[user].add(reference)
    return [{"ref": ref, "dependsOn": sorted(needs[ref])} for ref in sorted(needs)]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
