"""No system call that changes the disk is missing among the points of `test_system_calls.py`.

strace shows every call of a real `python -m agent sync`. Each name must be in one of the tables
below; those that change the disk must be, one by one and in order, the points that were attacked.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.adapters.support import needs_strace
from tests.support.crash_scene import SCENES, Scene, staged
from tests.support.disk_faults import RANDOM_NAME, Syncs, library
from tests.support.machine import REPOSITORY, clean_environment

pytestmark = [pytest.mark.attack, needs_strace]

CHANGES = set(
    re.findall(
        r"\w+",
        """
    open openat openat2 creat write pwrite64 writev pwritev pwritev2 fsync fdatasync sync syncfs
    sync_file_range rename renameat renameat2 unlink unlinkat rmdir link linkat symlink symlinkat
    mkdir mkdirat mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat
    truncate ftruncate fallocate utime utimes utimensat futimesat setxattr fsetxattr lsetxattr
    removexattr fremovexattr lremovexattr flock copy_file_range sendfile splice io_setup
    io_uring_setup mount umount2
    """,
    )
)
# Reading, memory, time, processes and sockets. fcntl is here for its leases and descriptor flags.
HARMLESS = set(
    re.findall(
        r"\w+",
        """
    access arch_prctl bind brk clock_nanosleep clone clone3 close close_range connect dup dup2 dup3
    epoll_create1 epoll_ctl epoll_wait eventfd2 execve exit exit_group faccessat faccessat2 fcntl
    fstat fstatfs futex getcwd getdents64 getegid geteuid getgid getgroups getpeername getpgrp
    getpid getppid getrandom getresgid getresuid getrlimit getsockname getsockopt gettid getuid
    getxattr fgetxattr ioctl lgetxattr listen lseek lstat madvise mmap mprotect mremap munmap
    nanosleep newfstatat pipe2 poll ppoll prctl pread64 prlimit64 read readlink readlinkat recvfrom
    recvmsg recvmmsg restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn
    sched_getaffinity sched_yield sendmmsg sendmsg sendto set_robust_list set_tid_address
    setsockopt shutdown sigaltstack socket socketpair stat statfs statx sysinfo tgkill time times
    umask uname vfork wait4
    """,
    )
)
_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)")
_DESCRIPTOR = re.compile(r"(?:AT_FDCWD|\d+)<([^>]*)>")
_WRITES = ("O_CREAT", "O_TRUNC", "O_WRONLY", "O_RDWR")
_NO_FILE = ("socket:", "pipe:", "anon_inode:", "/dev/null", "TCP", "UNIX", "NETLINK")


@pytest.fixture(params=SCENES, ids=lambda plot: plot.__name__)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    plot: Callable[[Scene], None] = request.param
    with staged(plot, tmp_path / "machine") as made:
        yield made


def test_no_call_that_changes_the_disk_is_missing(scene: Scene, tmp_path: Path) -> None:
    """G7: what strace sees of the real process is what was attacked, no more and no less."""
    machine = scene.machine
    preload = library(tmp_path)
    serving = Syncs.serving(preload, machine.config, tmp_path, machine.folder)
    with serving as syncs:
        syncs.exchange = scene.exchange
        attacked = [point.plain for point in syncs.sync().points]
    scene.reset()
    assert _changes(_trace(scene, tmp_path / "trace"), machine.folder) == attacked
    assert len(attacked) >= 5


def _trace(scene: Scene, trace: Path) -> list[str]:
    """The lines of strace for one `keysync sync`, threads and child processes included."""
    command = ["strace", "-f", "-y", "-s", "4096", "-o", str(trace)]
    if not scene.exchange:
        command += ["-e", "inject=renameat2:error=ENOSYS"]
    command += [sys.executable, "-m", "agent", "--config", str(scene.machine.config), "sync"]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=clean_environment() | {"HOME": str(trace.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == scene.code, done.stderr
    return trace.read_text(errors="replace").splitlines()


def _changes(lines: list[str], folder: Path) -> list[str]:
    """Each call that changes something below `folder`, as a point is written; fails for any other
    change of the disk, and for a call that is in no table.
    """
    found = []
    for line in lines:
        match = _CALL.match(line)
        if match is None or "resumed>" in line.split("(")[0]:
            continue
        call, arguments = match.groups()
        assert call in CHANGES | HARMLESS, f"nobody has said whether {call} changes the disk"
        if call not in CHANGES or _is_reading(call, arguments) or "INJECTED" in line:
            continue
        path = _path(call, arguments)
        if path.startswith(str(folder)):
            found.append(f"{call} {RANDOM_NAME.sub('*', path)}")
        else:
            assert path.startswith(_NO_FILE), f"a change outside the machine: {line}"
    return found


def _is_reading(call: str, arguments: str) -> bool:
    return call in ("open", "openat", "openat2") and not any(flag in arguments for flag in _WRITES)


def _path(call: str, arguments: str) -> str:
    """The file that a call is about: by name, by descriptor, or by a name relative to one."""
    descriptor = _DESCRIPTOR.match(arguments)
    if descriptor is None:
        return arguments.split('"')[1]
    if not call.endswith(("at", "at2")):
        return descriptor[1]
    return os.path.join(descriptor[1], arguments.split('"')[1])
