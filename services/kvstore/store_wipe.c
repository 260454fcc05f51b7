/* RAM that had what was removed with its stream is zeroed, once nobody reads it any more. */
#include <stdlib.h>

#include "base/require.h"
#include "kvstore/arena_wipe.h"

enum { SOON_MS = 1, LATER_MS = 20 };

static void wiped(struct arena_wipe *wipe)
{
    free(wipe);
}

static void wipe_when_free(struct loop_timer *timer)
{
    struct store *store = container_of(timer, struct store, wipe_timer);
    struct arena_wipe *wipe;

    if (store->is_closing)
        return;
    wipe = ram_has_secrets(store->arena) ? NULL : malloc(sizeof *wipe);
    if (wipe == NULL) {
        loop_timer_start(store->loop, timer, LATER_MS, wipe_when_free);
        return;
    }
    *wipe = (struct arena_wipe){ .store = store, .done = wiped };
    arena_wipe_start(wipe);
}

void store_wipe_ram(struct store *store)
{
    loop_timer_start(store->loop, &store->wipe_timer, SOON_MS, wipe_when_free);
}
