/* Stands between a server and its disk and clock, by orders in the directory that FAULTY_DISK names:
 * a sync waits while there is a file "stall", is slow while there is "slow", and fails while there is
 * "fail"; nothing can be written to a file while there is "full"; and the clock is as many
 * milliseconds off as "clock" says. How far each file was synced is noted in "synced", under its
 * inode, so that the rest can be taken away. And a server calls others from the address that
 * OUTGOING_ADDRESS names, so that they, and whoever is in between, know who calls. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int path_of(const char *order, char path[PATH_MAX]) {
    const char *directory = getenv("FAULTY_DISK");
    if (directory == NULL) return 0;
    snprintf(path, PATH_MAX, "%s/%s", directory, order);
    return 1;
}

static int is_ordered(const char *order) {
    char path[PATH_MAX];
    return path_of(order, path) && access(path, F_OK) == 0;
}

/* A sync makes durable all that was written, whoever wrote it: so what was once noted stands, also if
 * it is called by one who has not written himself. */
static void note_synced(int file) {
    char name[64], path[PATH_MAX];
    struct stat what;
    off_t end = lseek(file, 0, SEEK_CUR);
    if (end < 0 || fstat(file, &what) != 0 || !S_ISREG(what.st_mode)) return;
    snprintf(name, sizeof name, "synced/%llu", (unsigned long long)what.st_ino);
    int note = path_of(name, path) ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (note < 0) return;
    char noted[32] = "0";
    syscall(SYS_pread64, note, noted, sizeof noted - 1, 0);
    /* Of one length, so that it is overwritten whole. */
    int length = snprintf(name, sizeof name, "%020lld", (long long)end);
    if (atoll(noted) < end) syscall(SYS_pwrite64, note, name, length, 0);
    close(note);
}

static int judged(long call, int file) {
    while (is_ordered("stall")) usleep(500);
    if (is_ordered("slow")) usleep(40000);
    if (is_ordered("fail")) {
        errno = EIO;
        return -1;
    }
    int result = (int)syscall(call, file);
    if (result == 0) note_synced(file);
    return result;
}

int fsync(int file) { return judged(SYS_fsync, file); }

int fdatasync(int file) { return judged(SYS_fdatasync, file); }

/* The log goes on, as on a machine with a disk for data. */
static int has_no_room(int file) {
    struct stat what;
    if (file <= STDERR_FILENO || !is_ordered("full")) return 0;
    if (fstat(file, &what) != 0 || !S_ISREG(what.st_mode)) return 0;
    errno = ENOSPC;
    return 1;
}

ssize_t write(int file, const void *bytes, size_t count) {
    return has_no_room(file) ? -1 : syscall(SYS_write, file, bytes, count);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    return has_no_room(file) ? -1 : syscall(SYS_writev, file, parts, count);
}

/* Read anew every few milliseconds: a clock is looked at more often than that. */
static long long clock_offset_ms(void) {
    static _Atomic long long offset, read_at;
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    long long millis = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
    if (millis - read_at < 5) return offset;
    read_at = millis;
    char path[PATH_MAX], text[32] = "0";
    int file = path_of("clock", path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        ssize_t length = read(file, text, sizeof text - 1);
        text[length > 0 ? length : 0] = 0;
        close(file);
    }
    return offset = atoll(text);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME) {
        long long nanos = time->tv_nsec + clock_offset_ms() % 1000 * 1000000;
        time->tv_sec += clock_offset_ms() / 1000;
        if (nanos < 0) nanos += 1000000000, time->tv_sec -= 1;
        if (nanos >= 1000000000) nanos -= 1000000000, time->tv_sec += 1;
        time->tv_nsec = nanos;
    }
    return result;
}

static int own_address(struct sockaddr_in *own) {
    const char *address = getenv("OUTGOING_ADDRESS");
    *own = (struct sockaddr_in){.sin_family = AF_INET};
    return address != NULL && inet_pton(AF_INET, address, &own->sin_addr) == 1;
}

/* Some ask for any address before they call. */
int bind(int file, const struct sockaddr *to, socklen_t length) {
    const struct sockaddr_in *wanted = (const struct sockaddr_in *)to;
    struct sockaddr_in own;
    if (to->sa_family == AF_INET && wanted->sin_addr.s_addr == INADDR_ANY && own_address(&own)) {
        own.sin_port = wanted->sin_port;
        return (int)syscall(SYS_bind, file, &own, sizeof own);
    }
    return (int)syscall(SYS_bind, file, to, length);
}

/* One that has an address keeps it. */
int connect(int file, const struct sockaddr *to, socklen_t length) {
    struct sockaddr_in own;
    if (to->sa_family == AF_INET && own_address(&own)) {
        /* A port is taken only when it is known who is called: the same one serves for many. */
        int yes = 1;
        setsockopt(file, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
        syscall(SYS_bind, file, &own, sizeof own);
    }
    return (int)syscall(SYS_connect, file, to, length);
}
