#include "feed.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "feed_internal.h"

enum { HELLO_MS = 5000 };

/* ------------------------------------------------------------------------------------- life and death */

void feed_item_free(struct feed_item *item)
{
    if (item == NULL)
        return;
    free(item->embeddings);
    free(item->text);
    free(item->thumbnail);
    free(item);
}

/* The feed goes when its call is over, the store's call has ended, and the engine has let go. */
void feed_release(struct feed *feed)
{
    if (!feed->over || feed->store_call != NULL || feed->job.running || feed->restoring)
        return;
    while (feed->first != NULL) {
        struct feed_item *next = feed->first->next;

        feed_item_free(feed->first);
        feed->first = next;
    }
    if (feed->job_slot != NULL)
        block_slot_unref(feed->job_slot);
    store_link_unref(feed->store_link);
    model_window_destroy(feed->window);
    free(feed);
}

/* The call is over, for whatever reason: everything else is told to end. */
static void on_call_end(struct rpc_call *call, void *user)
{
    struct feed *feed = user;

    feed->call = NULL;
    feed->over = true;
    loop_timer_stop(&feed->hello);
    if (feed->state == FEED_RUNNING)
        log_info(&feed->log, "feed_ended", "at frame %llu, durable %llu",
                 (unsigned long long)feed->stored_seq, (unsigned long long)feed->durable_seq);
    *feed->link = feed->next;
    if (feed->next != NULL)
        feed->next->link = feed->link;
    feed->analyzer->feed_count--;
    engine_withdraw(feed->analyzer->engine, &feed->job);
    if (feed->store_link != NULL)
        store_link_forget(feed->store_link, feed);
    feed_window_abandon(feed);
    feed_append_abandon(feed);
    feed_release(feed);
}

void feed_fail(struct feed *feed, const struct status *failure)
{
    if (feed->call == NULL)
        return;
    if (feed->state != FEED_HELLO)
        log_warn(&feed->log, "feed_failed", "%s", failure->text);
    rpc_call_finish(feed->call, failure);
}

bool feed_fail_now(struct feed *feed, enum status_code code, const char *format, ...)
{
    struct status st = { .code = code };
    va_list args;

    va_start(args, format);
    vsnprintf(st.text, sizeof st.text, format, args);
    va_end(args);
    feed_fail(feed, &st);
    return false;
}

/* --------------------------------------------------------------------------- what the encoder says */

static void on_message(struct rpc_call *call, const struct rpc_message *message, void *user);

/* One read at a time, and none while `credits` frames wait: then the transport stalls the encoder. */
static void read_more(struct feed *feed)
{
    if (feed->call == NULL || feed->reading || feed->half_closed ||
        feed->queued >= feed->analyzer->options->credits)
        return;
    feed->reading = true;
    rpc_call_read(feed->call, on_message);
}

static void enqueue(struct feed *feed, struct feed_item *item)
{
    *feed->last_link = item;
    feed->last_link = &item->next;
    feed->queued++;
}

static bool take_hello(struct feed *feed, const Reelkv__V1__IngestHello *hello, struct status *st)
{
    const struct model_geometry *geometry = model_geometry(feed->analyzer->model);
    char own[2 * MODEL_FINGERPRINT_BYTES + 1], theirs[2 * MODEL_FINGERPRINT_BYTES + 1] = "none";

    if (hello->id == NULL)
        return status_fail(st, STATUS_INVALID, "Hello.id is missing");
    if (!name_check("namespace", hello->id->namespace_, st) || !name_check("stream", hello->id->name, st) ||
        !name_check("store", hello->store, st) || !name_check("encoder", hello->encoder, st))
        return false;
    if (hello->fingerprint.len != MODEL_FINGERPRINT_BYTES ||
        memcmp(hello->fingerprint.data, geometry->fingerprint, MODEL_FINGERPRINT_BYTES) != 0) {
        hex_write(geometry->fingerprint, MODEL_FINGERPRINT_BYTES, own);
        if (hello->fingerprint.len == MODEL_FINGERPRINT_BYTES)
            hex_write(hello->fingerprint.data, MODEL_FINGERPRINT_BYTES, theirs);
        return status_fail(
            st, STATUS_PRECONDITION,
            "encoder %s has model %s, this analyzer %s: start both with the same model folder, dtype "
            "and n_local",
            hello->encoder, theirs, own);
    }
    text_copy(feed->ns, sizeof feed->ns, hello->id->namespace_);
    text_copy(feed->name, sizeof feed->name, hello->id->name);
    text_copy(feed->store, sizeof feed->store, hello->store);
    text_copy(feed->encoder, sizeof feed->encoder, hello->encoder);
    snprintf(feed->log_name, sizeof feed->log_name, "%s/%s", feed->ns, feed->name);
    feed->log.stream = feed->log_name;
    feed->expected_frames = hello->expected_frames;
    return true;
}

