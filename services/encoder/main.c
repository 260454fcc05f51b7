/* reelkv-encoder: see README.md beside this file. */
#include <stdio.h>

#include "base/log.h"
#include "encoder/encoder_server.h"

int main(int argc, char **argv)
{
    struct encoder_options options;
    struct encoder_server *encoder = NULL;
    struct rpc_host *host = NULL;
    struct status st = { 0 };
    bool ok;

    switch (options_parse(&encoder_option_table, &options, argc, argv, NULL, &st)) {
    case OPTIONS_DONE:
        return 0;
    case OPTIONS_BAD:
        fprintf(stderr, "reelkv-encoder: %s\n", st.text);
        return 2;
    case OPTIONS_RUN:
        break;
    }
    log_init("encoder", LOG_INFO);
    ok = rpc_host_create(&host, &(struct rpc_host_options)RPC_HOST_OPTIONS("encoder", &options), &st) &&
         encoder_server_create(&encoder, host, &options, &st);
    if (ok)
        rpc_host_run(host);
    else
        log_error(NULL, "start_failed", "%s", st.text);
    encoder_server_destroy(encoder);
    rpc_host_destroy(host);
    return ok ? 0 : 1;
}
