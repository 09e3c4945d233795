"""The help texts, the version, and the ways to start the command."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import __version__, errors
from agent.cli.parser import build_parser
from agent.errors import KeysyncError
from tests.support.machine import REPOSITORY, clean_environment, run

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
INSTALLED = Path(sys.executable).with_name("keysync")
CODES = {
    *(errors.EXIT_OK, errors.EXIT_UNEXPECTED, errors.EXIT_USAGE, errors.EXIT_HELD),
    errors.EXIT_NO_WAY_IN,
    *(kind.exit_code for kind in KeysyncError.__subclasses__()),
}


def _commands(
    parser: argparse.ArgumentParser, names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield names, parser
    for action in parser._actions:  # noqa: SLF001  # reason: argparse has no public list of them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  # reason: the same
            for name, child in action.choices.items():
                yield from _commands(child, (*names, name))


COMMANDS = dict(_commands(build_parser()))


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_help(names: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Commands: each command says what it does, and each of its options has a meaning."""
    with pytest.raises(SystemExit) as leaving:
        build_parser().parse_args([*names, "--help"])
    assert leaving.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(" ".join(("usage: keysync", *names)))
    parser = COMMANDS[names]
    assert parser.description
    for action in parser._actions:  # noqa: SLF001  # reason: argparse has no public list of them
        if action.help == argparse.SUPPRESS:
            continue
        assert action.help or isinstance(action, argparse._SubParsersAction), action.dest  # noqa: SLF001  # reason: the same
        for option in action.option_strings:
            assert option in out


@pytest.mark.parametrize(
    ("names", "flags"),
    [
        ((), {"--config", "--log-level", "--log-format", "--version"}),
        (
            ("sync",),
            {
                "--dry-run",
                "--wait",
                "--confirm-removals",
                "--confirm-additions",
                "--accept-account",
                "--json",
            },
        ),
        (("run",), set()),
        (("status",), {"--json", "--check"}),
        (("config", "check"), set()),
        (("config", "show"), set()),
        (("install",), {"--dry-run"}),
        (
            ("uninstall",),
            {"--restore-original", "--keep-keys", "--allow-lockout", "--yes", "--dry-run"},
        ),
        (("forget",), {"--dry-run"}),
        (("original",), set()),
    ],
)
def test_contract(names: tuple[str, ...], flags: set[str]) -> None:
    """The commands and flags that are promised exist; the global ones are accepted before and
    after the command, and explained once.
    """
    text = COMMANDS[names].format_help()
    shown = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)\b", text, re.MULTILINE)) - {"--help"}
    assert shown == flags
    if names and names != ("original",) and names != ("forget",):
        options = build_parser().parse_args([*names, "--config", "/x", "--log-level", "debug"])
        assert (options.config, options.log_level) == ("/x", "debug")


def test_additions_are_confirmed_one_by_one() -> None:
    """G14: the flag may be given again; without it nothing is confirmed."""
    words = ["sync", "--confirm-additions", "SHA256:a", "--confirm-additions", "all"]
    assert build_parser().parse_args(words).confirm_additions == ["SHA256:a", "all"]
    assert build_parser().parse_args(["sync"]).confirm_additions == []


def test_no_command_lists_the_commands() -> None:
    """Commands: `keysync` alone is a question, not an error: the answer is what --help prints."""
    alone = run([sys.executable, "-m", "agent"], clean_environment())
    asked = run([sys.executable, "-m", "agent", "--help"], clean_environment())
    assert (alone.returncode, alone.stdout, alone.stderr) == (0, asked.stdout, "")
    for names in COMMANDS:
        assert not names or re.search(rf"^    {names[0]}\b", alone.stdout, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["--log-level", "debug"], ["config"]], ids=" ".join)
def test_options_without_a_command_are_wrong_usage(arguments: list[str]) -> None:
    """Commands: who gives options means something, and it was not done."""
    done = run([sys.executable, "-m", "agent", *arguments], clean_environment())
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_has_its_function(names: tuple[str, ...]) -> None:
    """Commands: the table of commands leads to a function of the command's own module."""
    command = COMMANDS[names].get_default("command")
    if command is None:  # keysync itself, or a group
        assert any(names == other[: len(names)] for other in COMMANDS if other != names)
        return
    module, function = command.function
    assert callable(getattr(importlib.import_module(module), function))


def test_readme_names_every_command_and_flag() -> None:
    """Commands: the README's table and the help are about the same commands."""
    table = re.findall(r"^\| `keysync ([a-z ]+[a-z])[^`]*` \| (.*) \|$", README, re.MULTILINE)
    for name, text in table:
        help_text = COMMANDS[tuple(name.split())].format_help()
        for flag in re.findall(r"`(--[a-z-]+)", text):
            assert flag in help_text, (name, flag)
    leaves = {names for names in COMMANDS if names and names != ("config",)}
    assert leaves <= {tuple(name.split()) for name, _ in table}


def test_exit_codes() -> None:
    """Commands: help and README list exactly the exit codes that there are."""
    epilog = COMMANDS[()].epilog or ""
    assert {int(code) for code in re.findall(r"^  (\d+) ", epilog, re.MULTILINE)} == CODES
    table = README.partition("## Exit codes")[2].partition("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == CODES


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["sync", "--help"], ["sink"]])
def test_two_ways_to_start(arguments: list[str]) -> None:
    """Commands: `keysync` and `python -m agent` are the same."""
    environment = clean_environment() | {"COLUMNS": "80"}
    installed = run([str(INSTALLED), *arguments], environment)
    module = run([sys.executable, "-m", "agent", *arguments], environment)
    assert (installed.returncode, installed.stdout, installed.stderr) == (
        module.returncode,
        module.stdout,
        module.stderr,
    )
    assert module.returncode == (2 if arguments == ["sink"] else 0)
    if arguments == ["--version"]:
        assert module.stdout == f"keysync {__version__}\n"
