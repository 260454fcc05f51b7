/* uring.h - reads of files that the kernel does while a loop goes on: io_uring, its completions as events of the loop.
 *
 *   uring_read -> waits for the end of the loop's turn, and for room -> under way -> done(), once, on the loop
 *
 * What a turn of the loop asks for goes to the kernel in one call. Whoever may not use io_uring (an old kernel, a container's
 * seccomp profile, the sysctl io_uring_disabled) learns so from uring_create(), which tries it, and reads with threads.
 *
 * Owner:  whoever created it; a read is the caller's memory, and the ring's until its done() starts. Its file stays open and
 *         its bytes stay where they are so long.
 * Thread: the loop's.
 * Fails:  uring_create() with DENIED where it is not permitted, UNIMPLEMENTED where the kernel lacks it, EXHAUSTED. A read by
 *         its result.
 * Bounds: `depth` reads and `bytes_max` bytes under way, `waiting_max` waiting; then uring_read() says no. */
#ifndef REELKV_URING_URING_H
#define REELKV_URING_URING_H

#include "loop/loop.h"

struct uring;

enum { URING_READ_BYTES_MAX = 1 << 30, URING_DEPTH_MAX = 4096 };

struct uring_read {
    /* asked for */
    int fd;
    void *to; /* of a file opened with O_DIRECT: as that asks for */
    uint64_t bytes, offset;
    void (*done)(struct uring_read *read);
    /* answered */
    uint64_t came; /* all of them, or fewer: the file ends there, or error says why */
    int error;     /* an errno; 0: none */
    /* under way */
    uint32_t refusals;
    struct uring_read *next;
};

struct uring_options {
    uint32_t depth, waiting_max;
    uint64_t bytes_max; /* under way at once, but one read always is; 0: as many as there are */
};

bool uring_create(struct uring **ring_p, struct loop *loop, const struct uring_options *options,
                  struct status *st);

/* False: full, the read is still the caller's. `came`, `error` and what is under way are set here. Reads start in the order
 * of asking. */
bool uring_read(struct uring *ring, struct uring_read *read);

/* Waits for what was asked for: every done() is called before it returns. NULL is fine. */
void uring_destroy(struct uring *ring);

#endif
