#include "question.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/name.h"
#include "base/require.h"
#include "question_internal.h"

void reply_free(struct reply *reply)
{
    if (reply == NULL)
        return;
    arena_reset(&reply->memory);
    free(reply);
}

static void question_free(struct question *question)
{
    while (question->first != NULL) {
        struct reply *next = question->first->next;

        reply_free(question->first);
        question->first = next;
    }
    for (uint32_t i = 0; i < question->stream_count; i++)
        store_link_unref(question->streams[i].link);
    store_calls_deinit(&question->calls);
    question->qa->questions--;
    free(question);
}

/* Goes when the call is over and the thread is done. */
static void question_release(struct question *question)
{
    struct rpc_call *call = question->call;

    if (!question->over || question->running)
        return;
    question_free(question);
    rpc_call_unref(call);
}

/* The pool has let go of it. */
static void settle(struct question *question)
{
    question->running = false;
    question->qa->submitted--;
}

static void on_call_end(struct rpc_call *call, void *user)
{
    struct question *question = user;

    question->over = true;
    store_calls_cancel(&question->calls);
    for (uint32_t i = 0; i < question->stream_count; i++)
        if (question->streams[i].link != NULL)
            store_link_forget(question->streams[i].link, question);
    if (question->running && work_pool_withdraw(question->qa->answering, &question->work))
        settle(question);
    question_release(question);
}

/* ------------------------------------------------------------------------------------------ replies */

/* Sends what there is room for; when all is sent and the work is done, the call ends. */
static void send_replies(struct question *question)
{
    while (question->first != NULL && !question->over) {
        struct reply *reply = question->first;

        if (!rpc_call_write(question->call, &reply->message.base, NULL))
            return; /* on_writable goes on */
        question->first = reply->next;
        if (question->first == NULL)
            question->last_link = &question->first;
        reply_free(reply);
    }
    if (!question->running && !question->over)
        rpc_call_finish(question->call, question->ok ? NULL : &question->failure);
}

static void on_writable(struct rpc_call *call, void *user)
{
    send_replies(user);
}

static void open_reply(struct letter *letter)
{
    struct reply *reply = container_of(letter, struct reply, letter);
    struct question *question = reply->question;

    reply->next = NULL;
    *question->last_link = reply;
    question->last_link = &reply->next;
    send_replies(question);
}

void question_post(struct reply *reply)
{
    reply->letter.open = open_reply;
    loop_post(reply->question->qa->loop, &reply->letter);
}

/* ------------------------------------------------------------------------------------------- checks */

static uint32_t count_or(const Reelkv__V1__Count *count, uint32_t otherwise)
{
    return count != NULL ? count->value : otherwise;
}

static bool check_text(const Reelkv__V1__AskRequest *ask, struct status *st)
{
    size_t len = strlen(ask->question);

    if (strspn(ask->question, " \t\r\n") == len)
        return status_fail(st, STATUS_INVALID, "the question is empty");
    if (len > LIMIT_QUESTION_BYTES)
        return status_fail(st, STATUS_INVALID, "the question has %zu bytes; at most %d are taken", len,
                           LIMIT_QUESTION_BYTES);
    if (!utf8_is_valid(ask->question, len))
        return status_fail(st, STATUS_INVALID, "the question is not valid UTF-8");
    if (!name_check("namespace", ask->namespace_, st))
        return false;
    if (ask->n_streams == 0 || ask->n_streams > LIMIT_STREAMS_PER_QUESTION)
        return status_fail(st, STATUS_INVALID, "a question is about 1 to %d streams, not %zu",
                           LIMIT_STREAMS_PER_QUESTION, ask->n_streams);
    for (size_t i = 0; i < ask->n_streams; i++) {
        if (!name_check("stream", ask->streams[i], st))
            return false;
        for (size_t j = 0; j < i; j++)
            if (strcmp(ask->streams[i], ask->streams[j]) == 0)
                return status_fail(st, STATUS_INVALID, "stream %s is named twice", ask->streams[i]);
    }
    return true;
}

