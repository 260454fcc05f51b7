/* api.h - the methods of proto/reelkv/v1, each written once for servers and clients, with their payload
 * paths. */
#ifndef REELKV_RPC_API_H
#define REELKV_RPC_API_H

#include "rpc/message.h"

extern const struct rpc_method api_create_stream; /* reelkv.v1.Catalog */
extern const struct rpc_method api_get_stream;
extern const struct rpc_method api_watch_stream;
extern const struct rpc_method api_list_streams;
extern const struct rpc_method api_delete_stream;
extern const struct rpc_method api_report_trouble;

extern const struct rpc_method api_push; /* reelkv.v1.Ingest; request payload frame.embeddings */

extern const struct rpc_method api_get_server_info; /* reelkv.v1.KvStore */
extern const struct rpc_method api_open_stream;
extern const struct rpc_method api_append;      /* request payload chunk.data */
extern const struct rpc_method api_load_window; /* reply payload chunk.data */
extern const struct rpc_method api_score;
extern const struct rpc_method api_fetch;    /* reply payload data */
extern const struct rpc_method api_retrieve; /* reply payload slice.data */
extern const struct rpc_method api_prefetch;
extern const struct rpc_method api_cancel_prefetch;
extern const struct rpc_method api_timeline;
extern const struct rpc_method api_export; /* reply payload chunk.data */

extern const struct rpc_method api_hold; /* reelkv.v1.Retention */
extern const struct rpc_method api_list_holds;
extern const struct rpc_method api_release_hold;
extern const struct rpc_method api_forget;
extern const struct rpc_method api_list_receipts;

extern const struct rpc_method api_ask; /* reelkv.v1.Qa */

#endif
