/* encoder_server.h - the encoder as a whole: model, batch, streams, directory; health and reflection on its port.
 *
 * Owner: main. Thread: the loop's. */
#ifndef REELKV_ENCODER_ENCODER_SERVER_H
#define REELKV_ENCODER_ENCODER_SERVER_H

#include "base/options.h"
#include "rpc/host.h"

#include <stdio.h>

struct encoder_options {
#define OPT OPTION_FIELD
#include "encoder/encoder_options.def"
#undef OPT
};

extern const struct option_table encoder_option_table;

struct encoder_server;

/* Opens the model and joins the directory. `options` must outlive the server. INVALID with what to change.
 *
 * The host's drain ends the reading; before rpc_host_run() returns, what was read has been sent and made durable and
 * cameras have been told goodbye, or ENCODER_GOODBYE_MS have passed. */
enum { ENCODER_GOODBYE_MS = 3000 };
bool encoder_server_create(struct encoder_server **server_p, struct rpc_host *host,
                           const struct encoder_options *options, struct status *st);

/* After rpc_host_run(). NULL is fine. */
void encoder_server_destroy(struct encoder_server *server);

#endif
