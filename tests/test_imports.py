"""Who may import whom: one way, without a cycle, and nothing heavy before it is needed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.console import Console
from tests.support.machine import REPOSITORY, Machine, clean_environment, key_line, run

PACKAGE = REPOSITORY / "agent"
FILES = sorted(PACKAGE.rglob("*.py"))
FOREIGN = {"sandbox", "tests", "bench", "fuzz", "tools"}
IMPURE = {
    *(
        "os",
        "pathlib",
        "time",
        "socket",
        "subprocess",
        "sys",
        "io",
        "random",
        "secrets",
        "tempfile",
    ),
    *(
        "threading",
        "shutil",
        "pwd",
        "fcntl",
        "signal",
        "asyncio",
        "logging",
        "http",
        "ssl",
    ),
    *("httpx", "structlog", "yaml", "paramiko", "apscheduler", "urllib.request"),
}
CONFIG = ("config", "config_file", "config_options")
EVENTS = ("events", "daemon_events")
RULES = ("providers", "core", "errors")
# Layer: what it may import of agent. The single modules below stand beside the layers.
MAY = {
    "core": {"core", "errors"},
    "providers": {"providers", "core", "errors"},
    "adapters": {"adapters", "providers", "core", "errors", "config"},
    "service": {"service", "providers", "adapters", "core", "errors", *CONFIG, *EVENTS, "log"},
    "setup": {"setup", "providers", "service", "adapters", "core", "errors", *CONFIG},
    "cli": {"cli", "setup", "service", "adapters", *RULES, *CONFIG, *EVENTS, "log"},
    "config": {"providers", "core"},
    "config_options": {"config", "core"},
    "config_yaml": {"config", "config_options", "core", "errors"},
    "config_file": {"adapters", "providers", "config", "config_yaml", "errors"},
    "errors": set(),
    "event_base": {"core"},
    "events": {"core", "event_base"},
    "daemon_events": {"event_base"},
    "log": {"providers", "events"},
    "__main__": {"cli"},
    "__init__": set(),
}
HEAVY = ("httpx", "structlog", "yaml", "paramiko", "apscheduler", "cryptography", "rich", "click")


def _module(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def _layer(module: str) -> str:
    """`core` for agent.core.plan, `config` for agent.config; "" for the package itself."""
    return [*module.split("."), ""][1]


def _imports(path: Path, *, at_import_time: bool = False) -> Iterator[str]:
    """Every module that a file imports, by its full name; those under TYPE_CHECKING as well."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = _executed(tree) if at_import_time else ast.walk(tree)
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = (REPOSITORY / inner.replace(".", "/")).with_suffix(".py").exists()
                yield inner if is_module else str(node.module)


