/* encoder_directory.h - which streams this encoder runs, and where their stores and analyzers are: the directory's
 * answers for encoder/stream.h.
 *
 * Each stream that waits for a writer is claimed by the encoder that rendezvous hashing names, so that all agree
 * without talking; after WAITED_MS by any that has room (the named one is full, or cannot reach something). The lease in
 * Redis keeps two from reading one camera; should both believe they hold it, the store's epochs let one win. A
 * stream stays where it is as long as its encoder lives and holds the lease.
 *
 * Owner:  encoder_server. Thread: the loop's.
 * Bounds: max_streams leases asked for; LIMIT_STREAMS records. */
#ifndef REELKV_ENCODER_ENCODER_DIRECTORY_H
#define REELKV_ENCODER_ENCODER_DIRECTORY_H

#include "encoder/stream.h"
#include "redis/directory.h"

struct encoder_directory;

enum { ENCODER_DIRECTORY_WAITED_MS = 10000, ENCODER_DIRECTORY_REST_MS = 5000 };

struct encoder_directory_options {
    const char *redis;
    const char *address; /* of this encoder, as others reach it */
    uint32_t max_streams;
};

/* Fills encoder->places. `encoder` outlives it. */
bool encoder_directory_create(struct encoder_directory **directory_p, struct encoder *encoder,
                              const struct encoder_directory_options *options, struct status *st);

/* Leaves the directory, starts nothing more and drains every stream. The lease of a stream stays until it is drained: with
 * it, another encoder would take over what this one still has to send. */
void encoder_directory_drain(struct encoder_directory *directory);

/* Lets go of each stream that is drained by now, so that another encoder may have it at once. False: some are left; ask
 * again when the loop has turned. */
bool encoder_directory_release_drained(struct encoder_directory *directory);

void encoder_directory_destroy(struct encoder_directory *directory); /* NULL is fine */

#endif
