"""`python -m sandbox`: the Keys page, an instance and the agent beside it, until Ctrl-C."""

import argparse
import errno
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sandbox.console import Console
from sandbox.daemon import SshdError
from sandbox.directory import DirectoryError
from sandbox.instance import InstanceError
from sandbox.stage import StageError, instance_with_agent
from sandbox.users import UserError

_EXPECTED = (DirectoryError, InstanceError, OSError, SshdError, StageError, UserError)
_MOST_PORT = 65535
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Serve until a signal says to end; 0 then, 1 when something could not be started."""
    options = _options()
    with _wish_to_end() as wait:
        try:
            with ExitStack() as stack:
                _serve(options, stack)
                wait()
                print("Ending.", flush=True)
        except _EXPECTED as error:
            print(f"python -m sandbox: {error}", file=sys.stderr)
            return 1
    return 0


def _serve(options: argparse.Namespace, stack: ExitStack) -> None:
    if options.directory is not None:
        options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if options.ready_file is not None and options.ready_file.is_dir():
        raise IsADirectoryError(f"--ready-file {options.ready_file} is a folder; name a file in it")
    console = _console(options, stack)
    stack.callback(console.world.close)
    credentials = console.world.credentials
    addresses: dict[str, object] = {
        "console_url": console.url,
        "api_key": credentials.api_key,
        "login": credentials.login,
        "password": credentials.password,
    }
    if not options.console_only:
        instance = stack.enter_context(instance_with_agent(console))
        addresses.update(
            ssh_host=instance.ssh_host, ssh_port=instance.ssh_port, ssh_user=instance.ssh_user
        )
    if options.ready_file is not None:
        console.world.ready_file = options.ready_file
        stack.enter_context(_ready(options.ready_file, addresses))
    _tell(addresses)


def _console(options: argparse.Namespace, stack: ExitStack) -> Console:
    console = Console(port=options.port, directory=options.directory)
    try:
        return stack.enter_context(console)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        message = f"port {options.port} of 127.0.0.1 is taken; leave --port out, or name another"
        raise OSError(message) from None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument(
        "--ready-file",
        metavar="FILE",
        type=Path,
        help="write addresses and credentials there, as one JSON object, when everything answers",
    )
    parser.add_argument(
        "--directory",
        metavar="DIR",
        type=Path,
        help="keep the account there, and find it again (default: fresh, and gone at the end)",
    )
    parser.add_argument("--port", type=_port, default=0, help="the console's port (default: any)")
    parser.add_argument("--console-only", action="store_true", help="no instance and no agent")
    return parser.parse_args()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _MOST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 (any) to {_MOST_PORT}")
    return int(text)


@contextmanager
def _wish_to_end() -> Iterator[Callable[[], object]]:
    """What waits for a signal; one that comes during the start is kept until somebody waits.

    So none can tear what is being set up or cleared away.
    """
    reader, writer = os.pipe()
    before = {
        number: signal.signal(number, lambda *_: os.write(writer, b".")) for number in _SIGNALS
    }
    try:
        yield lambda: os.read(reader, 1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


@contextmanager
def _ready(path: Path, addresses: Mapping[str, object]) -> Iterator[None]:
    """The file, whole or not there, closed to others and gone when nothing answers any more."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with open(descriptor, "w") as file:
            json.dump(addresses, file)
        os.replace(name, path)
    except OSError:
        os.unlink(name)
        raise
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


def _tell(addresses: Mapping[str, object]) -> None:
    print(f"The Keys page   {addresses['console_url']}")
    print(f"  log in with   {addresses['login']}  {addresses['password']}")
    print(f"API key         {addresses['api_key']}")
    if "ssh_port" in addresses:
        where = f"{addresses['ssh_user']}@{addresses['ssh_host']}"
        print(f"The instance    ssh -p {addresses['ssh_port']} {where}")
    print("Ctrl-C ends everything.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
