"""`python -m bench`: measures the one wheel in dist/ and prints what it costs."""

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import tempfile
from pathlib import Path

from bench.cold import measure_cold
from bench.large import measure_large
from bench.measure import BenchError
from bench.options import measure_options
from bench.report import Results, describe_machine
from bench.venvs import REPOSITORY, keysync_venv


def main() -> int:
    """0 when everything was measured, whatever the figures are."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    build = REPOSITORY / "build"
    build.mkdir(exist_ok=True)
    try:
        # Not under /tmp, which is memory on many machines: a sync that waits for its disk shall.
        with tempfile.TemporaryDirectory(prefix="bench-", dir=build) as directory:
            results = _measure(Path(directory), options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        with contextlib.suppress(OSError):  # something else is in it
            build.rmdir()
    print(results.as_text())
    if options.json:
        options.json.write_text(results.as_json())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there as well")
    parser.add_argument("--runs", type=int, default=25, help="runs of each cold start (25)")
    parser.add_argument("--large-runs", type=int, default=3, help="runs of the large file; 0: none")
    return parser


def _measure(home: Path, options: argparse.Namespace) -> Results:
    os.umask(0o022)
    machine = describe_machine(home)
    _say("installing the wheel into a virtual environment of its own")
    commands = keysync_venv(home / "venv")
    _say("measuring cold starts")
    results = Results(machine, measure_cold(commands, home, options.runs), [])
    if options.large_runs:
        _say("measuring the large file")
        large = measure_large(commands, home, options.large_runs)
        results = dataclasses.replace(results, large=large)
    _say("measuring long options")
    return dataclasses.replace(results, options=measure_options())


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
