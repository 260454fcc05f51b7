/* kvstore.h - what the parts of the server share. Inside services/kvstore only.
 *
 * Owner:  main, through kvstore_server.h. Thread: the loop's. */
#ifndef REELKV_KVSTORE_KVSTORE_H
#define REELKV_KVSTORE_KVSTORE_H

#include "kvstore/kvstore_server.h"
#include "kvstore/store.h"
#include "kvstore/view.h"
#include "redis/directory_record.h"
#include "reelkv/v1/catalog.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "reelkv/v1/retention.pb-c.h"
#include "rpc/api.h"
#include "rpc/call.h"

struct directory;
struct kvstore_shm;
struct kvstore_directory;
struct kvstore_watches;
struct prefetch;

struct kvstore {
    const struct kvstore_options *options;
    struct rpc_host *host;
    struct loop *loop;
    struct store *store;
    struct kvstore_shm *shm;             /* NULL: not offered */
    struct kvstore_directory *directory; /* NULL before it is made */
    struct kvstore_watches *watches;
    int64_t started_ms;
    bool is_draining;
    struct prefetch *prefetches; /* tickets */
    uint32_t prefetch_count;
};

/* --- handlers, one file for each group --- */

void kvstore_create_stream(struct rpc_call *call, void *state);
void kvstore_get_server_info(struct rpc_call *call, void *state);
void kvstore_get_stream(struct rpc_call *call, void *state);
void kvstore_watch_stream(struct rpc_call *call, void *state);
void kvstore_list_streams(struct rpc_call *call, void *state);
void kvstore_delete_stream(struct rpc_call *call, void *state);
void kvstore_report_trouble(struct rpc_call *call, void *state);
void kvstore_open_stream(struct rpc_call *call, void *state);
void kvstore_append(struct rpc_call *call, void *state);
void kvstore_load_window(struct rpc_call *call, void *state);
void kvstore_score(struct rpc_call *call, void *state);
void kvstore_fetch(struct rpc_call *call, void *state);
void kvstore_retrieve(struct rpc_call *call, void *state);
void kvstore_timeline(struct rpc_call *call, void *state);
void kvstore_prefetch(struct rpc_call *call, void *state);
void kvstore_cancel_prefetch(struct rpc_call *call, void *state);
void kvstore_end_prefetches(struct kvstore *kvstore);
void kvstore_end_forgotten_prefetches(struct kvstore *kvstore); /* those that keep what is to be nowhere */
void kvstore_export(struct rpc_call *call, void *state);
void kvstore_hold(struct rpc_call *call, void *state);
void kvstore_list_holds(struct rpc_call *call, void *state);
void kvstore_release_hold(struct rpc_call *call, void *state);
void kvstore_forget(struct rpc_call *call, void *state);
void kvstore_list_receipts(struct rpc_call *call, void *state);

/* --- requests, checked --- */

/* The stream of this id; NOT_FOUND or INVALID otherwise. */
struct stream *kvstore_stream_of(const struct kvstore *kvstore, const Reelkv__V1__StreamId *id,
                                 struct status *st);
bool kvstore_read_id(const Reelkv__V1__StreamId *id, struct status *st);
bool kvstore_read_fingerprint(const ProtobufCBinaryData *bytes, uint8_t fingerprint[KV_FINGERPRINT_BYTES],
                              struct status *st);
bool kvstore_read_definition(const Reelkv__V1__StreamDefinition *message, double default_fps,
                             struct stream_definition *definition, struct status *st);
bool kvstore_read_selection(const Reelkv__V1__Selection *message, struct kv_selection *selection,
                            struct status *st);
/* only_readable: as in struct view_request. */
bool kvstore_make_view(struct kvstore *kvstore, const Reelkv__V1__View *message, bool only_readable,
                       struct view **view_p, struct status *st);

/* Fills a score for one layer; with a query when the selection uses scores, or one is given. */
bool kvstore_read_query(struct view_score *score, const ProtobufCBinaryData *query, struct status *st);

/* Hits as messages, in the call's memory. NULL: too many for one call. */
Reelkv__V1__Hit **kvstore_make_hits(struct arena *arena, const struct kv_hit *hits, uint32_t count);

enum stream_phase kvstore_phase_of(const struct stream *stream);

/* A status with all it points to; texts stay the stream's. The password is masked unless asked for. */
struct kvstore_status {
    Reelkv__V1__StreamStatus status;
    Reelkv__V1__StreamDefinition definition;
    Reelkv__V1__StreamId id;
    char source[LIMIT_URL_BYTES + 8];
    char trouble[STATUS_TEXT_BYTES];
};
void kvstore_fill_status(struct kvstore_status *message, const struct stream *stream, bool with_secret);

#endif
