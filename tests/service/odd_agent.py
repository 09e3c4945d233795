"""`keysync run`, put together for two tests: with little patience, or with a defect in it."""

from __future__ import annotations

import dataclasses
import os
import sys

from agent import config_file
from agent.config import Config
from agent.log import make_emit
from agent.service.daemon import Daemon
from tests.support.machine import API_KEY


class _Defect:
    """Fails at every use, with a text that nobody may see."""

    def __getattr__(self, name: str) -> object:
        raise LookupError(f"{name}: Bearer {API_KEY}")


def main() -> int:
    """Arguments: `impatient` or `defect`, and those of `keysync run`."""
    kind, _, path, *_ = sys.argv[1:]
    defects: list[object] = [_Defect()] if kind == "defect" else []

    def load() -> Config:
        """The configuration as it is, but for the first time a defect may be in it."""
        config = config_file.load(path, os.environ)
        return dataclasses.replace(config, api_url=defects.pop()) if defects else config  # type: ignore[arg-type]  # reason: the defect

    patience = {"patience": 1.0} if kind == "impatient" else {}
    return Daemon(load, os.environ, make_emit("info", "json", sys.stderr), **patience).run()


if __name__ == "__main__":
    sys.exit(main())