def _executed(tree: ast.Module) -> Iterator[ast.AST]:
    """What runs when the module is imported: no body of a function, nothing for type checkers."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def _ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(REPOSITORY)) for path in paths]


PURE = [path for path in FILES if _layer(_module(path)) in ("core", "providers")]


@pytest.mark.parametrize("path", PURE, ids=_ids(PURE))
def test_core_and_providers_are_pure(path: Path) -> None:
    """CONTRIBUTING: both know no clock, file or network; what they import of agent: MAY, above."""
    for name in _imports(path):
        assert not {name.partition(".")[0], name} & IMPURE, name
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert calls.isdisjoint({"open", "print", "input", "exec", "eval", "__import__"})


@pytest.mark.parametrize("path", FILES, ids=_ids(FILES))
def test_direction(path: Path) -> None:
    """CONTRIBUTING: cli -> setup -> service -> providers, adapters -> core; never sandbox, tests,
    bench.
    """
    own = _layer(_module(path)) or "__init__"
    for name in _imports(path):
        assert name.partition(".")[0] not in FOREIGN, name
        if name.startswith("agent."):
            allowed = MAY[own] | ({"__init__"} if own not in ("core", "providers") else set())
            assert _layer(name) in allowed, f"{own} imports {name}"


def test_every_layer_is_known() -> None:
    """CONTRIBUTING: a new module stands in a layer, so that the directions above hold for it."""
    assert {_layer(_module(path)) or "__init__" for path in FILES} <= set(MAY)


def test_no_cycle() -> None:
    """CONTRIBUTING: imports form no cycle, not even one that only the type checker sees."""
    modules = {_module(path): path for path in FILES}
    edges = {name: set(_imports(path)) & set(modules) for name, path in modules.items()}
    while edges:
        leaves = {name for name, needed in edges.items() if not needed}
        assert leaves, f"a cycle among {sorted(edges)}"
        edges = {name: needed - leaves for name, needed in edges.items() if name not in leaves}


def test_test_sees_violations(tmp_path: Path) -> None:
    """The reader above finds imports of every form, so that these tests can fail."""
    file = tmp_path / "module.py"
    file.write_text(
        "import os.path as p\nfrom agent import config\nfrom agent.core.plan import Plan\n"
        "if TYPE_CHECKING:\n    import httpx\ndef f():\n    import yaml\nclass C:\n    import io\n"
    )
    everything = {"os.path", "agent.config", "agent.core.plan", "httpx", "yaml", "io"}
    assert set(_imports(file)) == everything
    assert set(_imports(file, at_import_time=True)) == everything - {"httpx", "yaml"}


@pytest.mark.parametrize("path", FILES, ids=_ids(FILES))
def test_nothing_heavy_at_import_time(path: Path) -> None:
    """CONTRIBUTING: a heavy library is imported only by the module that is there for it."""
    allowed = {
        "agent/adapters/http_connection.py": {"httpx"},
        "agent/adapters/http.py": {"httpx"},
        "agent/adapters/http_errors.py": {"httpx"},
        "agent/service/daemon.py": {"apscheduler"},
    }.get(str(path.relative_to(REPOSITORY)), set())
    found = {name.partition(".")[0] for name in _imports(path, at_import_time=True)}
    assert found & set(HEAVY) <= allowed


def _loaded(code: str, **environment: str) -> set[str]:
    """The heavy libraries that a new process has loaded after running `code`."""
    probe = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = run([sys.executable, "-c", probe], clean_environment() | environment)
    assert done.returncode == 0, done.stderr
    modules: list[str] = json.loads(done.stderr.splitlines()[-1])
    return {name.partition(".")[0] for name in modules} & set(HEAVY)


def test_command_line_loads_nothing_heavy() -> None:
    """CONTRIBUTING: arguments are parsed and help is shown without a single heavy library."""
    assert _loaded("import agent.cli.main; agent.cli.parser.build_parser()") == set()


def test_the_probe_sees_what_is_loaded() -> None:
    """The test above can fail."""
    assert "yaml" in _loaded("import yaml")


@pytest.mark.skipif(os.path.exists("/etc/keysync"), reason="keysync is configured on this machine")
def test_status_without_configuration_loads_nothing_heavy() -> None:
    """CONTRIBUTING: status asks no network and, without a configuration file, needs no YAML."""
    code = "from agent.cli.main import main; main(['status', '--json'])"
    assert _loaded(code) == set()


def test_status_with_configuration(tmp_path: Path) -> None:
    """CONTRIBUTING: with a configuration file status loads YAML, and still no HTTP client."""
    machine = Machine(tmp_path)
    code = f"from agent.cli.main import main; main(['--config', '{machine.config}', 'status'])"
    assert _loaded(code) == {"yaml"}


def test_quiet_sync_loads_no_logging_library(tmp_path: Path) -> None:
    """CONTRIBUTING: a sync loads what it uses; without a line to log that is no structlog."""
    with Console() as console:
        machine = Machine(tmp_path, console.url)
        machine.set_api_key(console.api_key)
        console.add_key(key_line("laptop"))
        command = ["--config", str(machine.config), "--log-level", "error", "sync"]
        loaded = _loaded(f"from agent.cli.main import main; main({command!r})")
    # httpx loads click where it finds it: here, since the sandbox's server needs it.
    assert loaded - {"click"} == {"httpx", "yaml"}


def test_wheel_holds_the_agent_alone() -> None:
    """CONTRIBUTING: what is installed can be imported without sandbox, tests and bench."""
    code = (
        "import sys, importlib, pkgutil\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {FOREIGN!r}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import agent\n"
        "for found in pkgutil.walk_packages(agent.__path__, 'agent.'):\n"
        "    if not found.name.endswith('__main__'): importlib.import_module(found.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
