/* reelkv-kvstore: see README.md beside this file. */
#include <stdio.h>

#include "base/log.h"
#include "kvstore/kvstore_server.h"

int main(int argc, char **argv)
{
    struct kvstore_options options;
    struct kvstore *kvstore = NULL;
    struct rpc_host *host = NULL;
    struct status st = { 0 };
    int code = 0;

    switch (options_parse(&kvstore_option_table, &options, argc, argv, NULL, &st)) {
    case OPTIONS_DONE:
        return 0;
    case OPTIONS_BAD:
        fprintf(stderr, "reelkv-kvstore: %s\n", st.text);
        return STATUS_EXIT_USAGE;
    case OPTIONS_RUN:
        break;
    }
    log_init("kvstore", LOG_INFO);
    if (rpc_host_create(&host, &(struct rpc_host_options)RPC_HOST_OPTIONS("kvstore", &options), &st) &&
        kvstore_server_create(&kvstore, host, &options, &st)) {
        rpc_host_run(host);
    } else {
        log_error(NULL, "start_failed", "%s", st.text);
        code = st.code == STATUS_DATA_LOSS ? STATUS_EXIT_DATA_LOSS
               : st.code == STATUS_INVALID ? STATUS_EXIT_USAGE
                                           : 1;
    }
    kvstore_server_destroy(kvstore);
    rpc_host_destroy(host);
    return code;
}
