#include "kvstore/store_ageing.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/require.h"
#include "kvstore/store.h"
#include "kvstore/stream_hold.h"

enum {
    LOOK_MS_MIN = 20,
    LOOK_MS_MAX = 1000,
    LOOKS_A_STEP = 20,
    BLOCKED_LOOKS = 10,
    AGAIN_S = 10,
    AGAIN_S_MAX = 640,
    BACK_S = 60, /* a step back by less delays nothing that matters */
};

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

/* It went ahead and came back, or went back by itself: what is due is due at another time. */
static void believe_utc(struct store_ageing *ageing, int64_t offset_ns)
{
    if (ageing->is_utc_ahead)
        log_warn(NULL, "clock_back", "UTC is as before its step; frames age by it again");
    if (offset_ns < ageing->utc_offset_ns - BACK_S * 1000000000ll)
        ageing->quiet_until_ns[0] = ageing->quiet_until_ns[1] = 0;
    ageing->is_utc_ahead = false;
    ageing->utc_offset_ns = offset_ns;
}

int64_t store_now_ns(struct store *store)
{
    struct store_ageing *ageing = &store->ageing_state;
    int64_t boot_ns = clock_boot_ns(), offset_ns = clock_utc_ns() - boot_ns;
    int64_t step_ns = offset_ns - ageing->utc_offset_ns;

    if (ageing->utc_offset_ns == 0 || step_ns <= STORE_CLOCK_STEP_S * 1000000000ll) {
        believe_utc(ageing, offset_ns);
    } else if (!ageing->is_utc_ahead) {
        ageing->is_utc_ahead = true;
        log_error(
            NULL, "clock_stepped_ahead",
            "UTC went ahead by %lld s at once; frames age, and holds end, by the steady clock until it comes back, or, "
            "if it is right, until the store is started again",
            (long long)(step_ns / 1000000000));
    }
    return boot_ns + ageing->utc_offset_ns;
}

/* Since when it is as old as it is. */
static int64_t since_ns(const struct segment *segment)
{
    return segment->end_pts_ns > segment->super.created_ns ? segment->end_pts_ns : segment->super.created_ns;
}

static bool is_due(const struct ageing_class *class, const struct segment *segment, uint32_t step,
                   uint32_t further)
{
    if (step == class->count)
        return further == 0; /* it goes; earlier, only the budget makes it */
    return segment_age_is_due(segment, &class->steps[step].aged);
}

/* When something is to be done with it, `further` steps earlier than its age says; INT64_MAX: never. */
static int64_t due_ns(const struct segment *segment, int64_t now_ns, uint32_t further)
{
    const struct ageing_class *class = store_class_of(segment->stream);
    int64_t born_ns = since_ns(segment), at_ns = now_ns;

    if (class->count == 0)
        return INT64_MAX;
    for (uint32_t step = ageing_class_step(class, now_ns - born_ns, 0); step <= class->count; step++) {
        uint32_t then = step + further < class->count ? step + further : class->count;

        if (is_due(class, segment, then, further))
            return at_ns;
        if (step < class->count)
            at_ns = born_ns + class->steps[step].until_ns;
    }
    return INT64_MAX;
}

static bool may_age(const struct segment *segment)
{
    return segment->writer == NULL && !segment->is_leaving && !segment->has_rival &&
           segment->stream->deletion == NULL && segment->age_not_before_ns <= clock_mono_ns() &&
           segment_held(segment) == NULL;
}

static void look_later(struct store *store, uint64_t ms);

/* Twice as long each time that the disk has failed. */
static uint64_t wait_ns_of(const struct segment *segment)
{
    uint64_t s = AGAIN_S;

    for (uint32_t i = 1; i < segment->age_failures && s < AGAIN_S_MAX; i++)
        s *= 2;
    return s * 1000000000ull;
}

static void aged(struct segment_age *age)
{
    struct store *store = age->store;

    if (!age->ok) {
        const struct log_context context = { .stream = age->segment->super.stream };

        age->segment->age_not_before_ns = clock_mono_ns() + wait_ns_of(age->segment);
        if (age->st.code != STATUS_ABORTED)
            log_warn(&context, "segment_not_aged", "%s: %s; trying again", age->segment->base, age->st.text);
    } else {
        store->ageing_state.rewritten_segments++;
    }
    if (!store->is_closing)
        look_later(store, LOOK_MS_MIN);
}

/* What is due of it. False: it cannot be done now. */
static bool age_one(struct store *store, struct segment *segment, int64_t now_ns, uint32_t further)
{
    const struct ageing_class *class = store_class_of(segment->stream);
    uint32_t step = ageing_class_step(class, now_ns - since_ns(segment), further);

    if (!may_age(segment))
        return false;
    if (step == class->count)
        return store_remove_segment(store, segment);
    store->ageing_state.age = (struct segment_age){ .segment = segment,
                                                    .transform = { .aged = class->steps[step].aged },
                                                    .makes_room = is_pressed(store),
                                                    .done = aged };
    segment_age_submit(store, &store->ageing_state.age);
    return true;
}

static uint64_t look_ms(const struct store *store)
{
    int64_t ms = ageing_policy_shortest_ns(&store->ageing_state.policy) / 1000000 / LOOKS_A_STEP;

    return ms < LOOK_MS_MIN ? LOOK_MS_MIN : ms > LOOK_MS_MAX ? LOOK_MS_MAX : (uint64_t)ms;
}

static bool age_oldest(struct store *store, uint32_t further)
{
    int64_t *quiet_until_ns = &store->ageing_state.quiet_until_ns[further];
    int64_t now_ns = store_now_ns(store), next_ns = INT64_MAX;

    if (now_ns < *quiet_until_ns)
        return false;
    for (struct segment *segment = store->oldest; segment != NULL; segment = segment->newer) {
        int64_t at_ns = due_ns(segment, now_ns, further);

        if (at_ns <= now_ns && age_one(store, segment, now_ns, further))
            return true;
        if (at_ns <= now_ns)
            at_ns = now_ns + (int64_t)(BLOCKED_LOOKS * look_ms(store) * 1000000);
        if (at_ns < next_ns)
            next_ns = at_ns;
    }
    *quiet_until_ns = next_ns;
    return false;
}

void store_ageing_add(struct store *store, const struct segment *segment)
{
    for (uint32_t further = 0; further < 2; further++) {
        int64_t *quiet_until_ns = &store->ageing_state.quiet_until_ns[further];
        int64_t at_ns = due_ns(segment, store_now_ns(store), further);

        if (at_ns < *quiet_until_ns)
            *quiet_until_ns = at_ns;
    }
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
    store_now_ns(store); /* UTC is held against the clock of this moment */
    if (ageing_policy_shortest_ns(&store->ageing_state.policy) < INT64_MAX)
        look_later(store, LOOK_MS_MIN);
}

void store_ageing_stop(struct store *store)
{
    loop_timer_stop(&store->ageing_state.timer);
}
