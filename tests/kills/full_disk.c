/* A disk that is full, without the rights to make one: preloaded, it lets write() and pwrite() answer ENOSPC for every
 * regular file under the paths of FULL_DISK (separated by colons) while the file that FULL_DISK_WHILE names exists. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_full(int fd) {
    const char *under = getenv("FULL_DISK"), *flag = getenv("FULL_DISK_WHILE");
    char link[64], path[4096];
    if (under == NULL || flag == NULL || access(flag, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    for (const char *end; *under; under = *end ? end + 1 : end) {
        end = strchrnul(under, ':');
        size_t size = end - under;
        if (size && strncmp(path, under, size) == 0 && (path[size] == '/' || path[size] == 0)) return 1;
    }
    return 0;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (is_full(fd)) return errno = ENOSPC, -1;
    return syscall(SYS_write, fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    if (is_full(fd)) return errno = ENOSPC, -1;
    return syscall(SYS_pwrite64, fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }
