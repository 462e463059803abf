/* Preloaded: a kernel that keeps no list of a process's children (built without CONFIG_PROC_CHILDREN). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int access(const char *path, int mode)
{
    if (strcmp(path, "/proc/thread-self/children") != 0)
        return faccessat(AT_FDCWD, path, mode, 0);
    errno = ENOENT;
    return -1;
}
