/* analyzer_server.h - the analyzer as a whole: model, engine, directory, and the Ingest service.
 *
 * Owner: main. Thread: the loop's. */
#ifndef REELKV_ANALYZER_ANALYZER_SERVER_H
#define REELKV_ANALYZER_ANALYZER_SERVER_H

#include "analyzer.h"

extern const struct option_table analyzer_option_table;

/* Opens the model and starts serving. `options` must outlive the server. INVALID with what to change. */
bool analyzer_server_create(struct analyzer **analyzer_p, struct rpc_host *host,
                            const struct analyzer_options *options, struct status *st);
void analyzer_server_destroy(struct analyzer *analyzer); /* NULL is fine; after rpc_host_run() */

#endif
