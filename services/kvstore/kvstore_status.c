/* How the store and its streams are, as messages tell it. */
#include <stdio.h>

#include "base/name.h"
#include "kvstore/kvstore.h"
#include "kvstore/kvstore_shm.h"
#include "kvstore/store_pressure.h"

enum stream_phase kvstore_phase_of(const struct stream *stream)
{
    if (stream->has_ended)
        return stream->trouble[0] == '\0' ? STREAM_ENDED : STREAM_FAILED;
    return stream->writer != NULL ? STREAM_RUNNING : STREAM_WAITING;
}

static void fill_counts(Reelkv__V1__StreamStatus *status, const struct stream *stream)
{
    const struct index_frame *first = stream_first_frame(stream), *last = stream_last_frame(stream);

    status->epoch = stream->epoch;
    status->next_seq = stream->next_seq;
    status->durable_seq = stream_durable_seq(stream);
    status->evicted_frames = stream->evicted_frames + history_frames(&stream->history);
    status->stored_frames = stream->stored_frames + stream->damaged_frames + status->evicted_frames;
    status->damaged_frames = stream_damaged_frames(stream);
    status->gap_frames = stream->gap_frames + history_gap_frames(&stream->history);
    status->first_pts_ns = first == NULL ? 0 : first->pts_ns;
    status->last_pts_ns = last == NULL ? 0 : last->pts_ns;
    status->disk_bytes = stream_disk_bytes(stream);
    status->remembers_ns = store_remembers_ns(stream->store, stream);
    status->expected_frames = stream->expected_frames;
    if (first != NULL)
        status->fingerprint =
            (ProtobufCBinaryData){ KV_FINGERPRINT_BYTES, (uint8_t *)(uintptr_t)stream->fingerprint };
}

static const char *trouble_of(const struct stream *stream)
{
    if (kvstore_phase_of(stream) == STREAM_FAILED)
        return stream->trouble;
    return stream->waits_because[0] != '\0' || stream->has_ended ? stream->waits_because
                                                                 : stream->encoder_says;
}

static bool has_unknown_class(const struct stream *stream)
{
    return ageing_policy_find(&stream->store->ageing_state.policy, stream->definition.class) == NULL;
}

void kvstore_fill_status(struct kvstore_status *message, const struct stream *stream, bool with_secret)
{
    const struct stream_definition *definition = &stream->definition;

    reelkv__v1__stream_status__init(&message->status);
    reelkv__v1__stream_definition__init(&message->definition);
    reelkv__v1__stream_id__init(&message->id);
    message->id.namespace_ = (char *)(uintptr_t)stream->ns;
    message->id.name = (char *)(uintptr_t)stream->name;
    if (with_secret)
        snprintf(message->source, sizeof message->source, "%s", definition->source);
    else
        url_mask(definition->source, message->source, sizeof message->source);
    message->definition.id = &message->id;
    message->definition.source = message->source;
    message->definition.kind = (Reelkv__V1__SourceKind)definition->kind;
    message->definition.sample_fps = definition->sample_fps;
    message->definition.start_time_ns = definition->start_time_ns;
    message->definition.created_ns = definition->created_ns;
    message->definition.class_ = (char *)(uintptr_t)definition->class;
    message->definition.store = (char *)(uintptr_t)stream->store->options.name;
    message->status.definition = &message->definition;
    message->status.state = (Reelkv__V1__StreamState)kvstore_phase_of(stream);
    message->status.trouble = (char *)(uintptr_t)trouble_of(stream);
    if (message->status.trouble[0] == '\0' && has_unknown_class(stream)) {
        snprintf(message->trouble, sizeof message->trouble,
                 "class %s is not in --ageing of store %s: its frames age as default", definition->class,
                 stream->store->options.name);
        message->status.trouble = message->trouble;
    }
    fill_counts(&message->status, stream);
}

void kvstore_get_server_info(struct rpc_call *call, void *state)
{
    const struct kvstore *kvstore = state;
    struct store *store = kvstore->store;
    Reelkv__V1__ServerInfo info = REELKV__V1__SERVER_INFO__INIT;

    info.name = (char *)(uintptr_t)kvstore->options->name;
    info.version = (char *)REELKV_VERSION;
    info.ram_budget_bytes = kvstore->options->ram_budget_bytes;
    info.ram_used_bytes = store_ram_used(store);
    info.sketch_bytes = store->index_memory.sketch_bytes;
    info.disk_budget_bytes = kvstore->options->disk_budget_bytes;
    info.disk_used_bytes = store->disk_used_bytes;
    info.streams = store->stream_count;
    info.frames = store_frames(store);
    info.quarantined_frames = store->quarantined_frames;
    info.read_ahead_slices = store->ahead.slices;
    info.read_ahead_used = store->ahead.used;
    info.pressure = (Reelkv__V1__Pressure)store_pressure(store);
    info.rewritten_segments = store->ageing_state.rewritten_segments;
    info.scrub_bytes_per_second = store->options.scrub_bytes_per_second;
    info.full_scrub_ns = store->scrub.full_ns;
    info.scrubbed_bytes = store->scrub.read_bytes;
    if (kvstore->shm != NULL)
        info.shm_socket = (char *)(uintptr_t)kvstore_shm_path(kvstore->shm);
    rpc_call_reply(call, &info.base, NULL);
}
