/* qa.h - what the questions of one qa share. Made and ended by qa_server.c.
 *
 * Thread: the loop's; the model and the options are read by question threads too. */
#ifndef REELKV_QA_QA_H
#define REELKV_QA_QA_H

#include <stdio.h>

#include "base/options.h"
#include "loop/work_pool.h"
#include "model/model.h"
#include "redis/directory.h"
#include "rpc/host.h"
#include "store/store_link.h"

struct qa_options {
#define OPT OPTION_FIELD
#include "qa_options.def"
#undef OPT
};

struct qa {
    const struct qa_options *options;
    struct rpc_host *host;
    struct loop *loop;
    struct model *model;
    struct work_pool *answering;  /* max_questions threads */
    struct work_pool *links_pool; /* handshakes with stores */
    struct store_links links;
    struct directory *directory;
    uint32_t questions; /* not yet let go */
    uint32_t submitted; /* of these, given to `answering` and not done */
    int64_t started_ms;
    bool draining;
};

#endif
