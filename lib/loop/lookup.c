#include "loop/lookup.h"

#include <netdb.h>
#include <stdlib.h>

#include "base/require.h"
#include "loop/loop_internal.h"
#include "loop/signals.h"

struct loop_lookup {
    uv_getaddrinfo_t uv;
    void (*done)(const char *address, const struct status *why, void *user); /* NULL: forgotten */
    void *user;
    char host[NI_MAXHOST];
};

static const struct addrinfo *preferred(const struct addrinfo *found)
{
    for (const struct addrinfo *one = found; one != NULL; one = one->ai_next)
        if (one->ai_family == AF_INET)
            return one;
    return found;
}

static void looked_up(uv_getaddrinfo_t *uv, int error, struct addrinfo *found)
{
    struct loop_lookup *lookup = container_of(uv, struct loop_lookup, uv);
    const struct addrinfo *one = preferred(found);
    char address[NI_MAXHOST];
    struct status why = { 0 };

    if (error != 0)
        status_fail(&why, STATUS_UNAVAILABLE, "look up %s: %s", lookup->host, uv_strerror(error));
    else if (getnameinfo(one->ai_addr, one->ai_addrlen, address, sizeof address, NULL, 0, NI_NUMERICHOST) !=
             0)
        status_fail(&why, STATUS_UNAVAILABLE, "look up %s: its address is not one of the Internet's",
                    lookup->host);
    uv_freeaddrinfo(found);
    if (lookup->done != NULL)
        lookup->done(why.code == STATUS_OK ? address : NULL, &why, lookup->user);
    free(lookup);
}

bool loop_lookup_start(struct loop_lookup **lookup_p, struct loop *loop, const char *host,
                       void (*done)(const char *address, const struct status *why, void *user), void *user,
                       struct status *st)
{
    static const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct loop_lookup *lookup = calloc(1, sizeof *lookup);
    sigset_t before;
    int error;

    REQUIRE(loop_is_here(loop));
    if (lookup == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory to look up %s", host);
    lookup->done = done;
    lookup->user = user;
    snprintf(lookup->host, sizeof lookup->host, "%s", host);
    loop_signals_block(&before);
    error = uv_getaddrinfo(&loop->uv, &lookup->uv, looked_up, host, NULL, &hints);
    loop_signals_restore(&before);
    if (error != 0) {
        free(lookup);
        return status_fail(st, STATUS_INVALID, "look up %s: %s", host, uv_strerror(error));
    }
    *lookup_p = lookup;
    return true;
}

void loop_lookup_forget(struct loop_lookup *lookup)
{
    if (lookup != NULL)
        lookup->done = NULL;
}
