/* Retention: holds. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/name.h"
#include "kvstore/kvstore.h"
#include "kvstore/stream_hold.h"

/* A hold with all it points to; texts stay the hold's. */
struct hold_message {
    Reelkv__V1__HoldInfo info;
    Reelkv__V1__StreamId id;
    Reelkv__V1__TimeRange range;
};

static void fill(struct hold_message *message, const struct stream_hold *hold, const char *ns,
                 const char *name)
{
    reelkv__v1__hold_info__init(&message->info);
    reelkv__v1__stream_id__init(&message->id);
    reelkv__v1__time_range__init(&message->range);
    message->id.namespace_ = (char *)(uintptr_t)ns;
    message->id.name = (char *)(uintptr_t)name;
    message->range.from_ns = hold->from_ns;
    message->range.to_ns = hold->to_ns;
    message->info.id = &message->id;
    message->info.range = &message->range;
    message->info.number = hold->number;
    message->info.owner = (char *)(uintptr_t)hold->owner;
    message->info.reason = (char *)(uintptr_t)hold->reason;
    message->info.until_ns = hold->until_ns;
    message->info.created_ns = hold->created_ns;
}

/* --- changes --- */

/* The call may be over before the disk has answered. */
struct changing {
    struct rpc_call *call;
    struct stream_hold hold;
    char ns[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
};

static struct changing *change_of(struct rpc_call *call, const struct stream *stream, struct status *st)
{
    struct changing *changing = calloc(1, sizeof *changing);

    if (changing == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for one more call");
        return NULL;
    }
    changing->call = call;
    memcpy(changing->ns, stream->ns, sizeof changing->ns);
    memcpy(changing->name, stream->name, sizeof changing->name);
    rpc_call_ref(call);
    return changing;
}

static void stop(struct changing *changing)
{
    rpc_call_unref(changing->call);
    free(changing);
}

static void changed(void *user, struct stream *stream, const struct status *failure)
{
    struct changing *changing = user;
    struct hold_message message;

    (void)stream;
    fill(&message, &changing->hold, changing->ns, changing->name);
    if (failure != NULL)
        rpc_call_finish(changing->call, failure);
    else
        rpc_call_reply(changing->call, &message.info.base, NULL);
    stop(changing);
}

static bool read_text(const char *what, const char *text, size_t room, char *out, struct status *st)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < len; i++)
        if ((uint8_t)text[i] < 0x20 || text[i] == 0x7f)
            len = 0;
    if (len < 1 || len >= room || !utf8_is_valid(text, len))
        return status_fail(st, STATUS_INVALID,
                           "%s must be 1 to %zu bytes of UTF-8 without control characters", what, room - 1);
    memcpy(out, text, len + 1);
    return true;
}

static bool read_hold(const Reelkv__V1__HoldInfo *info, struct stream_hold *hold, struct status *st)
{
    if (info == NULL || info->range == NULL)
        return status_fail(st, STATUS_INVALID, "the request has no hold, or no range");
    *hold = (struct stream_hold){ .from_ns = info->range->from_ns,
                                  .to_ns = info->range->to_ns == 0 ? INT64_MAX : info->range->to_ns,
                                  .until_ns = info->until_ns };
    if (hold->from_ns >= hold->to_ns)
        return status_fail(st, STATUS_INVALID, "the range of a hold ends before it begins");
    if (hold->until_ns != 0 && hold->until_ns <= clock_utc_ns())
        return status_fail(st, STATUS_INVALID, "the hold would be over before it begins: its end has passed");
    return read_text("owner", info->owner, sizeof hold->owner, hold->owner, st) &&
           read_text("reason", info->reason, sizeof hold->reason, hold->reason, st);
}

void kvstore_hold(struct rpc_call *call, void *state)
{
    const Reelkv__V1__HoldRequest *request = (const Reelkv__V1__HoldRequest *)rpc_call_request(call)->body;
    struct changing *changing = NULL;
    struct stream *stream = NULL;
    struct stream_hold hold;
    struct status st = { 0 };

    if (read_hold(request->hold, &hold, &st))
        stream = kvstore_stream_of(state, request->hold->id, &st);
    if (stream != NULL)
        changing = change_of(call, stream, &st);
    if (changing != NULL) {
        changing->hold = hold;
        if (stream_hold_add(stream, &changing->hold, changed, changing, &st))
            return;
    }
    rpc_call_finish(call, &st);
    if (changing != NULL)
        stop(changing);
}

void kvstore_release_hold(struct rpc_call *call, void *state)
{
    const Reelkv__V1__ReleaseHoldRequest *request =
        (const Reelkv__V1__ReleaseHoldRequest *)rpc_call_request(call)->body;
    const struct stream_hold *hold = NULL;
    struct changing *changing = NULL;
    struct status st = { 0 };
    struct stream *stream = kvstore_stream_of(state, request->id, &st);

    if (stream != NULL)
        changing = change_of(call, stream, &st);
    for (uint32_t n = 0; changing != NULL && (hold = stream_hold_at(stream, n)) != NULL; n++)
        if (hold->number == request->number)
            changing->hold = *hold;
    if (changing != NULL && stream_hold_release(stream, request->number, changed, changing, &st))
        return;
    rpc_call_finish(call, &st);
    if (changing != NULL)
        stop(changing);
}

void kvstore_list_holds(struct rpc_call *call, void *state)
{
    const Reelkv__V1__ListHoldsRequest *request =
        (const Reelkv__V1__ListHoldsRequest *)rpc_call_request(call)->body;
    Reelkv__V1__ListHoldsReply reply = REELKV__V1__LIST_HOLDS_REPLY__INIT;
    Reelkv__V1__HoldInfo *list[STREAM_HOLDS_MAX];
    struct hold_message messages[STREAM_HOLDS_MAX];
    const struct stream_hold *hold;
    struct status st = { 0 };
    const struct stream *stream = kvstore_stream_of(state, request->id, &st);

    if (stream == NULL) {
        rpc_call_finish(call, &st);
        return;
    }
    while ((hold = stream_hold_at(stream, (uint32_t)reply.n_holds)) != NULL) {
        fill(&messages[reply.n_holds], hold, stream->ns, stream->name);
        list[reply.n_holds] = &messages[reply.n_holds].info;
        reply.n_holds++;
    }
    reply.holds = list;
    rpc_call_reply(call, &reply.base, NULL);
}
