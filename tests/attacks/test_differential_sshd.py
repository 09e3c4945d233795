"""The keys that `keysync status` says can log in are those that a real sshd lets in."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from sandbox.instance import Instance
from tests.attacks import key_files
from tests.core.support import blob_of, make_key, security_key_blob, ssh_keygen, text_of
from tests.support.ask import MANY_QUESTIONS, Questioner
from tests.support.machine import Machine, fingerprint

pytestmark = pytest.mark.attack

_PARTS = 4
_FILES = int(os.environ.get("KEYSYNC_DIFFERENTIAL_FILES", "400")) // _PARTS
_CONNECTIONS = 7
_ONE_BY_ONE = (
    *key_files.VALID,
    *key_files.PAST,
    *key_files.INVALID,
    *key_files.FROM_HERE,
    *key_files.FROM_ELSEWHERE,
    *key_files.FROM_NOWHERE,
    *key_files.SERVICES,
)
_MADE = {
    "ed25519": ("-t", "ed25519"),
    "pinned": ("-t", "ed25519"),
    "authority": ("-t", "ed25519"),
    "rsa-1024": ("-t", "rsa", "-b", "1024"),
    "rsa-2048": ("-t", "rsa", "-b", "2048"),
    "ecdsa-256": ("-t", "ecdsa", "-b", "256"),
    "ecdsa-384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa-521": ("-t", "ecdsa", "-b", "521"),
    "dsa": ("-t", "dsa"),
}


@dataclass
class Scene:
    """One sshd, one keysync, and the keys that both are asked about."""

    instance: Instance
    machine: Machine
    sshd: Sequence[Questioner]  # several, since sshd takes its time before it refuses
    keys: Mapping[str, bytes]
    certificate: bytes  # signed by `authority` for the user and for `admin`
    counts: Counter[str] = field(default_factory=Counter)

    def compare(self, data: bytes) -> None:
        """Puts the file there, asks both about every key and fails where they disagree."""
        self.instance.authorized_keys.write_bytes(data)
        rows = self.rows()
        lines = data.split(b"\n")
        accepted = self._accepted()
        wrong = {}
        for name, key in self.keys.items():
            own = [row for row in rows if row["fingerprint"] == fingerprint(key.decode())]
            lets_in = accepted[blob_of(key)]
            self._count(own, accepted=lets_in)
            expected = _any(_lets_in(row, lines) for row in own)
            if expected not in (None, lets_in):
                wrong[name] = (f"sshd {lets_in}", own)
        authority = fingerprint(self.keys["authority"].decode())
        own = [row for row in rows if row["fingerprint"] == authority]
        lets_in = accepted[self.certificate]
        expected = _any(_lets_certificate_in(row, lines) for row in own)
        if expected not in (None, lets_in):
            wrong["certificate"] = (f"sshd {lets_in}", own)
        self.counts["files"] += 1
        assert not wrong, f"{wrong}\n{data!r}"

    def _accepted(self) -> dict[bytes, bool]:
        """What sshd says of every key and of the certificate."""
        blobs = [*map(blob_of, self.keys.values()), self.certificate]
        shares = [blobs[at :: len(self.sshd)] for at in range(len(self.sshd))]
        with ThreadPoolExecutor(len(shares)) as pool:
            found = pool.map(Questioner.accepted, self.sshd, shares)
            accepted = frozenset().union(*found)
        return {blob: blob in accepted for blob in blobs}

    def rows(self) -> list[dict[str, Any]]:
        """The keys of `status --json`."""
        done = self.machine.here("status", "--json")
        # No sync was ever made here, and a file may let nobody in: 75 and 4 are right.
        assert done.code in (4, 75), done.stdout + done.stderr
        [target] = json.loads(done.stdout)["targets"]
        found: list[dict[str, Any]] = target["keys"]
        return found

    def _count(self, rows: list[dict[str, Any]], *, accepted: bool) -> None:
        self.counts["keys"] += 1
        self.counts["accepted" if accepted else "refused"] += 1
        for row in rows:
            self.counts[f"{row['access']}: {row['login']}"] += 1


def _any(answers: Iterable[bool | None]) -> bool | None:
    """True, or None when one is not known, or False."""
    found = set(answers)
    return True if True in found else None if None in found else False


def _lets_in(row: dict[str, Any], lines: list[bytes]) -> bool | None:
    if row["login"] == "depends":
        return key_files.decides(lines[row["line"] - 1])
    return bool(row["login"] == "yes")


def _lets_certificate_in(row: dict[str, Any], lines: list[bytes]) -> bool | None:
    line = lines[row["line"] - 1]
    decided = key_files.decides(line)
    if row["login"] != "certificates" or decided is None:
        return None if row["login"] == "certificates" else False
    return decided and (key_files.FOR_ADMIN in line or "principals" not in row["options"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real keys of every type that ssh-keygen makes without hardware."""
    directory = tmp_path_factory.mktemp("differential")
    for name, flags in _MADE.items():
        make_key(directory, name, *flags)
    return directory


