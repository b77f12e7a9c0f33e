/* Faults of cgroup files that a kernel can't be made to have at will: LD_PRELOAD this into a supervisor.
 *
 * FAULT="CALL PART NUMBER TIMES": the next TIMES calls (mkdir, open, write) on a path under /sys/fs/cgroup that contains
 * PART fail with the errno NUMBER. Only in the process that the variable was meant for: it is removed from the
 * environment at once, and children that it forks are left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char call[16], part[64];
static int number, times;
static pid_t meant;

__attribute__((constructor)) static void begin(void)
{
	const char *fault = getenv("FAULT");

	if (fault && sscanf(fault, "%15s %63s %d %d", call, part, &number, &times) == 4)
		meant = getpid();
	unsetenv("FAULT");
	unsetenv("LD_PRELOAD");
}

static int fails(const char *what, const char *path)
{
	if (meant != getpid() || times == 0 || strcmp(what, call) || strncmp(path, "/sys/fs/cgroup", 14) ||
	    !strstr(path, part))
		return 0;
	times--;
	errno = number;
	return 1;
}

int mkdir(const char *path, mode_t mode)
{
	int (*real)(const char *, mode_t) = dlsym(RTLD_NEXT, "mkdir");

	return fails("mkdir", path) ? -1 : real(path, mode);
}

static int opened(const char *name, const char *path, int flags, mode_t mode)
{
	int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, name);

	return fails("open", path) ? -1 : real(path, flags, mode);
}

#define OPEN(name)                                                                                                     \
	int name(const char *path, int flags, ...)                                                                     \
	{                                                                                                              \
		va_list more;                                                                                          \
		mode_t mode;                                                                                           \
                                                                                                                       \
		va_start(more, flags);                                                                                 \
		mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;                                       \
		va_end(more);                                                                                          \
		return opened(#name, path, flags, mode);                                                               \
	}

OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *data, size_t size)
{
	ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
	char link[32], path[512];
	ssize_t length;

	if (meant == getpid() && times && !strcmp(call, "write")) {
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		length = readlink(link, path, sizeof path - 1);
		if (length > 0) {
			path[length] = 0;
			if (fails("write", path))
				return -1;
		}
	}
	return real(fd, data, size);
}
