#include "kvstore/store_pressure.h"

#include "base/clock.h"

enum { YELLOW_PERCENT_FREE = 20, NS_OF_MS = 1000000 };

/* How long the oldest of a stream's records has waited. Those who write are the last ones. */
static uint64_t wait_of(const struct stream *stream, uint64_t now_ns)
{
    uint64_t since_ns = now_ns;

    for (uint32_t i = stream->segment_count; i > 0 && stream->segments[i - 1]->writer != NULL; i--) {
        uint64_t segment_ns = segment_waits_since_ns(stream->segments[i - 1]);

        if (segment_ns != 0 && segment_ns < since_ns)
            since_ns = segment_ns;
    }
    return now_ns - since_ns;
}

/* Asked with every ack: looked at now and then. */
static bool is_slow(struct store *store)
{
    uint64_t now_ns = clock_mono_ns();

    if (now_ns - store->disk_wait_seen_ns >= STORE_SLOW_SEEN_MS * NS_OF_MS) {
        store->disk_wait_seen_ns = now_ns;
        store->disk_wait_ns = 0;
        for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next) {
            uint64_t wait_ns = wait_of(stream, now_ns);

            if (wait_ns > store->disk_wait_ns)
                store->disk_wait_ns = wait_ns;
        }
    }
    return store->disk_wait_ns > (STORE_SLOW_MS + (uint64_t)store->options.commit_ms) * NS_OF_MS;
}

enum store_pressure store_pressure(struct store *store)
{
    uint64_t room = ram_room_bytes(store->arena, RAM_IMAGES);

    if (store->ram_waiters != NULL)
        return STORE_RED;
    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next)
        if (stream->waits_for_room || stream->waits_because[0] != '\0')
            return STORE_RED;
    return room < ram_region_bytes(store->arena, RAM_IMAGES) / 100 * YELLOW_PERCENT_FREE || is_slow(store)
               ? STORE_YELLOW
               : STORE_GREEN;
}

uint64_t store_credit_bytes(struct store *store)
{
    static const uint64_t parts[] = { [STORE_GREEN] = 1, [STORE_YELLOW] = 2, [STORE_RED] = 8 };
    uint64_t room = ram_room_bytes(store->arena, RAM_IMAGES);

    return room / (store->writer_count == 0 ? 1 : store->writer_count) / parts[store_pressure(store)];
}
