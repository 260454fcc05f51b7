/* analyzer.h - what the feeds of one analyzer share. Made and ended by analyzer_server.c.
 *
 * Thread: the loop's. */
#ifndef REELKV_ANALYZER_ANALYZER_H
#define REELKV_ANALYZER_ANALYZER_H

#include <stdio.h>

#include "base/options.h"
#include "block_pool.h"
#include "engine.h"
#include "model/model.h"
#include "redis/directory.h"
#include "rpc/host.h"
#include "store/store_link.h"

struct feed;

struct analyzer_options {
#define OPT OPTION_FIELD
#include "analyzer_options.def"
#undef OPT
};

struct analyzer {
    const struct analyzer_options *options;
    struct rpc_host *host;
    struct loop *loop;
    struct model *model;
    struct engine *engine;
    struct work_pool *links_pool; /* handshakes with stores */
    struct store_links links;
    struct block_pool *blocks;
    struct block_slot *init_slot; /* the system prompt's block, the same for every stream */
    uint64_t slot_tickets;        /* given to feeds that wait for a slot */
    struct directory *directory;
    struct feed *feeds;
    uint32_t feed_count;
    int64_t started_ms;
    bool draining;
};

#endif
