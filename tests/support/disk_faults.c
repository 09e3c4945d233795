/*
 * Preloaded into keysync (ld.so(8), LD_PRELOAD): a disk that fails on demand.
 *
 * Every library call that changes something below one folder is a point, numbered from 1. At one of
 * them the process is killed or stopped, the call fails, or a write takes only half of its bytes,
 * which is what really happens to the file then. At another one, before it, somebody else edits a
 * file. Anything else goes to the kernel as it is. That these points are all the system calls that
 * change the disk is checked against strace, not here.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum fault { NONE, KILL_BEFORE, KILL_AFTER, STOP_BEFORE, FAIL, HALF, HALF_THEN_KILL, HALF_THEN_FAIL };
enum { GO = 0, REFUSED = -1 };

static char folder[PATH_MAX]; /* empty: not armed */
static int log_fd = -1;
static long count, fault_at, edit_at;
static int fault, code, leases = 1, exchanges = 1, edit_fd = -1;
static const char *edit_from, *edit_to, *edit_text;
static int next_write_fails;

/* Called once, in the process whose sync it is; strings must stay where they are. */
void faults_arm(const char *below, int log, long at, int what, int error)
{
    snprintf(folder, sizeof folder, "%s", below);
    log_fd = log;
    fault_at = at;
    fault = what;
    code = error;
}

/* Before point `at`, `from` is renamed over `to`; with a text, that is appended to `to` instead,
 * which was opened at once. Then, as on some file systems, no leases are to be had. */
void faults_edit(long at, const char *from, const char *to, const char *text)
{
    edit_at = at;
    edit_from = from;
    edit_to = to;
    edit_text = text;
    if (text) {
        leases = 0;
        edit_fd = syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_APPEND);
    }
}

/* As on a kernel without renameat2(2). */
void faults_without_exchange(void)
{
    exchanges = 0;
}

static void edit(void)
{
    if (edit_text)
        syscall(SYS_write, edit_fd, edit_text, strlen(edit_text));
    else
        syscall(SYS_renameat2, AT_FDCWD, edit_from, AT_FDCWD, edit_to, 0);
}

static int below_folder(int fd, const char *name, char *path)
{
    char link[64];
    ssize_t size = 0;

    if (!folder[0])
        return 0;
    if (!name || name[0] != '/') {
        snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
        size = readlink(link, path, PATH_MAX - NAME_MAX - 2);
        if (size < 0)
            return 0;
        if (name)
            path[size++] = '/';
    }
    snprintf(path + size, PATH_MAX - size, "%s", name ? name : "");
    return strncmp(path, folder, strlen(folder)) == 0;
}

/* Begins a call on `name` relative to `fd`, or on `fd` itself: GO, REFUSED, or the fault that is
 * to happen in it or after it. */
static int begin(const char *call, int fd, const char *name)
{
    char path[PATH_MAX], line[PATH_MAX + 64];

    if (!below_folder(fd, name, path))
        return GO;
    count++;
    if (log_fd >= 0)
        syscall(SYS_write, log_fd, line, snprintf(line, sizeof line, "%s %s\n", call, path));
    if (count == edit_at)
        edit();
    if (next_write_fails && strcmp(call, "write") == 0) {
        next_write_fails = 0;
        errno = code;
        return REFUSED;
    }
    if (count != fault_at)
        return GO;
    if (fault == KILL_BEFORE || fault == STOP_BEFORE)
        kill(getpid(), fault == KILL_BEFORE ? SIGKILL : SIGSTOP);
    if (fault == FAIL)
        errno = code;
    return fault == FAIL ? REFUSED : fault;
}

static long end(int verdict, long result)
{
    if (verdict == KILL_AFTER || verdict == HALF_THEN_KILL)
        kill(getpid(), SIGKILL);
    next_write_fails |= verdict == HALF_THEN_FAIL;
    return result;
}

#define POINT(call, fd, name, ...)                                                                 \
    do {                                                                                           \
        int verdict = begin(#call, fd, name);                                                      \
        return verdict == REFUSED ? -1 : end(verdict, syscall(SYS_##call, __VA_ARGS__));           \
    } while (0)

static int open_at(int dir, const char *name, int flags, int mode)
{
    if (flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR))
        POINT(openat, dir, name, dir, name, flags, mode);
    return syscall(SYS_openat, dir, name, flags, mode);
}

#define OPEN(dir)                                                                                  \
    va_list more;                                                                                  \
    va_start(more, flags);                                                                         \
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0;                              \
    va_end(more);                                                                                  \
    return open_at(dir, name, flags, mode)

int open(const char *name, int flags, ...) { OPEN(AT_FDCWD); }
int open64(const char *name, int flags, ...) { OPEN(AT_FDCWD); }
int openat(int dir, const char *name, int flags, ...) { OPEN(dir); }
int openat64(int dir, const char *name, int flags, ...) { OPEN(dir); }

ssize_t write(int fd, const void *data, size_t size)
{
    int verdict = begin("write", fd, NULL);
    if (verdict == REFUSED)
        return -1;
    if (verdict == HALF || verdict == HALF_THEN_KILL || verdict == HALF_THEN_FAIL)
        size /= 2;
    return end(verdict, syscall(SYS_write, fd, data, size));
}

int fsync(int fd) { POINT(fsync, fd, NULL, fd); }
int ftruncate(int fd, off_t length) { POINT(ftruncate, fd, NULL, fd, length); }
int ftruncate64(int fd, off_t length) { POINT(ftruncate, fd, NULL, fd, length); }
int fchmod(int fd, mode_t mode) { POINT(fchmod, fd, NULL, fd, mode); }
int fchown(int fd, uid_t user, gid_t group) { POINT(fchown, fd, NULL, fd, user, group); }
int flock(int fd, int operation) { POINT(flock, fd, NULL, fd, operation); }
int mkdirat(int dir, const char *name, mode_t mode) { POINT(mkdirat, dir, name, dir, name, mode); }
int unlinkat(int dir, const char *name, int flags) { POINT(unlinkat, dir, name, dir, name, flags); }

int renameat(int from, const char *old, int to, const char *new)
{
    POINT(renameat, from, old, from, old, to, new);
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    POINT(linkat, from, old, from, old, to, new, flags);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    if (!exchanges) {
        errno = ENOSYS;
        return -1;
    }
    POINT(renameat2, from, old, from, old, to, new, flags);
}

static int control(int fd, int command, va_list more)
{
    if (command == F_SETLEASE && !leases) {
        errno = EINVAL;
        return -1;
    }
    return syscall(SYS_fcntl, fd, command, va_arg(more, long));
}

#define CONTROL                                                                                    \
    va_list more;                                                                                  \
    va_start(more, command);                                                                       \
    int result = control(fd, command, more);                                                       \
    va_end(more);                                                                                  \
    return result

int fcntl(int fd, int command, ...) { CONTROL; }
int fcntl64(int fd, int command, ...) { CONTROL; }
