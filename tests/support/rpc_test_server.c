/* A service like any other, but with the fixture's made-up methods: for tests of lib/rpc with real processes. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/options.h"
#include "base/require.h"
#include "rpc/host.h"
#include "support/rpc_fixture.h"

struct test_server_options {
#define OPT OPTION_FIELD
#include "rpc/host_options.def"
#undef OPT
};

static const struct option_row rows[] = {
#define OPT(...) OPTION_ROW(test_server_options, __VA_ARGS__),
#include "rpc/host_options.def"
#undef OPT
};

static const struct option_table table = {
    .program = "rpc-test-server", .summary = "Serves made-up answers.", .rows = rows, .count = ARRAY_LEN(rows)
};

int main(int argc, char **argv)
{
    struct test_server_options options;
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct rpc_host *host = NULL;
    struct status st = { 0 };
    bool ok = false;

    if (fixture == NULL || options_parse(&table, &options, argc, argv, NULL, &st) != OPTIONS_RUN) {
        fprintf(stderr, "rpc-test-server: %s\n", st.text);
        free(fixture);
        return 2;
    }
    log_init("test", LOG_INFO);
    fixture_services(fixture);
    if (rpc_host_create(&host, &(struct rpc_host_options)RPC_HOST_OPTIONS("test", &options), &st)) {
        fixture->loop = rpc_host_loop(host);
        ok = rpc_host_serve(host, fixture->services, 2, &st);
    }
    if (ok)
        rpc_host_run(host);
    else
        log_error(NULL, "start_failed", "%s", st.text);
    rpc_host_destroy(host);
    free(fixture);
    return ok ? 0 : 1;
}
