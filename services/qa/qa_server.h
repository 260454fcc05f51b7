/* qa_server.h - the qa as a whole: model, question threads, directory, and the Qa service.
 *
 * Owner: main. Thread: the loop's. */
#ifndef REELKV_QA_QA_SERVER_H
#define REELKV_QA_QA_SERVER_H

#include "qa.h"

extern const struct option_table qa_option_table;

/* Opens the model and starts serving. `options` must outlive the server. INVALID with what to change. */
bool qa_server_create(struct qa **qa_p, struct rpc_host *host, const struct qa_options *options,
                      struct status *st);
void qa_server_destroy(struct qa *qa); /* NULL is fine; after rpc_host_run() */

#endif
