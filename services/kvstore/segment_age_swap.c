/* The file that was made takes the place of the one that it was made from, in memory. */
#include <stdio.h>

#include "base/log.h"
#include "kvstore/segment_age_internal.h"
#include "kvstore/segment_age_job.h"
#include "kvstore/segment_scan.h"
#include "kvstore/store.h"

struct segment *segment_age_adopt(struct segment_age *age, struct status *st)
{
    struct age_job *job = age->job;
    struct segment *made = segment_create(age->segment->stream, &job->super, 0);
    const char *note = job->list.notes;

    if (made == NULL || !segment_drop_writer(made, job->base)) {
        segment_destroy(made);
        status_fail(st, STATUS_EXHAUSTED, "no memory for a segment");
        return NULL;
    }
    made->state = SEGMENT_SEALED;
    for (uint32_t i = 0; i < job->list.entry_count; i++) {
        const struct kv_entry *entry = &job->list.entries[i];

        if (entry->type == KV_RECORD_FRAME) {
            segment_scan_follow(made, entry);
        } else if (!segment_scan_add(made, entry, note, st)) {
            segment_destroy(made);
            return NULL;
        }
        note += entry->note_bytes;
    }
    made->disk_bytes = job->taken;
    made->index = job->index;
    job->index = (struct index_part){ 0 };
    return made;
}

/* Runs of numbers, as far as there is room. */
static void write_numbers(const struct age_job *job, char *text, size_t room)
{
    size_t len = 0;

    text[0] = '\0';
    for (uint32_t i = 0, last; i < job->lost_count && len < room; i = last + 1) {
        for (last = i; last + 1 < job->lost_count && job->lost[last + 1] == job->lost[last] + 1;)
            last++;
        len += (size_t)snprintf(text + len, room - len, last == i ? "%s%llu" : "%s%llu to %llu",
                                i == 0 ? "" : ", ", (unsigned long long)job->lost[i],
                                (unsigned long long)job->lost[last]);
    }
}

/* What the new file does not have, though nobody wanted it to go: said once, and counted as when a reader finds it. */
static void tell_lost(const struct segment_age *age)
{
    const struct age_job *job = age->job;
    const struct log_context context = { .stream = job->super.stream };
    char numbers[200];

    for (uint32_t i = 0; i < job->lost_count; i++) /* what readers have found is counted */
        age->store->quarantined_frames +=
            !index_part_find(&age->segment->index, job->lost[i])->is_quarantined;
    write_numbers(job, numbers, sizeof numbers);
    if (job->lost_count > 0)
        log_error(&context, "frames_given_up", "%s: %u frames, damaged or never read, go with it: %s; %s",
                  age->segment->base, job->lost_count, numbers, job->lost_to.text);
    if (job->has_lost_init)
        log_error(&context, "init_given_up", "%s: its system prompt's block goes with it; %s",
                  age->segment->base, job->lost_to.text);
}

static void move_index(struct store *store, struct segment *old, struct segment *made)
{
    index_part_replace(&old->index, &made->index, made, &store->index_memory, store->arena);
    for (uint64_t n = 0; n < made->index.frame_count; n++)
        made->quarantined_frames += index_part_at(&made->index, n)->is_quarantined;
}

void segment_age_swap(struct segment_age *age)
{
    struct segment *old = age->segment;
    struct store *store = age->store;

    age->dropped_frames = age->job->dropped_frames;
    age->bytes_before = old->disk_bytes;
    age->bytes_after = age->made->disk_bytes;
    store->disk_used_bytes -= age->reserved_bytes;
    store->disk_used_bytes += age->made->disk_bytes;
    age->reserved_bytes = 0;
    tell_lost(age);
    stream_replace_segment(old->stream, old, age->made);
    store_replace_segment(store, old, age->made);
    move_index(store, old, age->made);
    age->made->is_leaving = old->is_leaving; /* its stream may go since the file got its name */
    old->is_leaving = true;
    for (struct segment_age *other = age; other != NULL; other = other->next)
        if (other->segment == old) { /* those that wait for their turn rewrite what was made */
            old->reads--;
            age->made->reads++; /* it stays until done() */
            if (other != age)
                other->segment = age->made;
        }
    age->step = AGE_LEAVING;
}
