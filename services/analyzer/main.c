/* reelkv-analyzer: see README.md beside this file. */
#include <stdio.h>

#include "analyzer_server.h"
#include "base/log.h"
#include "base/options.h"

int main(int argc, char **argv)
{
    struct analyzer_options options;
    struct analyzer *analyzer = NULL;
    struct rpc_host *host = NULL;
    struct status st = { 0 };
    bool ok;

    switch (options_parse(&analyzer_option_table, &options, argc, argv, NULL, &st)) {
    case OPTIONS_DONE:
        return 0;
    case OPTIONS_BAD:
        fprintf(stderr, "reelkv-analyzer: %s\n", st.text);
        return 2;
    case OPTIONS_RUN:
        break;
    }
    log_init("analyzer", LOG_INFO);
    ok = rpc_host_create(&host, &(struct rpc_host_options)RPC_HOST_OPTIONS("analyzer", &options), &st) &&
         analyzer_server_create(&analyzer, host, &options, &st);
    if (ok)
        rpc_host_run(host);
    else
        log_error(NULL, "start_failed", "%s", st.text);
    analyzer_server_destroy(analyzer);
    rpc_host_destroy(host);
    return ok ? 0 : 1;
}
