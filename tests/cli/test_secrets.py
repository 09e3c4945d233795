"""No API key and no whole key in any output, whatever is said and at whatever level (G10)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.users import current_user
from tests.support.bad_server import BadServer, answer, eventually, hang, header, script
from tests.support.machine import (
    API_KEY,
    REPOSITORY,
    TAG,
    Machine,
    clean_environment,
    entry,
    key_line,
    listing,
)

LISTED = key_line("listed")
SECRET = "MARKEDPRIVATEKEYMATERIAL"
PRIVATE = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END OPENSSH PRIVATE KEY-----"
BAD = [
    PRIVATE,
    f'command="{SECRET}" {key_line("smuggled")}',
    f"{key_line('two')} {key_line('keys')}",
    f"{key_line('newline')}\n{key_line('second line')}",
    f"ssh-ed25519 {SECRET}",
    f"{SECRET} is no key",
    f"/root/{SECRET}.pub",
    f"ssh-rsa {key_line('wrong type').split()[1]}",
]
ON_DISK = [
    key_line("foreign"),
    f"{key_line('gone')} {TAG}",
    f'restrict,command="{SECRET}" {key_line("restricted")}',
    f'environment="TOKEN={SECRET}" {key_line("with environment")}',
    SECRET,
    f"# {SECRET}",
]


def marks() -> set[str]:
    """Every text that must not be seen: the secrets, and the middle of every key's data."""
    texts = " ".join([LISTED, *BAD, *ON_DISK, key_line("pin")])
    blobs = {word for word in texts.split() if word.startswith("AAAAC3") and len(word) > 60}
    assert len(blobs) >= 10
    return {SECRET, API_KEY, API_KEY[:16], *(blob[30:60] for blob in blobs)}


@pytest.fixture
def marked(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path, options=f"pins:\n  - {key_line('pin')}\n")
    machine.key_file.write_text("\n".join(ON_DISK) + "\n")
    return machine


COMMANDS = [
    ["sync", "--dry-run"],
    ["sync", "--dry-run", "--json"],
    ["sync", "--json"],
    ["sync"],
    ["status"],
    ["status", "--json"],
    ["config", "check"],
    ["config", "show"],
]


def test_commands(marked: Machine) -> None:
    """G10: fingerprints and the API key's last four characters, in every command at debug level."""
    good = answer(listing(LISTED, *BAD))
    with BadServer(good) as server:
        outputs = [
            marked.here(
                "--log-level", "debug", "--log-format", style, *command, VAST_URL=server.url
            )
            for command in COMMANDS
            for style in ("json", "console")
        ]
        assert all(header(head, "Authorization") == f"Bearer {API_KEY}" for head in server.heads)
    assert [done.code for done in outputs] == [0] * len(outputs)
    for done in outputs:
        for mark in marks():
            assert mark not in done.stdout + done.stderr
    assert API_KEY[-4:] in outputs[-1].stdout


FAILURES = [
    answer(b"", "401 Unauthorized"),
    answer(API_KEY.encode(), "500 Internal Server Error"),
    answer(listing(LISTED, *BAD)[:-2]),
    answer(PRIVATE.encode()),
    answer(b"", "302 Found", [f"Location: https://example.com/?key={API_KEY}"]),
    answer(b"", headers=[f"Content-Encoding: {API_KEY}"]),
    answer(str([entry(1, LISTED, 1), entry(2, LISTED, 2)]).replace("'", '"').encode()),
    f"HTTP/9 {API_KEY}\r\n\r\n".encode(),
]


@pytest.mark.parametrize("bad", FAILURES, ids=range(len(FAILURES)))
def test_failures(marked: Machine, bad: bytes) -> None:
    """G10: nor in what is said of a failure, or in what is remembered of it."""
    with BadServer(bad) as server:
        outputs = [
            marked.here("--log-level", "debug", *command, VAST_URL=server.url)
            for command in (["sync"], ["sync", "--json"], ["status"], ["status", "--json"])
        ]
    assert outputs[0].code not in (0, 1)
    state = (marked.state / "state.json").read_text()
    for text in [*(done.stdout + done.stderr for done in outputs), state]:
        for mark in marks():
            assert mark not in text


def test_key_files(marked: Machine) -> None:
    """G10, API key: an API key file that is refused is not quoted."""
    for content in (f"{API_KEY} {SECRET}", f"{API_KEY}\n{SECRET}", f"{API_KEY}\x7f"):
        marked.api_key_file.write_text(content)
        for command in (["sync"], ["sync", "--json"], ["config", "show"]):
            done = marked.here("--log-level", "debug", *command)
            for mark in (SECRET, API_KEY[:16]):
                assert mark not in done.stdout + done.stderr


def test_wrong_configuration(marked: Machine) -> None:
    """G10: a configuration into which somebody pasted a secret is refused without showing it."""
    marked.config.write_text(
        f"api:\n  key_file: {SECRET}\n  timeout: {SECRET}\n  url: {SECRET}\n"
        f"policy: {{unmanaged: {SECRET}, min_rsa_bits: {SECRET}}}\n"
        f"targets: [{{user: {current_user()}, path: {SECRET}}}]\n"
        f"pins:\n  - {SECRET}\n  - {BAD[1]!r}\nstate_dir: {SECRET}\n"
    )
    done = marked.here("config", "check")
    assert done.code == 78
    assert len(done.stderr.splitlines()) == 10
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("by_variable", [False, True])
def test_process_list(marked: Machine, by_variable: bool) -> None:
    """G10: while a request is on its way, no process shows the API key in its arguments."""
    environment = clean_environment() | {"HOME": str(marked.folder)}
    if by_variable:
        marked.api_key_file.unlink()
        text = marked.config.read_text()
        marked.config.write_text("".join(x for x in text.splitlines(True) if "key_file" not in x))
        environment["VAST_API_KEY"] = API_KEY
    command = [sys.executable, "-m", "agent", "--config", str(marked.config), "sync"]
    with BadServer(script(hang)) as server:
        environment["VAST_URL"] = server.url
        running = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL
        )
        try:
            assert eventually(lambda: len(server.heads) == 1)
            assert header(server.heads[0], "Authorization") == f"Bearer {API_KEY}"
            shown = [
                path.read_bytes()
                for path in Path("/proc").glob(f"{running.pid}/task/*/c*")
                if path.name in ("cmdline", "comm")
            ]
        finally:
            running.kill()
            running.wait()
    assert any(b"sync" in text for text in shown)
    assert all(API_KEY[:12].encode() not in text for text in shown)
