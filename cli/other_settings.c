#include "other_settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/require.h"
#include "cli_output.h"
#include "cluster_file.h"

static bool is_there(const char *model)
{
    char config[CLUSTER_PATH_BYTES + 16];

    snprintf(config, sizeof config, "%s/config.json", model);
    return access(config, R_OK) == 0;
}

void other_settings_way_back(const char *data, const char *fingerprint, char *out, size_t out_bytes)
{
    struct cluster_plan *then = calloc(1, sizeof *then);
    char window[32] = "";

    REQUIRE(then != NULL);
    if (data[0] == '\0' || !cluster_settings_of(data, fingerprint, then)) {
        snprintf(out, out_bytes, "the cluster is started with the model, dtype and window of then");
    } else {
        if (then->n_local > 0)
            snprintf(window, sizeof window, " --n-local %u", then->n_local);
        if (is_there(then->model))
            snprintf(out, out_bytes,
                     "`reelkv down --data %s` and `reelkv up --data %s --model %s --dtype %s%s`",
                     cli_quote(data), cli_quote(data), cli_quote(then->model), then->dtype, window);
        else
            snprintf(out, out_bytes,
                     "the cluster is started with --dtype %s%s and the model that was in %s, which is gone",
                     then->dtype, window, then->model);
    }
    free(then);
}
