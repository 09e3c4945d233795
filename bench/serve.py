"""The console in a process of its own: `python -m bench.serve COUNT...`, an account for each.

Prints one JSON line, serves until its standard input ends, and so never outlives who started it.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from starlette.responses import PlainTextResponse

from bench.keys import listed_lines
from bench.venvs import REPOSITORY
from sandbox.console import Console
from sandbox.server import Server

_END_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Account:
    """Where the first `keys` of the listed keys are served: by the API, and as plain text."""

    keys: int
    url: str
    api_key: str
    text_url: str


@contextlib.contextmanager
def serving(*counts: int) -> Iterator[dict[int, Account]]:
    """The accounts, by their number of keys."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.serve", *map(str, counts)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process, which then ends that one
    )
    try:
        assert process.stdout is not None
        accounts = [Account(**found) for found in json.loads(process.stdout.readline())]
        yield {account.keys: account for account in accounts}
    finally:
        try:
            process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def main(counts: Sequence[int]) -> None:
    """Serves until told to end."""
    with contextlib.ExitStack() as stack:
        accounts = [_serve(count, stack) for count in counts]
        print(json.dumps([asdict(account) for account in accounts]), flush=True)
        sys.stdin.read()


def _serve(count: int, stack: contextlib.ExitStack) -> Account:
    console = stack.enter_context(Console())
    lines = listed_lines(count)
    for line in lines:
        console.add_key(line)
    text = "".join(f"{line}\n" for line in lines)
    # The same text for every request, as ssh-import-id expects it.
    server = stack.enter_context(Server(PlainTextResponse(text)))
    return Account(count, console.url, console.api_key, server.url)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
