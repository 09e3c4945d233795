"""G10, attacked: every command and the daemon, with marks where secrets are; none is ever seen.

Eight characters of the API key that follow each other, the middle of a public key and private key
text are marks. Only the API key's last four characters may be shown. What a removed line or a key
file's first bytes held is kept for its restoring (G5), in files that are root's alone: those hold
public keys by their nature, but no API key.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.adapters.sshd_config import Sshd
from tests.network.support import PAGE, error_body, refused
from tests.service.support import SLOW, Agent, ServiceManager
from tests.support.bad_server import (
    BadServer,
    Script,
    answer,
    eventually,
    hang,
    header,
    script,
    swallow,
)
from tests.support.machine import (
    API_KEY,
    REPOSITORY,
    TAG,
    Machine,
    clean_environment,
    key_line,
    listing,
)
from tests.support.marks import PRIVATE_KEY, PRIVATE_TEXT, leaks, marked_keys

pytestmark = pytest.mark.attack

NAMES = ("listed", "new", "gone", "foreign", "restricted", "pin", "smuggled", "one", "two", "raw")
KEYS = marked_keys(*NAMES)
ESCAPED = "".join(f"\\u{ord(char):04X}" for char in API_KEY)
LISTED = [
    key_line("listed"),
    key_line("new"),
    f"{key_line('one')} {API_KEY}",
    f"{key_line('raw')} {API_KEY}",
    PRIVATE_KEY,
    PRIVATE_KEY.replace("\n", " "),
    f"ssh-ed25519 {PRIVATE_TEXT}",
    f'command="{PRIVATE_TEXT}" {key_line("smuggled")}',
    f"{key_line('one')}\n{key_line('two')}",
    API_KEY,
    f"/root/{PRIVATE_TEXT}",
]
ON_DISK = [
    key_line("foreign"),
    f"{key_line('gone')} {TAG}",
    f'restrict,command="{PRIVATE_TEXT}" {key_line("restricted")}',
    *PRIVATE_KEY.splitlines(),
    f"# {PRIVATE_TEXT}",
]
# The first comment with the API key has it in escapes, the others as it is.
GOOD = answer(listing(*LISTED).replace(API_KEY.encode(), ESCAPED.encode(), 1))
STYLES = ("json", "console")


def fresh(folder: Path) -> Machine:
    """A machine with marks in its key file, its pins and its API key."""
    machine = Machine(folder, options=f"pins:\n  - {key_line('pin')}\n{SLOW}")
    machine.key_file.write_text("\n".join(ON_DISK) + "\n")
    return machine


@pytest.fixture
def marked(tmp_path: Path) -> Machine:
    return fresh(tmp_path)


def kept_files(machine: Machine) -> Iterator[tuple[str, str]]:
    """What keysync remembers; all of it is for its owner alone."""
    assert stat.S_IMODE(machine.state.stat().st_mode) == 0o700
    for path in machine.state.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        yield path.name, path.read_text("utf-8", "backslashreplace")


def check_kept(machine: Machine) -> None:
    """The state tells nothing; originals and the journal of lines tell no API key."""
    names = set()
    for name, text in kept_files(machine):
        names.add(name)
        more = KEYS if name.startswith("state.json") else []
        found = leaks(text, *more)
        allowed = {PRIVATE_TEXT} if name.endswith(".bytes") else set()
        assert set(found) <= allowed, name
    assert "state.json" in names


# Every command

SYNCS = [
    ["sync", "--dry-run"],
    ["sync", "--dry-run", "--json"],
    ["sync", "--wait", "0", "--json"],
    ["sync"],
    ["sync", "--confirm-removals"],
    ["sync", "--accept-account", "4711"],
]
OTHERS = [
    ["status"],
    ["status", "--json"],
    ["config", "check"],
    ["config", "show"],
    ["install", "--dry-run"],
    ["uninstall", "--dry-run", "--yes"],
    ["--help"],
    ["--version"],
    ["sync", "--help"],
]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("by_variable", [False, True], ids=["by file", "by variable"])
def test_every_command(tmp_path: Path, style: str, by_variable: bool) -> None:
    """G10: each command as a process at debug level, with the API key from either place."""
    machine = fresh(tmp_path)
    environment = {"KEYSYNC_NOTE": "unused"}
    if by_variable:
        environment["VAST_API_KEY"] = API_KEY
        text = machine.config.read_text().replace("  key_file:", "  # key_file:")
        machine.config.write_text(text)
        machine.api_key_file.unlink()
    with BadServer(GOOD) as server:
        environment["VAST_URL"] = server.url
        for command in [*SYNCS, *OTHERS]:
            flags = ["--log-level", "debug", "--log-format", style]
            done = machine.process(*flags, *command, **environment)
            assert "defect" not in done.stderr
            assert leaks(done.stdout + done.stderr, *KEYS) == [], command
        assert len(server.heads) >= len(SYNCS)
        assert {header(head, "Authorization") for head in server.heads} == {f"Bearer {API_KEY}"}
    assert "new" in machine.key_file.read_text()
    check_kept(machine)


def test_original(marked: Machine) -> None:
    """G5, G10: what was in a key file comes back when it is asked for, and only there."""
    before = marked.key_file.read_bytes()
    with BadServer(GOOD) as server:
        assert marked.here("sync", VAST_URL=server.url).code == 0
    done = marked.here("original", str(marked.key_file))
    assert (done.stdout.encode(), done.stderr) == (before, "")
    for wrong in (API_KEY, key_line("one").split()[1], f"/x/{'y' * 40}"):
        done = marked.here("original", wrong)
        assert (done.code, leaks(done.stdout + done.stderr, *KEYS)) == (74, [])


@pytest.mark.parametrize(
    "words",
    [
        [API_KEY],
        ["sync", API_KEY],
        ["sync", f"--{API_KEY}"],
        ["sync", "--wait", API_KEY],
        ["sync", "--accept-account", API_KEY],
        ["sync", f"--json={API_KEY}"],
        ["--log-level", API_KEY, "sync"],
        ["--log-format", API_KEY, "sync"],
        ["config", API_KEY],
        ["status", key_line("one")],
        ["sync", PRIVATE_KEY.replace("-----BEGIN", "BEGIN")],
        ["uninstall", API_KEY],
        ["install", API_KEY],
        ["run", API_KEY],
    ],
    ids=range(14),
)
def test_wrong_usage(marked: Machine, words: list[str]) -> None:
    """G10: a secret where it does not belong is wrong usage, and is not repeated."""
    done = marked.here(*words)
    assert done.code == 2
    assert "error: " in done.stderr
    assert leaks(done.stdout + done.stderr, *KEYS) == []


@pytest.mark.parametrize(
    "url",
    [
        f"https://{API_KEY}@console.vast.ai",
        f"https://user:{API_KEY}@console.vast.ai",
        f"https://console.vast.ai:{API_KEY}",
        f"https://console.vast.ai/?api_key={API_KEY}",
        f"https://console.vast.ai/#{API_KEY}",
        f"https://{API_KEY}",
        f"https://[{API_KEY}]",
        API_KEY,
    ],
    ids=range(8),
)
@pytest.mark.parametrize("command", [["sync", "--json"], ["config", "check"], ["config", "show"]])
def test_api_key_in_the_address(marked: Machine, url: str, command: list[str]) -> None:
    """G10: an address with the API key in it is refused without being repeated."""
    for environment in ({"VAST_URL": url}, {}):
        if not environment:
            marked.url = json.dumps(url)
            marked.configure()
        done = marked.here(*command, **environment)
        assert done.code == 78
        assert leaks((done.stdout + done.stderr).upper(), api_key=API_KEY.upper()) == []


def test_api_key_file_as_the_configuration(marked: Machine) -> None:
    """G10: nor is a file that is not the configuration repeated."""
    for content in (API_KEY, f"{API_KEY}: x", PRIVATE_KEY, f"{{{API_KEY}", f"a: !{API_KEY} x"):
        marked.config.write_text(content)
        done = marked.here("config", "check")
        assert done.code == 78
        shown = leaks(done.stderr)
        assert shown == [], content


# Every failure

ECHO = f"GET /api/v0/ssh/ Authorization: Bearer {API_KEY}"
FAILURES: dict[str, Script | bytes] = {
    "401 with the header": refused("401 No", error_body("auth_error", ECHO)),
    "403 with a piece": refused("403 No", error_body("auth_error", f"Bad key {API_KEY[:20]}...")),
    "404 in escapes": refused("404 No", b'{"msg": "%s"}' % ESCAPED.encode()),
    "404 in the middle": refused("404 No", error_body("x", f"key={API_KEY[10:40]}&a=b")),
    "429 with a limit for it": refused("429 No", b'{"detail": "%s"}' % API_KEY.encode()),
    "500 with the request": refused("500 No", ECHO.encode()),
    "500 in JSON": refused("500 No", error_body(API_KEY, ECHO)),
    "500 in UTF-16": refused("500 No", json.dumps({"msg": ECHO}).encode("utf-16")),
    "its reason": refused(f"500 {API_KEY}"),
    "a page": answer(PAGE + ECHO.encode()),
    "200 with an error": answer(error_body("oops", ECHO)),
    "200 with an error in escapes": answer(b'{"error": "%s"}' % ESCAPED.encode()),
    "text": answer(ECHO.encode()),
    "private text": answer(PRIVATE_KEY.encode()),
    "a redirect to it": refused("302 Found", b"", f"Location: https://example.com/?k={API_KEY}"),
    "a strange redirect": refused("302 Found", b"", f"Location: {API_KEY}:{API_KEY}"),
    "an encoding": answer(b"x", headers=[f"Content-Encoding: {API_KEY}"]),
    "an encoding in part": answer(b"x", headers=[f"Content-Encoding: x-{API_KEY[5:]}"]),
    "a next page": answer(b'{"ssh_keys": [], "next": "?k=%s"}' % API_KEY.encode()),
    "a link": answer(b"[]", headers=[f'Link: <?k={API_KEY}>; rel="next"']),
    "a version": f"HTTP/9 {API_KEY}\r\n\r\n".encode(),
    "a header": answer(b"[]", headers=[f"{API_KEY}"]),
    "a length": answer(b"[]", headers=[f"Content-Length: {API_KEY}"], length=None),
    "a chunk": answer(API_KEY.encode(), headers=["Transfer-Encoding: chunked"], length=None),
    "an ETag and a 304": refused("304 No", b"", f'ETag: "{API_KEY}"'),
    "Retry-After": refused("429 No", b"", f"Retry-After: {API_KEY}"),
    "a name twice": answer(b'{"%s": 1, "%s": 2}' % (API_KEY.encode(), API_KEY.encode())),
    "an account": answer(json.dumps([{"user_id": API_KEY}, {"user_id": 1}]).encode()),
    "no TLS": script(swallow, API_KEY.encode(), at_once=True),
}


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure(marked: Machine, name: str) -> None:
    """G10: a server that repeats the API key, or shows private text, puts it nowhere."""
    with BadServer(FAILURES[name]) as server:
        url = server.url.replace("http:", "https:") if name == "no TLS" else server.url
        for style in STYLES:
            for command in (["sync"], ["sync", "--json"], ["status"], ["status", "--json"]):
                flags = ["--log-level", "debug", "--log-format", style]
                done = marked.here(*flags, *command, VAST_URL=url)
                assert done.code not in (1, 2)
                if command[0] == "sync":
                    assert done.code != 0
                assert leaks(done.stdout + done.stderr, *KEYS) == [], command
    check_kept(marked)


def test_hiding_keeps_the_rest(marked: Machine) -> None:
    """G10, API key: what is hidden is the key, and not the words around it."""
    said = f"c 0123456 b {API_KEY[3:12]} a {API_KEY}"
    with BadServer(refused("401 No", error_body("auth_error", said))) as server:
        message = marked.here("sync", "--json", VAST_URL=server.url).json["error"]["message"]
    assert "c 0123456 b [the API key] a [the API key]" in message
    assert "…wxyz from" in message


# The daemon


def test_daemon(tmp_path: Path) -> None:
    """G10: polls that succeed and fail, a reload and a wrong one, and the end: nothing is in the
    log, in what systemd is told, or in what other users see of the process.
    """
    machine = fresh(tmp_path)
    bad = [FAILURES[name] for name in ("401 with the header", "500 in JSON", "text", "an encoding")]
    with BadServer(GOOD, *bad, GOOD) as server, ServiceManager(tmp_path) as manager:
        machine.url = server.url
        machine.configure()
        program = ("-m", "agent", "--log-level", "debug")
        variables = {**manager.environment, "VAST_API_KEY": API_KEY}
        with Agent(machine, variables, program) as agent:
            agent.wait_for("sync.completed")
            for polls in range(2, len(bad) + 3):
                agent.send(signal.SIGUSR1)
                asked = eventually(lambda desired=polls: len(server.heads) >= desired)  # type: ignore[misc]  # reason: mypy cannot type a lambda's default
                assert asked
                assert leaks(seen_of(agent.process.pid), *KEYS) == []
            agent.wait_for("sync.recovered")
            machine.config.write_text(f"api: {{url: 'https://{API_KEY}', key_file: {API_KEY}}}\n")
            agent.send(signal.SIGHUP)
            agent.wait_for("config.rejected")
            assert agent.stop()[0] == 0
        told = "\n".join(manager.messages)
        assert "sync" in told
        assert leaks(told, *KEYS) == []
    log = (tmp_path / "log").read_text()
    assert log.count("key.rejected") >= 6
    assert leaks(log, *KEYS) == []
    check_kept(machine)


def seen_of(pid: int) -> bytes:
    """What anybody can read of a process and its threads: arguments, names, states."""
    parts = []
    for task in os.listdir(f"/proc/{pid}/task"):
        for name in ("cmdline", "comm", "status"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended
                parts.append(Path(f"/proc/{pid}/task/{task}/{name}").read_bytes())
    assert parts
    return b"\n".join(parts)


# Defects, signals, cores


def run_agent(machine: Machine, *words: str, **environment: str) -> subprocess.Popen[bytes]:
    """Starts the program with its standard streams in pipes."""
    command = [sys.executable, "-m", "agent", "--config", str(machine.config), *words]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=clean_environment() | {"HOME": str(machine.folder)} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


BROKEN = "import os\nraise ValueError(open(os.environ['SECRET_FILE']).read() + ' is in here')\n"


def test_traceback_of_a_defect(marked: Machine, tmp_path: Path) -> None:
    """G10: a library that is broken and speaks of the API key in its exception: exit code 1,
    where it happened, and not what the exception said.
    """
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "httpx.py").write_text(BROKEN)
    variables = {"PYTHONPATH": str(tmp_path / "broken"), "SECRET_FILE": str(marked.api_key_file)}
    done = marked.process("sync", **variables)
    assert done.code == 1
    assert "ValueError" in done.stderr
    assert "agent/service/cycle.py" in done.stderr
    assert leaks(done.stdout + done.stderr, *KEYS) == []
    with Agent(marked, variables) as agent:
        failed = agent.wait_for("agent.failed")
        assert failed["kind"] == "ValueError"
        assert agent.stop()[0] == 0
    assert leaks((tmp_path / "log").read_text()) == []


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGTERM, signal.SIGINT])
def test_ended_in_the_middle_of_a_request(marked: Machine, number: signal.Signals) -> None:
    """G10: the stacks that a crash leaves on stderr name code, not values; and there is no core,
    which would hold the API key, whatever the limit was that the agent was started with.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    with BadServer(script(hang)) as server:
        before = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))
        try:
            process = run_agent(marked, "sync", VAST_URL=server.url, PYTHONFAULTHANDLER="1")
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, before)
        assert eventually(lambda: len(server.heads) == 1)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        [core] = [line for line in limits.splitlines() if line.startswith("Max core")]
        assert core.split()[4:6] == ["0", "0"]
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode not in (0, None)
    assert leaks(out + err, *KEYS) == []
    if number in (signal.SIGABRT, signal.SIGSEGV):
        assert b"agent/adapters/http.py" in err


# Children

RECORDER = """\
#!/bin/sh
cat /proc/$$/cmdline /proc/$$/environ | tr '\\0' '\\n' >"$0.seen"
echo authorizedkeysfile .ssh/authorized_keys
"""


def test_children_know_no_api_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """G10: a program that keysync asks, as `sshd -T`, has the API keys in neither its arguments
    nor its environment; all else that it may need is there.
    """
    program = tmp_path / "sshd"
    program.write_text(RECORDER)
    program.chmod(0o755)
    for name in ("VAST_API_KEY", "CONTAINER_API_KEY"):
        monkeypatch.setenv(name, API_KEY)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    found = Sshd(str(tmp_path)).key_files(pwd.getpwuid(os.getuid()))
    assert found.problem is None
    seen = (tmp_path / "sshd.seen").read_text()
    assert "\n-T\n" in seen
    assert "\nLC_ALL=C.UTF-8\n" in seen
    assert leaks(seen) == []
