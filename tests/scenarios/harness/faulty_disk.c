/* Stands between a server and the disk: a sync waits while the file "stall" is in the directory
 * that FAULTY_DISK names, and fails while "fail" is in it. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_ordered(const char *order) {
    const char *directory = getenv("FAULTY_DISK");
    char path[PATH_MAX];
    if (directory == NULL) return 0;
    snprintf(path, sizeof path, "%s/%s", directory, order);
    return access(path, F_OK) == 0;
}

static int judged(long call, int file) {
    while (is_ordered("stall")) usleep(500);
    if (is_ordered("fail")) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, file);
}

int fsync(int file) { return judged(SYS_fsync, file); }

int fdatasync(int file) { return judged(SYS_fdatasync, file); }
