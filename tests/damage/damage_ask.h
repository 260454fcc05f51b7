/* damage_ask.h - asks the store through its RPCs for every frame there is, and compares what it serves, byte for byte, with
 * what was written.
 *
 * Owner:  the program. Thread: its own.
 * Fails:  the program, at once, when a byte is wrong, or an answer makes no sense. */
#ifndef REELKV_TEST_DAMAGE_ASK_H
#define REELKV_TEST_DAMAGE_ASK_H

#include "damage_host.h"
#include "rpc/sync.h"

enum asker { ASK_FETCH, ASK_RETRIEVE, ASK_WINDOW, ASKER_COUNT };
extern const char *const asker_words[ASKER_COUNT];

/* The worst that was said of a frame. */
enum said { SAID_NOTHING, SAID_RIGHT, SAID_QUARANTINED, SAID_OTHER };

struct asked {
    enum said said[DAMAGE_STREAMS][DAMAGE_FRAMES_MAX];
};

struct client;

/* Of all frames that the host has written. */
struct client *client_create(const struct host *host);
void client_destroy(struct client *client);

/* Every layer, and with Fetch every thumbnail, of every frame; LoadWindow again and again, until it meets no damage. */
void client_ask(struct client *client, enum asker asker, struct asked *asked);

/* What Timeline tells of a stream's frames, and that Score chooses none that it says is damaged. */
void client_timeline(struct client *client, uint32_t stream, enum said said[DAMAGE_FRAMES_MAX]);
void client_score(struct client *client, uint32_t stream, const enum said said[DAMAGE_FRAMES_MAX]);

#endif
