/* How far back the store will remember: the budget, shared by all streams at the rates at which they come and with what their
 * classes make of them. */
#include "base/clock.h"
#include "kvstore/store.h"
#include "kvstore/store_ageing.h"

enum { RECENT_SEGMENTS = 4, KEEP_S = 5 };

#define FOREVER_NS (100ll * 365 * 86400 * 1000000000)

static bool is_as_it_came(const struct kv_aged *aged)
{
    return aged->thin <= 1 && aged->bits == 0 && !aged->keys_only;
}

/* Bytes on the disk for a second of capture, by the newest segments; 0: nobody writes, or there are too few yet. */
static double rate_of(const struct stream *stream)
{
    double bytes = 0, seconds = 0;
    uint32_t count = 0;

    if (stream->writer == NULL)
        return 0;
    for (uint32_t i = stream->segment_count; i > 0 && count < RECENT_SEGMENTS; i--) {
        const struct segment *segment = stream->segments[i - 1];
        const struct index_part *index = &segment->index;

        if (index->frame_count < 2 || !is_as_it_came(&segment->super.aged))
            continue;
        bytes +=
            (double)(index_part_at(index, index->frame_count - 1)->offset - index_part_at(index, 0)->offset);
        seconds += (double)(segment->end_pts_ns - index_part_at(index, 0)->pts_ns) / 1e9;
        count++;
    }
    return seconds > 0 ? bytes / seconds : 0;
}

/* What is left of a byte in this step. */
static double share_of(const struct kv_geometry *geometry, const struct kv_aged *aged)
{
    double payload = (double)kv_payload_bytes(geometry, 1), keys = (double)kv_keys_bytes(geometry), share = 1;

    if (aged->keys_only)
        share = keys / payload;
    else if (aged->bits != 0)
        share = (double)kv_encoding_bytes(geometry, kv_quant_encoding(geometry, aged->bits), 1) /
                (double)kv_slice_bytes(geometry, 1);
    return aged->thin > 1 ? share / aged->thin : share;
}

/* That a stream of this rate takes when frames go at this age. */
static double bytes_at(const struct stream *stream, double rate, int64_t horizon_ns)
{
    const struct ageing_class *class = store_class_of(stream);
    int64_t from_ns = 0;
    double bytes = 0;

    if (class->count == 0)
        return rate * (double)horizon_ns / 1e9;
    for (uint32_t i = 0; i < class->count && from_ns < horizon_ns; i++) {
        int64_t to_ns = class->steps[i].until_ns < horizon_ns ? class->steps[i].until_ns : horizon_ns;

        bytes += rate * (double)(to_ns - from_ns) / 1e9 * share_of(&stream->geometry, &class->steps[i].aged);
        from_ns = to_ns;
    }
    return bytes;
}

static double all_bytes_at(const struct store *store, int64_t horizon_ns)
{
    double bytes = 0;

    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next) {
        double rate = rate_of(stream);

        bytes += STORE_STREAM_DISK_BYTES + (rate > 0 ? bytes_at(stream, rate, horizon_ns) : 0);
    }
    return bytes;
}

/* The oldest go first whatever their stream, so that there is one age for all. */
static int64_t find_horizon(const struct store *store)
{
    double room = (double)store->options.disk_bytes;
    int64_t low_ns = 0, high_ns = FOREVER_NS;

    while (high_ns - low_ns > 1000000000) {
        int64_t middle_ns = low_ns + (high_ns - low_ns) / 2;

        if (all_bytes_at(store, middle_ns) <= room)
            low_ns = middle_ns;
        else
            high_ns = middle_ns;
    }
    return low_ns;
}

/* It says about how long: two digits of seconds, and so the same most of the time. */
static int64_t in_two_digits(int64_t ns)
{
    int64_t step_ns = 1000000000;

    while (ns / step_ns >= 100)
        step_ns *= 10;
    return ns / step_ns * step_ns;
}

int64_t store_remembers_ns(struct store *store, const struct stream *stream)
{
    struct store_ageing *state = &store->ageing_state;
    const struct ageing_class *class = store_class_of(stream);
    uint64_t now_ns = clock_mono_ns();
    int64_t remembers_ns;

    if (rate_of(stream) <= 0)
        return 0;
    if (state->horizon_at_ns == 0 || now_ns - state->horizon_at_ns > KEEP_S * 1000000000ull) {
        state->horizon_ns = find_horizon(store);
        state->horizon_at_ns = now_ns;
    }
    remembers_ns = state->horizon_ns;
    if (class->count > 0 && class->steps[class->count - 1].until_ns < remembers_ns)
        remembers_ns = class->steps[class->count - 1].until_ns;
    return in_two_digits(remembers_ns);
}
