/* cli_double_slow.h - what the stand-in of a cluster makes of an export, an import and a forgetting: it never comes to the end.
 *
 *   Export        nothing is sent
 *   Append        an import as "early" is refused twice, while something is still being removed, then taken; any other is read
 *                 and never answered
 *   Forget        is under way for ever; ListReceipts says that the disk is full */
#ifndef REELKV_TEST_CLI_DOUBLE_SLOW_H
#define REELKV_TEST_CLI_DOUBLE_SLOW_H

#include "rpc/call.h"

void double_export(struct rpc_call *call, void *state);
void double_append(struct rpc_call *call, void *state);
void double_forget(struct rpc_call *call, void *state);
void double_list_receipts(struct rpc_call *call, void *state);

#endif