static bool copy_payload(struct feed_item *item, const struct rpc_payload *payload, size_t bytes)
{
    item->embeddings = malloc(bytes);
    if (item->embeddings != NULL)
        rpc_payload_copy(payload, 0, item->embeddings, bytes);
    return item->embeddings != NULL;
}

static bool take_frame(struct feed *feed, const Reelkv__V1__IngestFrame *frame,
                       const struct rpc_payload *payload, struct status *st)
{
    const struct model_geometry *geometry = model_geometry(feed->analyzer->model);
    size_t bytes = (size_t)frame->tokens * frame->hidden * sizeof(float);
    struct feed_item *item;

    if (frame->seq != feed->received_seq)
        return status_fail(st, STATUS_INVALID, "frame %llu came where %llu was due",
                           (unsigned long long)frame->seq, (unsigned long long)feed->received_seq);
    if (frame->hidden != geometry->hidden || frame->tokens == 0 || frame->tokens > geometry->frame_tokens)
        return status_fail(st, STATUS_INVALID, "frame %llu has [%u, %u] embeddings, not [1 to %u, %u]",
                           (unsigned long long)frame->seq, frame->tokens, frame->hidden,
                           geometry->frame_tokens, geometry->hidden);
    if (payload->len != bytes || frame->thumbnail.len > LIMIT_THUMBNAIL_BYTES)
        return status_fail(st, STATUS_INVALID,
                           "frame %llu has %zu bytes of embeddings (not %zu), %zu of thumbnail",
                           (unsigned long long)frame->seq, payload->len, bytes, frame->thumbnail.len);
    item = calloc(1, sizeof *item);
    if (item == NULL || !copy_payload(item, payload, bytes) ||
        (frame->thumbnail.len > 0 && (item->thumbnail = malloc(frame->thumbnail.len)) == NULL)) {
        feed_item_free(item);
        return status_fail(st, STATUS_EXHAUSTED, "no memory for frame %llu", (unsigned long long)frame->seq);
    }
    item->kind = ITEM_FRAME;
    item->seq = frame->seq;
    item->pts_ns = frame->pts_ns;
    item->tokens = frame->tokens;
    item->thumbnail_bytes = (uint32_t)frame->thumbnail.len;
    if (frame->thumbnail.len > 0)
        memcpy(item->thumbnail, frame->thumbnail.data, frame->thumbnail.len);
    feed->received_seq++;
    enqueue(feed, item);
    return true;
}

static bool take_gap(struct feed *feed, const Reelkv__V1__IngestGap *gap, struct status *st)
{
    struct feed_item *item;

    if (gap->from_seq != feed->received_seq || gap->to_seq <= gap->from_seq)
        return status_fail(st, STATUS_INVALID, "gap %llu..%llu came where frame %llu was due",
                           (unsigned long long)gap->from_seq, (unsigned long long)gap->to_seq,
                           (unsigned long long)feed->received_seq);
    item = calloc(1, sizeof *item);
    if (item == NULL || (item->text = strndup(gap->reason, STATUS_TEXT_BYTES)) == NULL) {
        feed_item_free(item);
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a gap");
    }
    item->kind = ITEM_GAP;
    item->seq = gap->from_seq;
    item->to_seq = gap->to_seq;
    item->pts_ns = gap->from_pts_ns;
    item->to_pts_ns = gap->to_pts_ns;
    feed->received_seq = gap->to_seq;
    enqueue(feed, item);
    return true;
}

static bool take_end(struct feed *feed, const Reelkv__V1__IngestEnd *end, struct status *st)
{
    struct feed_item *item = calloc(1, sizeof *item);

    if (item == NULL || (item->text = strndup(end->trouble, STATUS_TEXT_BYTES)) == NULL) {
        feed_item_free(item);
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the end");
    }
    item->kind = ITEM_END;
    feed->half_closed = true;
    enqueue(feed, item);
    return true;
}

