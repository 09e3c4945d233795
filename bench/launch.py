"""Starts one command and prints its seconds, CPU seconds, peak memory in KiB and exit code.

Run as `python -I -S launch.py STDOUT STDERR COMMAND...`. It is a process of its own because Linux
counts the memory of the process that starts a command in the command's ru_maxrss (it survives
execve), and this one is smaller than everything that is measured.
"""

import os
import sys
import time

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def main() -> None:
    """Standard output and error of the command go to files, as under a service."""
    out, err, *command = sys.argv[1:]
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, out, _WRITE, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, err, _WRITE, 0o600),
    ]
    started = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=files)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    print(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, code)


if __name__ == "__main__":
    main()
