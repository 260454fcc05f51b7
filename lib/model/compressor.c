#include "model/compressor.h"

#include <string.h>

static bool keep_all(float *embeddings, uint32_t *tokens_p, uint32_t hidden, struct status *st)
{
    return true;
}

static const struct compressor compressors[] = { { "none", keep_all } };

const struct compressor *compressor_find(const char *name, struct status *st)
{
    for (size_t i = 0; i < sizeof compressors / sizeof compressors[0]; i++)
        if (strcmp(name == NULL ? "none" : name, compressors[i].name) == 0)
            return &compressors[i];
    status_fail(st, STATUS_NOT_FOUND, "compressor '%.64s' is unknown; there is: none", name);
    return NULL;
}