static bool take_item(struct feed *feed, const struct rpc_message *message, struct status *st)
{
    const Reelkv__V1__PushRequest *request = (const Reelkv__V1__PushRequest *)message->body;
    bool first = feed->state == FEED_HELLO;

    if (first != (request->item_case == REELKV__V1__PUSH_REQUEST__ITEM_HELLO))
        return status_fail(st, STATUS_INVALID,
                           first ? "the first message must be Hello" : "Hello came twice");
    switch (request->item_case) {
    case REELKV__V1__PUSH_REQUEST__ITEM_HELLO:
        return take_hello(feed, request->hello, st);
    case REELKV__V1__PUSH_REQUEST__ITEM_FRAME:
        return take_frame(feed, request->frame, &message->payload, st);
    case REELKV__V1__PUSH_REQUEST__ITEM_GAP:
        return take_gap(feed, request->gap, st);
    case REELKV__V1__PUSH_REQUEST__ITEM_END:
        return take_end(feed, request->end, st);
    default:
        return status_fail(st, STATUS_INVALID, "a message with nothing in it");
    }
}

static void on_message(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    struct feed *feed = user;
    bool first = feed->state == FEED_HELLO;
    struct status st = { 0 };

    feed->reading = false;
    loop_timer_stop(&feed->hello);
    if (message == NULL) {
        feed->half_closed = true;
        if (first)
            feed_fail_now(feed, STATUS_INVALID, "the call ended before Hello");
        else
            feed_advance(feed);
        return;
    }
    if (!take_item(feed, message, &st)) {
        feed_fail(feed, &st);
        return;
    }
    if (first) {
        feed_window_open(feed); /* reading goes on once the window is ready */
        return;
    }
    feed_advance(feed);
    read_more(feed);
}

static void on_writable(struct rpc_call *call, void *user);

/* A call that says nothing must not hold a stream's place. */
static void no_hello(struct loop_timer *timer)
{
    struct feed *feed = container_of(timer, struct feed, hello);

    feed_fail_now(feed, STATUS_UNAVAILABLE, "no Hello came within %d ms; call again", HELLO_MS);
}

/* A feed's memory, or NULL and why it is not taken now. */
static struct feed *feed_admit(const struct analyzer *analyzer, struct status *st)
{
    struct feed *feed = NULL;

    if (analyzer->draining)
        status_fail(st, STATUS_UNAVAILABLE, "this analyzer is shutting down");
    else if (analyzer->feed_count >= analyzer->options->max_streams)
        status_fail(st, STATUS_EXHAUSTED, "this analyzer has its %u streams", analyzer->options->max_streams);
    else if ((feed = calloc(1, sizeof *feed)) == NULL)
        status_fail(st, STATUS_EXHAUSTED, "no memory for a stream");
    return feed;
}

void feed_open(struct rpc_call *call, void *analyzer_)
{
    struct analyzer *analyzer = analyzer_;
    struct status st = { 0 };
    struct feed *feed = feed_admit(analyzer, &st);

    if (feed == NULL) {
        st.retry_after_ms = 1000;
        rpc_call_finish(call, &st);
        return;
    }
    feed->analyzer = analyzer;
    feed->call = call;
    feed->last_link = &feed->first;
    feed->sent_link = &feed->sent;
    feed->next = analyzer->feeds;
    feed->link = &analyzer->feeds;
    if (feed->next != NULL)
        feed->next->link = &feed->next;
    analyzer->feeds = feed;
    analyzer->feed_count++;
    rpc_call_set_user(call, feed);
    rpc_call_on_end(call, on_call_end);
    rpc_call_on_writable(call, on_writable);
    loop_timer_start(analyzer->loop, &feed->hello, HELLO_MS, no_hello);
    read_more(feed);
}

/* -------------------------------------------------------------------------- queue -> engine -> store */

static bool reply(struct feed *feed, const Reelkv__V1__PushReply *message)
{
    return feed->call != NULL && rpc_call_write(feed->call, &message->base, NULL);
}

void feed_running(struct feed *feed)
{
    Reelkv__V1__IngestReady ready = REELKV__V1__INGEST_READY__INIT;
    Reelkv__V1__PushReply message = REELKV__V1__PUSH_REPLY__INIT;

    feed->state = FEED_RUNNING;
    log_info(&feed->log, "feed_open", "from %s, epoch %llu, frame %llu, %s", feed->encoder,
             (unsigned long long)feed->epoch, (unsigned long long)feed->received_seq,
             feed->shm_pool != 0 ? "shared memory" : "chunks");
    ready.epoch = feed->epoch;
    ready.next_seq = feed->received_seq;
    ready.durable_seq = feed->durable_seq;
    ready.credits = feed->analyzer->options->credits;
    message.item_case = REELKV__V1__PUSH_REPLY__ITEM_READY;
    message.ready = &ready;
    reply(feed, &message);
    read_more(feed);
}

