/* A slow disk, to be preloaded: each sync takes SLOW_SYNC_US microseconds
 * longer. See "The store on slower disks" in README.md. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_for_it(void) {
    const char *text = getenv("SLOW_SYNC_US");
    long us = text ? atol(text) : 0;
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    while (us > 0 && nanosleep(&left, &left) != 0) {
    }
}

int fsync(int file) {
    wait_for_it();
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    wait_for_it();
    return (int)syscall(SYS_fdatasync, file);
}
