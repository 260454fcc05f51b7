#include "base/require.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void require_failed(const char *fact, const char *file, int line, const char *function)
{
    fprintf(stderr, "%s:%d: %s: broken: %s\n", file, line, function, fact);
    fflush(stderr);
    abort();
}

#ifdef REELKV_COVERAGE
void require_holds(bool holds, const char *fact, const char *file, int line, const char *function)
{
    if (!holds)
        require_failed(fact, file, line, function);
}
#endif
