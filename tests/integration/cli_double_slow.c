#include "cli_double_slow.h"

#include <string.h>

#include "reelkv/v1/kvstore.pb-c.h"
#include "reelkv/v1/retention.pb-c.h"

enum { EARLY_TIMES = 2 };

void double_export(struct rpc_call *call, void *state)
{
    (void)call;
    (void)state;
}

static void refuse_name(struct rpc_call *call)
{
    struct status st;

    status_fail(&st, STATUS_ABORTED, "stream default/early is still being removed; try again");
    st.retry_after_ms = 50;
    rpc_call_finish(call, &st);
}

static void take_item(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    (void)user;
    if (message == NULL)
        rpc_call_finish(call, NULL);
    else
        rpc_call_read(call, take_item);
}

static void take_begin(struct rpc_call *call, const struct rpc_message *message, void *user)
{
    static unsigned early;
    const Reelkv__V1__AppendRequest *request =
        message == NULL ? NULL : (const Reelkv__V1__AppendRequest *)message->body;
    bool is_early = request != NULL && request->item_case == REELKV__V1__APPEND_REQUEST__ITEM_BEGIN &&
                    strcmp(request->begin->id->name, "early") == 0;

    (void)user;
    if (is_early && early++ < EARLY_TIMES)
        refuse_name(call);
    else if (is_early)
        rpc_call_read(call, take_item);
}

void double_append(struct rpc_call *call, void *state)
{
    (void)state;
    rpc_call_read(call, take_begin);
}

void double_forget(struct rpc_call *call, void *state)
{
    (void)call;
    (void)state;
}

void double_list_receipts(struct rpc_call *call, void *state)
{
    Reelkv__V1__ListReceiptsReply reply = REELKV__V1__LIST_RECEIPTS_REPLY__INIT;
    Reelkv__V1__Receipt receipt = REELKV__V1__RECEIPT__INIT, *list = &receipt;
    Reelkv__V1__TimeRange range = REELKV__V1__TIME_RANGE__INIT;
    const Reelkv__V1__ListReceiptsRequest *request =
        (const Reelkv__V1__ListReceiptsRequest *)rpc_call_request(call)->body;

    (void)state;
    range.from_ns = 1;
    range.to_ns = 2;
    receipt.id = request->id;
    receipt.range = &range;
    receipt.number = 7;
    receipt.asked_ns = 3;
    receipt.waits_because = (char *)"the disk is \x1b[31mfull";
    reply.receipts = &list;
    reply.n_receipts = 1;
    rpc_call_reply(call, &reply.base, NULL);
}
