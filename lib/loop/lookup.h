/* lookup.h - the address of a host by its name, asked for off the loop: a resolver that is silent stalls nothing.
 *
 * Owner:  loop, until it calls done or loop_lookup_forget() returns.
 * Thread: the loop's.
 * Fails:  starting: EXHAUSTED, or INVALID for what is no name; done gets NULL and why.
 * Bounds: the resolver's own patience, often 10 s or more; loop_destroy() waits for it, also when forgotten. */
#ifndef REELKV_LOOP_LOOKUP_H
#define REELKV_LOOP_LOOKUP_H

#include "loop/loop.h"

struct loop_lookup;

/* Calls done once, never before it returns: with the address in numbers (IPv4 where there is one) or with NULL and `why`.
 * Both are valid during the call. */
bool loop_lookup_start(struct loop_lookup **lookup_p, struct loop *loop, const char *host,
                       void (*done)(const char *address, const struct status *why, void *user), void *user,
                       struct status *st);

/* done will not be called. NULL is fine. */
void loop_lookup_forget(struct loop_lookup *lookup);

#endif
