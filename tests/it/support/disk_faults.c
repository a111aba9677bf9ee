/* Faults of the disk below the hub, by LD_PRELOAD: calls on files *.log fail while a file with the
   fault's name is in $FANFARE_FAULTS.

   sync  fdatasync and fsync fail with EIO, and add a line to `sync-calls`
   full  a write takes half of its bytes, and then ENOSPC
   write a write fails with EIO
   read  a read of any byte from 8,192 to 12,287 fails with EIO */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *path_of(const char *name, char *path, size_t size) {
    const char *directory = getenv("FANFARE_FAULTS");
    if (!directory) return NULL;
    snprintf(path, size, "%s/%s", directory, name);
    return path;
}

static int is_on(const char *fault) {
    char path[4096];
    return path_of(fault, path, sizeof path) && access(path, F_OK) == 0;
}

static int is_log(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 4) return 0;
    path[length] = 0;
    return strcmp(path + length - 4, ".log") == 0;
}

static int failed_sync(int file) {
    char path[4096];
    if (!is_log(file) || !is_on("sync")) return 0;
    int calls = open(path_of("sync-calls", path, sizeof path), O_CREAT | O_WRONLY | O_APPEND, 0600);
    if (calls >= 0) {
        if (write(calls, "x\n", 2) < 0) abort();
        close(calls);
    }
    errno = EIO;
    return 1;
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return failed_sync(file) ? -1 : real(file);
}

int fsync(int file) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return failed_sync(file) ? -1 : real(file);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    static int was_halved;
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    if (!is_log(file)) return real(file, bytes, count, offset);
    if (is_on("write")) {
        errno = EIO;
        return -1;
    }
    if (is_on("full")) {
        was_halved = !was_halved;
        if (was_halved && count > 1) return real(file, bytes, count / 2, offset);
        errno = ENOSPC;
        return -1;
    }
    return real(file, bytes, count, offset);
}

ssize_t pread64(int file, void *bytes, size_t count, off64_t offset) {
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real) real = (ssize_t (*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64");
    int is_in_block = offset < 12288 && offset + (off64_t)count > 8192;
    if (is_in_block && is_log(file) && is_on("read")) {
        errno = EIO;
        return -1;
    }
    return real(file, bytes, count, offset);
}
