#include "kvstore/slice_sender.h"

#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "kvstore/kvstore_shm.h"

enum { RETRY_AFTER_MS = 100 };

/* A target's reads, and what is sent of them. Held by the sender until sent, or, when it is a lease, until the end; and by
 * each attachment on its way. */
struct slice_item {
    struct slice_sender *sender; /* NULL: the call is over */
    struct slice_item *next;
    const struct slice_target *target; /* not used once the sender has gone */
    struct slice_read slice, thumbnail;
    bool has_slice, has_thumbnail;
    bool is_shared;                /* its place is told: its call has a lease on the slot */
    bool has_lease;                /* this item is the lease */
    bool is_read;                  /* its bytes were not in shared memory when it was made */
    struct slice_item *next_lease; /* another call's, on the same slot */
    uint32_t pending;              /* reads under way */
    uint32_t refs;
    bool is_head_sent;
    uint64_t sent_bytes;
};

static void item_unref(struct slice_item *item)
{
    if (--item->refs > 0)
        return;
    if (item->has_slice)
        slice_read_release(&item->slice);
    if (item->has_thumbnail)
        slice_read_release(&item->thumbnail);
    free(item);
}

static void attachment_released(void *arg)
{
    item_unref(arg);
}

static void pump(struct slice_sender *sender);

static void read_arrived(struct slice_item *item)
{
    struct slice_sender *sender = item->sender;

    item->pending--;
    item_unref(item); /* the read's own */
    if (sender != NULL)
        pump(sender);
}

static void settle(struct slice_item *item);

static void slice_done(struct slice_read *read)
{
    struct slice_item *item = container_of(read, struct slice_item, slice);

    settle(item);
    read_arrived(item);
}

static void thumbnail_done(struct slice_read *read)
{
    read_arrived(container_of(read, struct slice_item, thumbnail));
}

/* True: the answer is there. */
static bool start_read(struct slice_item *item, struct slice_read *read, uint32_t layer, bool is_shared)
{
    *read = (struct slice_read){ .store = item->sender->kvstore->store,
                                 .frame = item->target->frame,
                                 .layer = layer,
                                 .parts = item->target->parts,
                                 .is_shared = is_shared,
                                 .done = read == &item->slice ? slice_done : thumbnail_done };
    item->refs++;
    item->pending++;
    if (!slice_read_start(read))
        return false;
    item->refs--;
    item->pending--;
    return true;
}

/* The heads of a message behind its first. */
struct slice_heads {
    Reelkv__V1__SliceHead more[SLICE_SENDER_PLACES], *list[SLICE_SENDER_PLACES];
    Reelkv__V1__ShmPlace places[SLICE_SENDER_PLACES];
};

/* --- leases --- */

static bool is_leased_by(const struct ram_slot *slot, const struct slice_sender *sender)
{
    for (const struct slice_item *item = slot->leases; item != NULL; item = item->next_lease)
        if (item->sender == sender)
            return true;
    return false;
}

/* A slot counts once for a call, and once for all calls, whoever else holds it. */
static bool take_lease(struct slice_item *item, struct ram_slot *slot)
{
    struct slice_sender *sender = item->sender;
    struct store *store = sender->kvstore->store;
    uint64_t room = ram_region_bytes(store->arena, slot->region);
    uint64_t *own = &sender->leased_bytes[slot->region], *all = &store->leased_bytes[slot->region];

    if (is_leased_by(slot, sender))
        return true;
    if (*own + slot->bytes > room / 4 || (slot->leases == NULL && *all + slot->bytes > room / 2))
        return false;
    *own += slot->bytes;
    *all += slot->leases == NULL ? slot->bytes : 0;
    item->next_lease = slot->leases;
    slot->leases = item;
    item->has_lease = true;
    return true;
}

static void end_lease(struct slice_item *item)
{
    struct ram_slot *slot = item->slice.slot;
    struct slice_item **link;

    if (!item->has_lease)
        return;
    for (link = &slot->leases; *link != item; link = &(*link)->next_lease)
        ;
    *link = item->next_lease;
    item->has_lease = false;
    if (slot->leases == NULL)
        item->sender->kvstore->store->leased_bytes[slot->region] -= slot->bytes;
}

