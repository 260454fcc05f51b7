/* child.h - other programs as children, started by fork and exec in one go (no code runs between them, which
 * is what makes it safe beside gRPC's threads).
 *
 * Owner:  the creator, until loop_child_destroy().
 * Thread: the loop's.
 * Fails:  NOT_FOUND or DENIED with the program's path, EXHAUSTED.
 * Bounds: LOOP_CHILD_FDS descriptors. */
#ifndef REELKV_LOOP_CHILD_H
#define REELKV_LOOP_CHILD_H

#include "loop/loop.h"

enum { LOOP_CHILD_FDS = 16 };

struct loop_child;

struct loop_child_options {
    const char *path;  /* looked up in PATH when it has no slash */
    char *const *argv; /* NULL-terminated, argv[0] first */
    char *const *envp; /* NULL: this process' own */
    const int *fds;    /* fds[i] becomes the child's descriptor i; -1: /dev/null for 0..2, closed above. */
    unsigned fd_count; /* 0..2 beyond the count are inherited. Nothing else is passed on (CLOEXEC). */
    bool own_group;    /* its own process group: a terminal's Ctrl-C does not reach it */
    void (*ended)(struct loop_child *child, int exit_code, int signal,
                  void *user); /* once; signal 0: exited */
    void *user;
};

/* The descriptors stay the caller's: close them after. */
bool loop_child_spawn(struct loop_child **child_p, struct loop *loop,
                      const struct loop_child_options *options, struct status *st);

int loop_child_pid(const struct loop_child *child);

/* Does nothing when it has ended already. */
void loop_child_kill(struct loop_child *child, int number);

/* A running child is killed (SIGKILL) and reaped without `ended`. NULL is fine. */
void loop_child_destroy(struct loop_child *child);

#endif
