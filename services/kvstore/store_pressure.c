#include "kvstore/store_pressure.h"

enum { YELLOW_PERCENT_FREE = 20 };

enum store_pressure store_pressure(const struct store *store)
{
    uint64_t room = ram_room_bytes(store->arena, RAM_IMAGES);

    if (store->ram_waiters != NULL)
        return STORE_RED;
    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        if (stream->waits_for_room || stream->waits_because[0] != '\0')
            return STORE_RED;
    return room < ram_region_bytes(store->arena, RAM_IMAGES) / 100 * YELLOW_PERCENT_FREE ? STORE_YELLOW
                                                                                         : STORE_GREEN;
}

uint64_t store_credit_bytes(const struct store *store)
{
    static const uint64_t parts[] = { [STORE_GREEN] = 1, [STORE_YELLOW] = 2, [STORE_RED] = 8 };
    uint64_t room = ram_room_bytes(store->arena, RAM_IMAGES);

    return room / (store->writer_count == 0 ? 1 : store->writer_count) / parts[store_pressure(store)];
}