static int compare_frames(const void *left, const void *right)
{
    const struct retriever_frame *a = left, *b = right;

    if (a->stream != b->stream)
        return a->stream < b->stream ? -1 : 1;
    return a->seq == b->seq ? 0 : a->seq < b->seq ? -1 : 1;
}

/* The frames the asker named, for selector external. */
static bool take_frames(struct question *question, struct status *st)
{
    const Reelkv__V1__AskRequest *ask = question->ask;
    struct retriever_frame *frames;

    if (ask->n_frames > LIMIT_TOP_BLOCKS)
        return status_fail(st, STATUS_INVALID, "at most %d frames may be named, not %zu", LIMIT_TOP_BLOCKS,
                           ask->n_frames);
    frames = arena_alloc(rpc_call_arena(question->call), (ask->n_frames + 1) * sizeof *frames);
    if (frames == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the frames");
    for (size_t i = 0; i < ask->n_frames; i++) {
        if (ask->frames[i]->stream >= ask->n_streams)
            return status_fail(st, STATUS_INVALID, "frame %zu is of stream %u; only %zu are named", i,
                               ask->frames[i]->stream, ask->n_streams);
        frames[i] = (struct retriever_frame){ ask->frames[i]->stream, ask->frames[i]->seq };
    }
    qsort(frames, ask->n_frames, sizeof *frames, compare_frames);
    for (size_t i = 1; i < ask->n_frames; i++)
        if (compare_frames(&frames[i - 1], &frames[i]) == 0)
            return status_fail(st, STATUS_INVALID, "frame %llu is named twice",
                               (unsigned long long)frames[i].seq);
    question->retrieve.frames = frames;
    question->retrieve.frame_count = (uint32_t)ask->n_frames;
    return true;
}

static bool check_numbers(struct question *question, struct status *st)
{
    const struct qa_options *options = question->qa->options;
    const Reelkv__V1__AskRequest *ask = question->ask;
    struct retriever_options *retrieve = &question->retrieve;

    retrieve->selection.kind = ask->selector == 0 ? KV_SELECT_REKV : (enum kv_selector_kind)ask->selector;
    retrieve->selection.top_r = count_or(ask->top_r, options->top_r);
    retrieve->selection.recent_window = count_or(ask->recent_window, options->recent_window);
    question->max_tokens = count_or(ask->max_tokens, options->max_tokens);
    if (question->max_tokens == 0 || question->max_tokens > LIMIT_ANSWER_TOKENS)
        return status_fail(st, STATUS_INVALID, "max_tokens must be 1 to %d, not %u", LIMIT_ANSWER_TOKENS,
                           question->max_tokens);
    if (ask->range != NULL) {
        retrieve->from_ns = ask->range->from_ns;
        retrieve->to_ns = ask->range->to_ns;
    }
    retrieve->as_of_ns = ask->as_of_ns;
    if (retrieve->to_ns != 0 && retrieve->to_ns <= retrieve->from_ns)
        return status_fail(st, STATUS_INVALID, "the time range ends before it begins");
    retrieve->external = ask->selector == REELKV__V1__SELECTOR_KIND__SELECTOR_KIND_EXTERNAL;
    if (!retrieve->external && ask->n_frames > 0)
        return status_fail(st, STATUS_INVALID, "frames are named only with selector external");
    return retrieve->external ? take_frames(question, st) : kv_selection_check(&retrieve->selection, st);
}

static void fill_retrieve(struct question *question)
{
    const struct model_geometry *geometry = model_geometry(question->qa->model);
    struct retriever_options *retrieve = &question->retrieve;

    retrieve->ns = question->ask->namespace_;
    retrieve->streams = question->streams;
    retrieve->stream_count = question->stream_count;
    retrieve->fingerprint = geometry->fingerprint;
    retrieve->geometry = (struct kv_geometry){ geometry->layers, geometry->kv_heads, geometry->head_dim,
                                               (enum kv_dtype)geometry->dtype };
    retrieve->tokens_max = question->qa->options->context_tokens;
    retrieve->timeout_ms = question->qa->options->retrieve_ms;
    retrieve->calls = &question->calls;
    retrieve->request_id = rpc_call_request_id(question->call);
}

/* ------------------------------------------------------------------------------------------- starting */

static void run(struct work *work)
{
    struct question *question = container_of(work, struct question, work);

    question->ok = question_answer(question);
}

static void done(struct work *work)
{
    struct question *question = container_of(work, struct question, work);

    settle(question);
    if (question->over)
        question_release(question);
    else
        send_replies(question);
}

static void fail(struct question *question, const struct status *st)
{
    rpc_call_finish(question->call, st);
}

/* What an idle thread has not picked up yet does not count as waiting: that many may be with the pool at once. */
static void submit(struct question *question)
{
    const struct qa_options *options = question->qa->options;
    struct status st = { 0 };

    question->work.run = run;
    question->work.done = done;
    question->running = question->qa->submitted < options->max_questions + options->max_waiting &&
                        work_pool_submit(question->qa->answering, &question->work);
    if (question->running) {
        question->qa->submitted++;
        return;
    }
    status_fail(&st, STATUS_EXHAUSTED, "%u questions are being answered and %u wait; try again soon",
                options->max_questions, options->max_waiting);
    st.retry_after_ms = 500;
    fail(question, &st);
}

static void on_shared(void *user, uint64_t pool)
{
    struct question *question = user;

    if (--question->links_missing == 0)
        submit(question);
}

static bool find_stores(struct question *question, struct status *st)
{
    const struct directory_view *view = directory_view(question->qa->directory);
    const Reelkv__V1__AskRequest *ask = question->ask;

    if (!directory_is_known(question->qa->directory)) {
        status_fail(st, STATUS_UNAVAILABLE, "this worker has not read the directory yet; try again soon");
        st->retry_after_ms = DIRECTORY_HEARTBEAT_MS;
        return false;
    }
    for (size_t i = 0; i < ask->n_streams; i++) {
        const struct stream_record *record =
            directory_recall_stream(question->qa->directory, ask->namespace_, ask->streams[i]);
        struct store_link *link;

        if (record == NULL)
            return status_fail(st, STATUS_NOT_FOUND, "there is no stream '%s' in namespace '%s'%s",
                               ask->streams[i], ask->namespace_,
                               directory_is_reachable(question->qa->directory)
                                   ? ""
                                   : " that this worker knows of; the directory cannot be reached now");
        link = store_link_get(&question->qa->links, view, record->store, st);
        if (link == NULL) {
            /* The directory was emptied, or the store has just started. */
            st->retry_after_ms = DIRECTORY_HEARTBEAT_MS;
            return status_wrap(st, "stream '%s'", ask->streams[i]);
        }
        question->streams[question->stream_count++] = (struct retriever_stream){ ask->streams[i], link };
    }
    return true;
}

void question_open(struct rpc_call *call, void *qa_)
{
    struct qa *qa = qa_;
    struct question *question = calloc(1, sizeof *question);
    struct status st = { 0 };

    if (question == NULL) {
        status_fail(&st, STATUS_EXHAUSTED, "no memory for a question");
        rpc_call_finish(call, &st);
        return;
    }
    question->qa = qa;
    question->call = call;
    question->ask = (const Reelkv__V1__AskRequest *)rpc_call_request(call)->body;
    question->log.request = rpc_call_request_id(call);
    question->last_link = &question->first;
    store_calls_init(&question->calls);
    qa->questions++;
    rpc_call_ref(call);
    rpc_call_set_user(call, question);
    rpc_call_on_end(call, on_call_end);
    rpc_call_on_writable(call, on_writable);
    if (qa->draining)
        status_fail(&st, STATUS_UNAVAILABLE, "this qa is shutting down");
    if (qa->draining || !check_text(question->ask, &st) || !check_numbers(question, &st) ||
        !find_stores(question, &st)) {
        fail(question, &st);
        return;
    }
    fill_retrieve(question);
    question->links_missing = question->stream_count;
    for (uint32_t i = 0; i < question->stream_count; i++)
        store_link_share(question->streams[i].link, on_shared, question);
}
