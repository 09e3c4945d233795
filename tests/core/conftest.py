"""Real keys, made once in a session by the machine's own ssh-keygen."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.core.support import KEY_TYPES, blob_of, make_key, security_key_blob, ssh_keygen, text_of
from tests.support.once import made_once

_FLAGS = {
    "ed25519": ("-t", "ed25519"),
    "rsa-1024": ("-t", "rsa", "-b", "1024"),
    "rsa-2048": ("-t", "rsa", "-b", "2048"),
    "rsa-3072": ("-t", "rsa", "-b", "3072"),
    "rsa-4096": ("-t", "rsa", "-b", "4096"),
    "ecdsa-256": ("-t", "ecdsa", "-b", "256"),
    "ecdsa-384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa-521": ("-t", "ecdsa", "-b", "521"),
    "dsa": ("-t", "dsa"),
}
_WITHOUT = {"dsa"}  # OpenSSH 10 and some builds before it make and read no DSA key


def _make_keys(folder: Path) -> None:
    with ThreadPoolExecutor() as pool:  # the other workers wait for the primes of the RSA keys
        found = pool.map(lambda name: make_key(folder, name, *_FLAGS[name]), _FLAGS)
        made = dict(zip(_FLAGS, found, strict=True))
    assert {name for name, line in made.items() if line is None} <= _WITHOUT


def _line(folder: Path, name: str) -> bytes:
    return (folder / f"{name}.pub").read_bytes().rstrip(b"\n")


@pytest.fixture(scope="session")
def made_keys(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """A public line of every type that this ssh-keygen makes without hardware, by name."""
    folder = made_once(tmp_path_factory, "made-keys", _make_keys)
    return {name: _line(folder, name) for name in _FLAGS if (folder / f"{name}.pub").exists()}


@pytest.fixture(scope="session")
def keys(made_keys: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """The made keys, and an `sk-` key around two of them, since those need hardware to be made."""
    built = {
        f"{name}-sk": text_of(security_key_blob(blob_of(made_keys[name])), f"{name}-sk").encode()
        for name in ("ed25519", "ecdsa-256")
    }
    found = {line.split(b" ")[0] for line in (*made_keys.values(), *built.values())}
    assert found >= set(KEY_TYPES) - {b"ssh-dss"}
    return {**made_keys, **built}


@pytest.fixture(scope="session")
def certificates(
    tmp_path_factory: pytest.TempPathFactory, made_keys: Mapping[str, bytes]
) -> Mapping[str, bytes]:
    """A certificate for each made key, signed by one more key (ssh-keygen(1), CERTIFICATES)."""
    directory = tmp_path_factory.mktemp("certificates")
    make_key(directory, "authority", "-t", "ed25519")
    for name, line in made_keys.items():
        path = directory / f"{name}.pub"
        path.write_bytes(line + b"\n")
        authority = str(directory / "authority")
        done = ssh_keygen("-q", "-s", authority, "-I", name, "-n", "root", str(path))
        assert done.returncode == 0, done.stderr
    return {name: _line(directory, f"{name}-cert") for name in made_keys}