void feed_acknowledge(struct feed *feed)
{
    Reelkv__V1__IngestAck ack = REELKV__V1__INGEST_ACK__INIT;
    Reelkv__V1__PushReply message = REELKV__V1__PUSH_REPLY__INIT;

    ack.stored_seq = feed->stored_seq;
    ack.durable_seq = feed->durable_seq;
    ack.credits = feed->analyzer->options->credits;
    message.item_case = REELKV__V1__PUSH_REPLY__ITEM_ACK;
    message.ack = &ack;
    feed->ack_due = !reply(feed, &message); /* full: once there is room again */
    if (feed->finished && !feed->ack_due)
        rpc_call_finish(feed->call, NULL);
}

static void on_writable(struct rpc_call *call, void *user)
{
    struct feed *feed = user;

    if (feed->ack_due)
        feed_acknowledge(feed);
}

void feed_finished(struct feed *feed)
{
    feed->finished = true;
    feed_acknowledge(feed);
}

static void pop(struct feed *feed)
{
    struct feed_item *item = feed->first;

    feed->first = item->next;
    if (feed->first == NULL)
        feed->last_link = &feed->first;
    feed->queued--;
    feed_item_free(item);
}

static void on_pushed(struct engine_job *job, const struct status *failure)
{
    struct feed *feed = container_of(job, struct feed, job);
    struct block_slot *slot = feed->job_slot;

    if (feed->over) {
        feed_release(feed);
        return;
    }
    if (failure != NULL) {
        feed_fail(feed, failure);
        return;
    }
    feed->job_slot = NULL;
    feed_append_block(feed, feed->first, slot);
    pop(feed);
    feed_advance(feed);
    read_more(feed);
}

static void push_frame(struct feed *feed)
{
    struct feed_item *item = feed->first;

    feed->job_slot = block_pool_take(feed->analyzer->blocks);
    if (feed->job_slot == NULL) {
        if (feed->slot_ticket == 0)
            feed->slot_ticket = ++feed->analyzer->slot_tickets;
        return;
    }
    feed->slot_ticket = 0;
    feed->job.push =
        (struct model_push){ feed->window, item->embeddings, item->tokens, feed->job_slot->bytes };
    feed->job.pushed = on_pushed;
    engine_offer(feed->analyzer->engine, &feed->job);
}

void feed_advance(struct feed *feed)
{
    while (feed->state == FEED_RUNNING && feed->call != NULL && feed->first != NULL &&
           feed_append_ready(feed)) {
        if (feed->first->kind == ITEM_FRAME) {
            if (feed->job_slot == NULL)
                push_frame(feed);
            return;
        }
        if (feed->first->kind == ITEM_GAP) {
            feed_append_gap(feed, feed->first);
        } else {
            feed->state = FEED_ENDING;
            feed_append_end(feed, feed->first);
        }
        pop(feed);
    }
    if (feed->state == FEED_RUNNING && feed->half_closed && feed->first == NULL && feed->call != NULL &&
        feed_append_ready(feed)) {
        feed->state = FEED_ENDING;
        feed_append_end(feed, NULL);
    }
}

static struct feed *longest_waiting(const struct analyzer *analyzer)
{
    struct feed *longest = NULL;

    for (struct feed *feed = analyzer->feeds; feed != NULL; feed = feed->next)
        if (feed->slot_ticket != 0 && (longest == NULL || feed->slot_ticket < longest->slot_ticket))
            longest = feed;
    return longest;
}

/* Whose call to the store has ended takes none: then it is the next one's. */
void feeds_slot_freed(struct analyzer *analyzer)
{
    struct feed *feed;

    while (block_pool_has_free(analyzer->blocks) && (feed = longest_waiting(analyzer)) != NULL) {
        feed->slot_ticket = 0;
        feed_advance(feed);
    }
}

void feeds_drain(struct analyzer *analyzer)
{
    struct status st = { 0 };

    status_fail(&st, STATUS_UNAVAILABLE, "this analyzer is shutting down");
    analyzer->draining = true;
    for (struct feed *feed = analyzer->feeds; feed != NULL; feed = feed->next)
        feed_fail(feed, &st);
}
