#include "kvstore/arena_wipe.h"

#include <string.h>

#include "base/require.h"

static void wipe_run(struct work *work)
{
    const struct arena_wipe *wipe = container_of(work, struct arena_wipe, work);

    explicit_bzero(ram_bytes(wipe->store->arena, wipe->slot), wipe->slot->bytes);
}

static void next(struct arena_wipe *wipe);

static void give_back(const struct arena_wipe *wipe)
{
    ram_give_clean(wipe->store->arena, wipe->slot);
    store_ram_freed(wipe->store);
}

static void wipe_done(struct work *work)
{
    struct arena_wipe *wipe = container_of(work, struct arena_wipe, work);

    give_back(wipe);
    next(wipe);
}

static void next(struct arena_wipe *wipe)
{
    for (;;) {
        wipe->slot = wipe->store->is_closing ? NULL : ram_take_dirty(wipe->store->arena, wipe->before);
        if (wipe->slot == NULL) {
            wipe->done(wipe);
            return;
        }
        wipe->work = (struct work){ .run = wipe_run, .done = wipe_done };
        if (work_pool_submit(wipe->store->computing, &wipe->work))
            return;
        wipe_run(&wipe->work); /* the threads' queue is full */
        give_back(wipe);
    }
}

void arena_wipe_start(struct arena_wipe *wipe)
{
    wipe->before = ram_frees(wipe->store->arena);
    next(wipe);
}
