/* encoder_neighbours.h - encoder_world.h's store and analyzer announced in the directory of a real Redis. */
#ifndef REELKV_TEST_ENCODER_NEIGHBOURS_H
#define REELKV_TEST_ENCODER_NEIGHBOURS_H

#include "encoder_world.h"
#include "redis/directory.h"

struct neighbours {
    struct world *world;
    struct directory *store, *analyzer;
    uint8_t fingerprint[DIRECTORY_FINGERPRINT_BYTES]; /* of the analyzer's model; at first the world's */
};

/* redis_start() comes before. */
void neighbours_join(struct neighbours *neighbours, struct world *world);
void neighbours_leave(struct neighbours *neighbours);

#endif
