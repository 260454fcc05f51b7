#include "base/require.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void require_failed(const char *fact, const char *file, int line, const char *function)
{
    fprintf(stderr, "%s:%d: %s: broken: %s\n", file, line, function, fact);
    fflush(stderr);
    abort();
}
