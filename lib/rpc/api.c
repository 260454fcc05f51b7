#include "rpc/api.h"

#include "reelkv/v1/catalog.pb-c.h"
#include "reelkv/v1/ingest.pb-c.h"
#include "reelkv/v1/kvstore.pb-c.h"
#include "reelkv/v1/qa.pb-c.h"
#include "reelkv/v1/retention.pb-c.h"

#define UNARY(variable, method, Request, Reply)                                  \
    const struct rpc_method variable = {                                         \
        .path = method, .shape = RPC_UNARY, .request = &Request, .reply = &Reply \
    }

UNARY(api_create_stream, "/reelkv.v1.Catalog/CreateStream", reelkv__v1__create_stream_request__descriptor,
      reelkv__v1__stream_status__descriptor);
UNARY(api_get_stream, "/reelkv.v1.Catalog/GetStream", reelkv__v1__get_stream_request__descriptor,
      reelkv__v1__stream_status__descriptor);
const struct rpc_method api_watch_stream = {
    .path = "/reelkv.v1.Catalog/WatchStream",
    .shape = RPC_SERVER_STREAM,
    .request = &reelkv__v1__watch_stream_request__descriptor,
    .reply = &reelkv__v1__stream_status__descriptor,
};
UNARY(api_list_streams, "/reelkv.v1.Catalog/ListStreams", reelkv__v1__list_streams_request__descriptor,
      reelkv__v1__list_streams_reply__descriptor);
UNARY(api_delete_stream, "/reelkv.v1.Catalog/DeleteStream", reelkv__v1__delete_stream_request__descriptor,
      reelkv__v1__delete_stream_reply__descriptor);
UNARY(api_report_trouble, "/reelkv.v1.Catalog/ReportTrouble", reelkv__v1__report_trouble_request__descriptor,
      reelkv__v1__report_trouble_reply__descriptor);

const struct rpc_method api_push = {
    .path = "/reelkv.v1.Ingest/Push",
    .shape = RPC_BIDI,
    .request = &reelkv__v1__push_request__descriptor,
    .reply = &reelkv__v1__push_reply__descriptor,
    .request_payload = { { 15, 15 } },
};

UNARY(api_get_server_info, "/reelkv.v1.KvStore/GetServerInfo",
      reelkv__v1__get_server_info_request__descriptor, reelkv__v1__server_info__descriptor);
UNARY(api_open_stream, "/reelkv.v1.KvStore/OpenStream", reelkv__v1__open_stream_request__descriptor,
      reelkv__v1__open_stream_reply__descriptor);
const struct rpc_method api_append = {
    .path = "/reelkv.v1.KvStore/Append",
    .shape = RPC_BIDI,
    .request = &reelkv__v1__append_request__descriptor,
    .reply = &reelkv__v1__append_reply__descriptor,
    .request_payload = { { 15, 15 } },
};
const struct rpc_method api_load_window = {
    .path = "/reelkv.v1.KvStore/LoadWindow",
    .shape = RPC_SERVER_STREAM,
    .request = &reelkv__v1__load_window_request__descriptor,
    .reply = &reelkv__v1__load_window_reply__descriptor,
    .reply_payload = { { 15, 15 } },
};
UNARY(api_score, "/reelkv.v1.KvStore/Score", reelkv__v1__score_request__descriptor,
      reelkv__v1__score_reply__descriptor);
const struct rpc_method api_fetch = {
    .path = "/reelkv.v1.KvStore/Fetch",
    .shape = RPC_SERVER_STREAM,
    .request = &reelkv__v1__fetch_request__descriptor,
    .reply = &reelkv__v1__slice_reply__descriptor,
    .reply_payload = { { 15 } },
};
const struct rpc_method api_retrieve = {
    .path = "/reelkv.v1.KvStore/Retrieve",
    .shape = RPC_BIDI,
    .request = &reelkv__v1__retrieve_request__descriptor,
    .reply = &reelkv__v1__retrieve_reply__descriptor,
    .reply_payload = { { 15, 15 } },
};
const struct rpc_method api_prefetch = {
    .path = "/reelkv.v1.KvStore/Prefetch",
    .shape = RPC_SERVER_STREAM,
    .request = &reelkv__v1__prefetch_request__descriptor,
    .reply = &reelkv__v1__prefetch_reply__descriptor,
};
UNARY(api_cancel_prefetch, "/reelkv.v1.KvStore/CancelPrefetch",
      reelkv__v1__cancel_prefetch_request__descriptor, reelkv__v1__cancel_prefetch_reply__descriptor);
UNARY(api_timeline, "/reelkv.v1.KvStore/Timeline", reelkv__v1__timeline_request__descriptor,
      reelkv__v1__timeline_reply__descriptor);
const struct rpc_method api_export = {
    .path = "/reelkv.v1.KvStore/Export",
    .shape = RPC_SERVER_STREAM,
    .request = &reelkv__v1__export_request__descriptor,
    .reply = &reelkv__v1__export_reply__descriptor,
    .reply_payload = { { 15, 15 } },
};

UNARY(api_hold, "/reelkv.v1.Retention/Hold", reelkv__v1__hold_request__descriptor,
      reelkv__v1__hold_info__descriptor);
UNARY(api_list_holds, "/reelkv.v1.Retention/ListHolds", reelkv__v1__list_holds_request__descriptor,
      reelkv__v1__list_holds_reply__descriptor);
UNARY(api_release_hold, "/reelkv.v1.Retention/ReleaseHold", reelkv__v1__release_hold_request__descriptor,
      reelkv__v1__hold_info__descriptor);
UNARY(api_forget, "/reelkv.v1.Retention/Forget", reelkv__v1__forget_request__descriptor,
      reelkv__v1__receipt__descriptor);
UNARY(api_list_receipts, "/reelkv.v1.Retention/ListReceipts", reelkv__v1__list_receipts_request__descriptor,
      reelkv__v1__list_receipts_reply__descriptor);

const struct rpc_method api_ask = {
    .path = "/reelkv.v1.Qa/Ask",
    .shape = RPC_SERVER_STREAM,
    .request = &reelkv__v1__ask_request__descriptor,
    .reply = &reelkv__v1__ask_reply__descriptor,
};
