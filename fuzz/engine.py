"""One target under atheris, in this process: `python -m fuzz.engine TARGET [libFuzzer's words]`.

With the path of a file as the last word it runs that one input: so a finding is reproduced.
"""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    program, name, *words = sys.argv
    with atheris.instrument_imports(include=["agent"]):
        from fuzz.targets import BROKEN, TARGETS

    target = {**TARGETS, **BROKEN}[name]
    atheris.Setup([program, f"-max_len={target.max_bytes}", *words], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