@pytest.fixture(scope="module")
def scene(made: Path) -> Iterator[Scene]:
    """A file that sshd and keysync both read, and no need for the console: status never asks it."""
    keys = {name: made / f"{name}.pub" for name in _MADE}
    lines = {name: path.read_bytes().rstrip() for name, path in keys.items() if path.exists()}
    assert lines.keys() >= _MADE.keys() - {"dsa"}
    for name in ("ed25519", "ecdsa-256"):
        plain = security_key_blob(blob_of(lines[name]))
        lines[f"{name}-sk"] = text_of(plain, f"{name}-sk").encode()
    with Instance(sshd_options=MANY_QUESTIONS) as instance:
        certificate = _certificate(made, instance.user)
        instance.authorize()
        machine = Machine(made)
        pin = json.dumps(lines["pinned"].decode())
        machine.options = f"pins: [{pin}]\n"
        path = json.dumps(str(instance.authorized_keys))
        machine.configure(targets=f"  - {{user: {instance.user}, path: {path}}}")
        with ExitStack() as stack:
            ways = [Questioner(instance.port, instance.user) for _ in range(_CONNECTIONS)]
            sshd = [stack.enter_context(way) for way in ways]
            yield Scene(instance, machine, sshd, lines, certificate)


def _certificate(made: Path, user: str) -> bytes:
    signed = made / "signed.pub"
    shutil.copy(made / "ed25519.pub", signed)
    names = f"{user},admin"
    authority = str(made / "authority")
    done = ssh_keygen("-q", "-s", authority, "-I", "c", "-n", names, str(signed))
    assert done.returncode == 0, done.stderr
    return blob_of((made / "signed-cert.pub").read_bytes())


def test_each_option_alone(scene: Scene) -> None:
    """R4, G3: whether a line lets its key in is judged as sshd judges it, for every value."""
    key = scene.keys["ed25519"]
    sets = {"yes": key_files.VALID, "depends": key_files.FROM_HERE + key_files.FROM_ELSEWHERE}
    for option in _ONE_BY_ONE:
        scene.compare(option + b" " + key + b"\n")
        [row] = scene.rows()
        expected = next((word for word, those in sets.items() if option in those), "no")
        if option not in key_files.SERVICES:
            assert row["login"] == expected, option


def test_each_class_of_lines(scene: Scene) -> None:
    """Managed, pinned, restricted and foreign, and of each whether the key gets in by it."""
    keys = scene.keys
    fronts = {
        "rsa-2048": (b"", b" " + key_files.TAG),
        "pinned": (b"", b" " + key_files.TAG),
        "ed25519": (b"", b""),
        "ecdsa-256": (b"restrict ", b""),
        "ecdsa-384": (b"no-such-option ", b""),
        "ecdsa-521": (key_files.FROM_HERE[0] + b" ", b""),
        "authority": (b"cert-authority ", b""),
    }
    lines = (front + keys[name] + behind for name, (front, behind) in fronts.items())
    scene.compare(b"\n".join(lines))
    assert [(row["access"], row["login"]) for row in scene.rows()] == [
        ("managed", "yes"),
        ("pinned", "yes"),
        ("foreign", "yes"),
        ("restricted", "yes"),
        ("restricted", "no"),
        ("restricted", "depends"),
        ("restricted", "certificates"),
    ]


@pytest.mark.parametrize(("login", "front"), key_files.LONG)
def test_long_lines(scene: Scene, login: str, front: bytes) -> None:
    """R4, G3: OpenSSH since 7.8 reads a line of any length; what keysync reads of it agrees."""
    scene.compare(front + scene.keys["ed25519"] + b"\n")
    assert [row["login"] for row in scene.rows()] == [login]


@pytest.mark.parametrize("accepted", [True, False])
def test_options_that_are_not_read(scene: Scene, *, accepted: bool) -> None:
    """G12: beyond keysync's bound sshd alone knows whether it takes the line; it may or may not."""
    key = scene.keys["ed25519"]
    last = b"pty " if accepted else b"no-such-option "
    scene.instance.authorized_keys.write_bytes(b"pty," * (1 << 20) + last + key + b"\n")
    assert [row["login"] for row in scene.rows()] == ["depends"]
    assert (blob_of(key) in scene.sshd[0].accepted([blob_of(key)])) is accepted


@pytest.mark.parametrize("number", range(_PARTS))
def test_generated_files(scene: Scene, number: int) -> None:
    """`status` says who can log in, and a real sshd agrees, whatever stands in the file."""
    before = scene.counts["files"]

    @seed(number)
    @settings(
        max_examples=_FILES,
        phases=[Phase.generate],  # a file is small already, and sshd slow to refuse
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(data=key_files.files(scene.keys))
    def compare(data: bytes) -> None:
        scene.compare(data)

    compare()
    sys.stdout.write(f"compared: {dict(scene.counts)}\n")  # pytest -s shows it
    assert scene.counts["files"] - before >= _FILES
    assert min(scene.counts["accepted"], scene.counts["refused"]) >= _FILES


@settings(max_examples=100)
@given(st.permutations(("plain", "elsewhere", "void")))
def test_one_line_that_lets_in_is_enough(scene: Scene, order: list[str]) -> None:
    """sshd(8): an unrestricted line opens the door whatever stands above it for the same key."""
    key = scene.keys["ed25519"]
    texts = {"plain": b"", "elsewhere": b'from="203.0.113.1" ', b"void": b""}
    scene.compare(b"".join(texts.get(name, b"no-such-option ") + key + b"\n" for name in order))
