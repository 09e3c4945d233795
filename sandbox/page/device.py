"""A browser's User-Agent in plain words, for people who ask: which of my devices is this?"""

import re

# The first that is found counts: most browsers also name the ones they descend from.
_PROGRAMS = (
    ("Edge", re.compile(r"Edg(?:e|A|iOS)?/(\d+)")),
    ("Opera", re.compile(r"OPR/(\d+)")),
    ("Samsung Internet", re.compile(r"SamsungBrowser/(\d+)")),
    ("Firefox", re.compile(r"(?:Firefox|FxiOS)/(\d+)")),
    ("headless Chrome", re.compile(r"HeadlessChrome/(\d+)")),
    ("Chrome", re.compile(r"(?:Chrome|CriOS|Chromium)/(\d+)")),
    ("Safari", re.compile(r"Version/(\d+).* Safari/")),
    ("curl", re.compile(r"curl/(\d+)")),
    ("a Python program", re.compile(r"python-[a-z]+/()")),
)
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)


def in_words(user_agent: str) -> str:
    """For example `Firefox 128 on Linux`; of an unknown one only that it is unknown."""
    program = _program(user_agent)
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    if not program:
        return f"an unknown program on {system}" if system else "an unknown device"
    return f"{program} on {system}" if system else program


def _program(user_agent: str) -> str:
    for name, pattern in _PROGRAMS:
        found = pattern.search(user_agent)
        if found is not None:
            return f"{name} {found[1]}".rstrip()
    return ""