/* The slice is there. What may not be leased goes inline, and is checked before that. */
static void settle(struct slice_item *item)
{
    struct slice_read *read = &item->slice;

    if (item->sender == NULL || !read->is_shared || !frame_result_has_bytes(read->result))
        return;
    item->is_shared = read->slot->generation != 0 && take_lease(item, read->slot);
    if (item->is_shared || read->is_from_disk)
        return;
    slice_read_release(read);
    start_read(item, read, read->layer, false);
}

static bool can_share(const struct slice_sender *sender)
{
    const struct kvstore *kvstore = sender->kvstore;

    return sender->shm_session != 0 && kvstore->shm != NULL &&
           kvstore_shm_has_session(kvstore->shm, sender->shm_session);
}

/* NULL: no memory; the next pump tries again, when there is one. */
static struct slice_item *item_create(struct slice_sender *sender, const struct slice_target *target)
{
    struct slice_item *item = calloc(1, sizeof *item);

    if (item == NULL)
        return NULL;
    item->sender = sender;
    item->target = target;
    item->refs = 1;
    if (target->frame == NULL)
        return item;
    item->has_slice = target->wants_slice;
    item->has_thumbnail = target->wants_thumbnail;
    if (item->has_slice && start_read(item, &item->slice, target->layer, can_share(sender)))
        settle(item);
    if (item->has_thumbnail)
        start_read(item, &item->thumbnail, SLICE_THUMBNAIL, false);
    return item;
}

/* Keeps reads ahead of the sending. */
static void read_ahead(struct slice_sender *sender)
{
    while (sender->next_read < sender->count && sender->ahead < SLICE_SENDER_PLACES &&
           sender->reading < SLICE_SENDER_WINDOW) {
        struct slice_item *item = item_create(sender, &sender->targets[sender->next_read]);

        if (item == NULL)
            return;
        item->is_read = item->pending > 0 || !item->is_shared;
        sender->next_read++;
        sender->ahead++;
        sender->reading += item->is_read;
        *sender->last_link = item;
        sender->last_link = &item->next;
    }
}

static enum frame_result result_of(const struct slice_item *item)
{
    const struct index_frame *frame = item->target->frame;

    if (frame == NULL)
        return frame_result_of_absence(item->target->absence);
    if (item->has_slice)
        return item->slice.result;
    if (item->has_thumbnail)
        return item->thumbnail.result;
    if (frame->chunk->segment == NULL || !frame->has_slices)
        return FRAME_EVICTED;
    return frame->encoding.bits != 0 ? FRAME_DERIVED : FRAME_OK;
}

static void fill_head(const struct slice_item *item, Reelkv__V1__SliceHead *head, Reelkv__V1__ShmPlace *place)
{
    const struct slice_target *target = item->target;

    reelkv__v1__slice_head__init(head);
    head->index = target->index;
    head->layer = target->layer;
    head->result = (Reelkv__V1__FrameResult)result_of(item);
    if (target->frame != NULL) {
        head->tokens = target->frame->tokens;
        head->pts_ns = target->frame->pts_ns;
    }
    if (item->has_slice && frame_result_has_bytes(item->slice.result)) {
        head->length = item->slice.length;
        head->crc32c = item->slice.crc;
    }
    if (item->has_thumbnail && item->thumbnail.result == FRAME_OK)
        head->thumbnail =
            (ProtobufCBinaryData){ item->thumbnail.length, (uint8_t *)(uintptr_t)item->thumbnail.bytes };
    if (!item->is_shared)
        return;
    reelkv__v1__shm_place__init(place);
    place->pool = kvstore_shm_arena_pool(item->sender->kvstore->shm);
    place->offset = item->slice.slot->offset +
                    (uint64_t)(item->slice.bytes - ram_bytes(item->slice.store->arena, item->slice.slot));
    place->length = item->slice.length;
    place->generation = item->slice.slot->generation;
    head->place = place;
}

static bool has_bytes(const struct slice_item *item)
{
    return item->has_slice && frame_result_has_bytes(item->slice.result) && !item->is_shared;
}

/* Those right behind the first that are shared as it is, in its message: a message costs about as much as copying a slice.
 * Returns their number. */
static uint32_t fill_more(const struct slice_item *first, struct slice_heads *heads)
{
    uint32_t count = 0;

    for (const struct slice_item *item = first->next; item != NULL && count < SLICE_SENDER_PLACES;
         item = item->next) {
        if (item->pending > 0 || !item->is_shared || item->has_thumbnail)
            break;
        fill_head(item, &heads->more[count], &heads->places[count]);
        heads->list[count] = &heads->more[count];
        count++;
    }
    return count;
}

