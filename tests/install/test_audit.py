"""`make audit`: the real pip-audit against an advisory source on loopback that tells the truth, has
bad news, or is not there. Only the first is a pass.
"""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.locks import REQUIREMENTS, read_pins
from tests.support.machine import REPOSITORY
from tests.support.wheels import audit_python

pytestmark = pytest.mark.attack
PASSED, VULNERABLE, UNTOLD = 0, 1, 75
# RFC 863's port: privileged, and nothing listens there.
NOBODY = "http://127.0.0.1:9/v1/query"


@dataclass
class Source:
    """An advisory source that speaks OSV's query protocol, and what it was asked."""

    url: str
    bad: dict[tuple[str, str], str] = field(default_factory=dict)
    answers: dict[tuple[str, str], tuple[int, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """For one query: what the test said, else the advisories that it knows."""
        query = json.loads(body)
        pin = (query["package"]["name"], query["version"])
        self.asked.append(pin)
        if pin in self.answers:
            return self.answers[pin]
        if pin not in self.bad:
            return 200, b"{}"
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}]
        affected = [{"package": {"name": pin[0], "ecosystem": "PyPI"}, "ranges": ranges}]
        advisory = {"id": self.bad[pin], "summary": "bad", "affected": affected}
        return 200, json.dumps({"vulns": [advisory]}).encode()


@pytest.fixture
def source() -> Iterator[Source]:
    """One that knows no vulnerability yet."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # reason: http.server's name for it
            status, body = found.answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Source(f"http://127.0.0.1:{server.server_port}/v1/query")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def _audit(url: str, *locks: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [audit_python(), REPOSITORY / "tools/audit.py", "--osv-url", url, *locks],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _lock(folder: Path, *pins: str) -> Path:
    path = folder / "some.lock"
    path.write_text("".join(f"{pin} \\\n    --hash=sha256:{'0' * 64}\n" for pin in pins))
    return path


def test_every_library_of_every_lock_is_asked_about(source: Source) -> None:
    """A pass means: each name and version, also those that only another Python installs."""
    done = _audit(source.url)
    assert done.returncode == PASSED, done.stdout + done.stderr
    assert "audit: passed" in done.stdout
    locks = [path.stem for path in REQUIREMENTS.glob("*.lock")]
    expected = {(pin.name, pin.version) for lock in locks for pin in read_pins(lock)}
    assert {name for name, _ in expected} >= {"httpx", "pytest", "hatchling", "pip-audit"}
    assert sorted(source.asked) == sorted(expected)


def test_a_known_vulnerability_fails(source: Source, tmp_path: Path) -> None:
    """Exit code 1, with the library, the advisory and the version that mends it."""
    source.bad["h11", "0.14.0"] = "GHSA-vqfr-h8mv-ghfj"
    done = _audit(source.url, _lock(tmp_path, "h11==0.14.0", "idna==3.20"))
    assert done.returncode == VULNERABLE
    assert "VULNERABLE h11 0.14.0: GHSA-vqfr-h8mv-ghfj (fixed in 99.1)" in done.stdout
    assert "passed" not in done.stdout


def test_a_vulnerability_counts_when_another_answer_fails(source: Source, tmp_path: Path) -> None:
    """Bad news is not lost because the source failed at a second version of a library."""
    source.bad["pycparser", "3.11"] = "PYSEC-1"
    source.answers["pycparser", "3.12"] = (500, b"")
    done = _audit(source.url, _lock(tmp_path, "pycparser==3.11", "pycparser==3.12"))
    assert done.returncode == VULNERABLE


@pytest.mark.parametrize(
    "answer",
    [(500, b""), (404, b"{}"), (200, b"<html>log in</html>"), (200, b""), (200, b'{"vulns": 7}')],
    ids=["500", "404", "page", "empty", "shape"],
)
def test_an_unusable_answer_is_no_pass(
    source: Source, tmp_path: Path, answer: tuple[int, bytes]
) -> None:
    """A mirror without advisories, or a portal's page, for one library of three: skipped, 75."""
    source.answers["idna", "3.20"] = answer
    done = _audit(source.url, _lock(tmp_path, "h11==0.16.0", "idna==3.20", "invoke==3.0.3"))
    assert done.returncode == UNTOLD
    assert "audit: SKIPPED" in done.stdout
    assert "This is not a pass" in done.stdout
    assert "passed" not in done.stdout


def test_without_a_source_it_says_so(tmp_path: Path) -> None:
    """Nothing listens: an exit code of its own, and a sentence that cannot be read as a pass."""
    done = _audit(NOBODY, _lock(tmp_path, "h11==0.16.0"))
    assert done.returncode == UNTOLD
    assert "advisory source not reachable" in done.stdout
    assert "Connection refused" in done.stdout
    assert "passed" not in done.stdout


def test_an_empty_lock_is_no_pass(source: Source, tmp_path: Path) -> None:
    """Nothing to ask about means that the wrong file was read."""
    assert _audit(source.url, _lock(tmp_path)).returncode == UNTOLD
