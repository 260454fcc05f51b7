/* reelkv-qa: see README.md beside this file. */
#include <stdio.h>

#include "qa_server.h"
#include "base/log.h"
#include "base/options.h"

int main(int argc, char **argv)
{
    struct qa_options options;
    struct qa *qa = NULL;
    struct rpc_host *host = NULL;
    struct status st = { 0 };
    bool ok;

    switch (options_parse(&qa_option_table, &options, argc, argv, NULL, &st)) {
    case OPTIONS_DONE:
        return 0;
    case OPTIONS_BAD:
        fprintf(stderr, "reelkv-qa: %s\n", st.text);
        return 2;
    case OPTIONS_RUN:
        break;
    }
    log_init("qa", LOG_INFO);
    ok = rpc_host_create(&host, &(struct rpc_host_options)RPC_HOST_OPTIONS("qa", &options), &st) &&
         qa_server_create(&qa, host, &options, &st);
    if (ok)
        rpc_host_run(host);
    else
        log_error(NULL, "start_failed", "%s", st.text);
    qa_server_destroy(qa);
    rpc_host_destroy(host);
    return ok ? 0 : 1;
}
