#include "kvstore/store_ageing.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/require.h"
#include "kvstore/store.h"
#include "kvstore/stream_hold.h"

enum { LOOK_MS_MIN = 20, LOOK_MS_MAX = 1000, LOOKS_A_STEP = 20, AGAIN_S = 10 };

static bool is_pressed(const struct store *store)
{
    return store->disk_used_bytes > store->options.disk_bytes / 100 * STORE_PRESSED_PERCENT;
}

const struct ageing_class *store_class_of(const struct stream *stream)
{
    const struct ageing_policy *policy = &stream->store->ageing_state.policy;
    const struct ageing_class *class = ageing_policy_find(policy, stream->definition.class);

    return class != NULL ? class : ageing_policy_find(policy, "");
}

static int64_t age_of(const struct segment *segment, int64_t now_ns)
{
    int64_t since_ns = segment->super.created_ns;

    if (segment->end_pts_ns > since_ns)
        since_ns = segment->end_pts_ns;
    return now_ns - since_ns;
}

static bool may_age(const struct segment *segment)
{
    return segment->writer == NULL && !segment->is_leaving && !segment->has_rival &&
           segment->stream->deletion == NULL && segment->age_not_before_ns <= clock_mono_ns() &&
           segment_held(segment) == NULL;
}

static void look_later(struct store *store, uint64_t ms);

static void aged(struct segment_age *age)
{
    struct store *store = age->store;

    if (!age->ok) {
        const struct log_context context = { .stream = age->segment->super.stream };

        age->segment->age_not_before_ns = clock_mono_ns() + AGAIN_S * 1000000000ull;
        if (age->st.code != STATUS_ABORTED)
            log_warn(&context, "segment_not_aged", "%s: %s; trying again", age->segment->base, age->st.text);
    } else {
        store->ageing_state.rewritten_segments++;
    }
    if (!store->is_closing)
        look_later(store, LOOK_MS_MIN);
}

/* False: nothing is due. */
static bool age_one(struct store *store, struct segment *segment, int64_t now_ns, uint32_t further)
{
    const struct ageing_class *class = store_class_of(segment->stream);
    struct segment_age *age = &store->ageing_state.age;
    uint32_t step;

    if (class->count == 0 || !may_age(segment))
        return false;
    step = ageing_class_step(class, age_of(segment, now_ns), further);
    if (step == class->count && further == 0)
        return store_remove_segment(store, segment);
    if (step == class->count || !segment_age_is_due(segment, &class->steps[step].aged))
        return false;
    *age = (struct segment_age){ .segment = segment,
                                 .transform = { .aged = class->steps[step].aged },
                                 .makes_room = is_pressed(store),
                                 .done = aged };
    segment_age_submit(store, age);
    return true;
}

static bool age_oldest(struct store *store, uint32_t further)
{
    int64_t now_ns = clock_utc_ns();

    for (struct segment *segment = store->oldest; segment != NULL; segment = segment->age_next)
        if (age_one(store, segment, now_ns, further))
            return true;
    return false;
}

static uint64_t look_ms(const struct store *store)
{
    int64_t ms = ageing_policy_shortest_ns(&store->ageing_state.policy) / 1000000 / LOOKS_A_STEP;

    return ms < LOOK_MS_MIN ? LOOK_MS_MIN : ms > LOOK_MS_MAX ? LOOK_MS_MAX : (uint64_t)ms;
}

static void look(struct loop_timer *timer)
{
    struct store *store = container_of(timer, struct store, ageing_state.timer);
    bool is_done =
        !segment_age_is_idle(store) || age_oldest(store, 0) || (is_pressed(store) && age_oldest(store, 1));

    if (!loop_timer_is_running(timer))
        look_later(store, is_done && store->removal != NULL ? LOOK_MS_MIN : look_ms(store));
}

static void look_later(struct store *store, uint64_t ms)
{
    loop_timer_start(store->loop, &store->ageing_state.timer, ms, look);
}

/* Classes that streams have and the policy does not: said, and treated as default. */
static void check_classes(const struct store *store)
{
    for (const struct stream *stream = store->streams; stream != NULL; stream = stream->next) {
        const struct log_context context = { .stream = stream->name };

        if (ageing_policy_find(&store->ageing_state.policy, stream->definition.class) == NULL)
            log_warn(&context, "class_unknown", "class %s is not in --ageing; its frames age as default",
                     stream->definition.class);
    }
}

void store_ageing_start(struct store *store)
{
    check_classes(store);
    if (ageing_policy_shortest_ns(&store->ageing_state.policy) < INT64_MAX)
        look_later(store, LOOK_MS_MIN);
}

void store_ageing_stop(struct store *store)
{
    loop_timer_stop(&store->ageing_state.timer);
}
