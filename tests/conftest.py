"""Hypothesis: no deadlines, since machines are shared; the same examples in every CI run."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# For the model check (tests/attacks/test_model.py): an hour or so on a quiet machine.
settings.register_profile("long", deadline=None, max_examples=3000)
settings.load_profile("ci" if os.environ.get("CI") else "local")