/* The next message of the item, which is the first. False: the call takes nothing now. */
static bool send_message(struct slice_sender *sender, struct slice_item *item)
{
    Reelkv__V1__SliceReply reply = REELKV__V1__SLICE_REPLY__INIT;
    struct rpc_attachment attachment = { .release = attachment_released, .arg = item };
    Reelkv__V1__SliceHead head;
    Reelkv__V1__ShmPlace place;
    struct slice_heads heads;
    uint64_t left = has_bytes(item) ? item->slice.length - item->sent_bytes : 0;

    if (!item->is_head_sent) {
        fill_head(item, &head, &place);
        reply.head = &head;
    }
    if (item->is_shared) {
        reply.n_more = fill_more(item, &heads);
        reply.more = heads.list;
    }
    if (left > 0)
        attachment.data = item->slice.bytes + item->sent_bytes;
    attachment.len = left < LIMIT_CHUNK_BYTES ? left : LIMIT_CHUNK_BYTES;
    item->refs += left > 0;
    if (!sender->write(sender, &reply, left > 0 ? &attachment : NULL)) {
        item->refs -= left > 0;
        return false;
    }
    item->is_head_sent = true;
    item->sent_bytes += attachment.len;
    for (size_t i = 0; i < reply.n_more; i++) {
        item = item->next;
        item->is_head_sent = true;
    }
    return true;
}

static bool is_sent(const struct slice_item *item)
{
    return item->is_head_sent && (!has_bytes(item) || item->sent_bytes == item->slice.length);
}

static void take_first(struct slice_sender *sender)
{
    struct slice_item *item = sender->first;

    sender->first = item->next;
    if (sender->first == NULL)
        sender->last_link = &sender->first;
    sender->ahead--;
    sender->reading -= item->is_read;
    if (item->has_lease) {
        item->next = sender->leases;
        sender->leases = item;
    } else {
        item_unref(item);
    }
}

/* Not even for one read: nothing will come that could ask again. */
static void end_without_memory(struct slice_sender *sender)
{
    struct status st;

    sender->is_running = false;
    status_fail(&st, STATUS_EXHAUSTED, "no memory to send a block");
    st.retry_after_ms = RETRY_AFTER_MS;
    rpc_call_finish(sender->call, &st);
}

static void pump(struct slice_sender *sender)
{
    if (sender->is_busy) /* from within: the loop below sees it */
        return;
    sender->is_busy = true;
    read_ahead(sender);
    while (sender->first != NULL && sender->first->pending == 0) {
        if (!is_sent(sender->first) && !send_message(sender, sender->first))
            break;
        if (is_sent(sender->first))
            take_first(sender);
        read_ahead(sender);
    }
    sender->is_busy = false;
    if (!sender->is_running || sender->first != NULL)
        return;
    if (sender->next_read < sender->count) {
        end_without_memory(sender);
        return;
    }
    sender->is_running = false;
    sender->finished(sender);
}

void slice_sender_init(struct slice_sender *sender)
{
    sender->last_link = &sender->first;
}

void slice_sender_resume(struct slice_sender *sender)
{
    if (sender->is_running)
        pump(sender);
}

static void let_go(struct slice_item *item)
{
    while (item != NULL) {
        struct slice_item *next = item->next;

        end_lease(item);
        item->sender = NULL;
        item->next = NULL;
        if (item->has_slice && slice_read_cancel(&item->slice))
            item->refs--;
        if (item->has_thumbnail && slice_read_cancel(&item->thumbnail))
            item->refs--;
        item_unref(item);
        item = next;
    }
}

static void end_leases(struct slice_sender *sender)
{
    let_go(sender->leases);
    sender->leases = NULL;
    memset(sender->leased_bytes, 0, sizeof sender->leased_bytes);
}

void slice_sender_start(struct slice_sender *sender, const struct slice_target *targets, uint32_t count)
{
    REQUIRE(!sender->is_running);
    REQUIRE(sender->first == NULL);
    end_leases(sender);
    sender->targets = targets;
    sender->count = count;
    sender->next_read = 0;
    sender->is_running = true;
    pump(sender);
}

void slice_sender_deinit(struct slice_sender *sender)
{
    let_go(sender->first);
    end_leases(sender);
    sender->first = NULL;
    sender->last_link = &sender->first;
    sender->is_running = false;
}
