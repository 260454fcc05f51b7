#include "rpc/error.h"

#include <stdio.h>
#include <string.h>

#include "base/name.h"
#include "rpc/rpc_error.pb-c.h"

#define RETRY_INFO_URL "type.googleapis.com/google.rpc.RetryInfo"

enum { RETRY_PACKED_MAX = 64, DETAILS_ARENA_BYTES = 64 << 10 };

static size_t retry_info_pack(uint32_t retry_after_ms, uint8_t *out)
{
    Reelkv__Rpc__ErrorDuration delay = REELKV__RPC__ERROR_DURATION__INIT;
    Reelkv__Rpc__ErrorRetryInfo info = REELKV__RPC__ERROR_RETRY_INFO__INIT;

    delay.seconds = retry_after_ms / 1000;
    delay.nanos = (int32_t)(retry_after_ms % 1000) * 1000000;
    info.retry_delay = &delay;
    return reelkv__rpc__error_retry_info__pack(&info, out);
}

grpc_slice error_details_pack(const struct status *status)
{
    char text[STATUS_TEXT_BYTES];
    Reelkv__Rpc__ErrorStatus out = REELKV__RPC__ERROR_STATUS__INIT;
    Reelkv__Rpc__ErrorAny any = REELKV__RPC__ERROR_ANY__INIT;
    Reelkv__Rpc__ErrorAny *details[] = { &any };
    uint8_t retry[RETRY_PACKED_MAX];
    grpc_slice slice;

    out.code = (int32_t)status->code;
    /* A sentence is cut at a byte and may quote what a peer sent; other languages' libraries refuse a message with a
     * string that is not UTF-8. */
    memcpy(text, status->text, sizeof text);
    utf8_repair(text);
    out.message = text;
    if (status->retry_after_ms > 0) {
        any.type_url = (char *)RETRY_INFO_URL;
        any.value.data = retry;
        any.value.len = retry_info_pack(status->retry_after_ms, retry);
        out.details = details;
        out.n_details = 1;
    }
    slice = grpc_slice_malloc(reelkv__rpc__error_status__get_packed_size(&out));
    reelkv__rpc__error_status__pack(&out, GRPC_SLICE_START_PTR(slice));
    return slice;
}

static void *in_arena(void *arena, size_t bytes)
{
    return arena_alloc(arena, bytes);
}

static void freed_with_arena(void *arena, void *pointer)
{
}

/* Milliseconds of the first RetryInfo among the details; 0 when there is none or it makes no sense. */
static uint32_t retry_after_ms_of(const Reelkv__Rpc__ErrorStatus *error, ProtobufCAllocator *allocator)
{
    for (size_t i = 0; i < error->n_details; i++) {
        const Reelkv__Rpc__ErrorAny *any = error->details[i];
        Reelkv__Rpc__ErrorRetryInfo *info;
        int64_t ms;

        if (strcmp(any->type_url, RETRY_INFO_URL) != 0)
            continue;
        info = reelkv__rpc__error_retry_info__unpack(allocator, any->value.len, any->value.data);
        if (info == NULL || info->retry_delay == NULL || info->retry_delay->seconds < 0 ||
            info->retry_delay->seconds > 86400 || info->retry_delay->nanos < 0)
            return 0;
        ms = info->retry_delay->seconds * 1000 + info->retry_delay->nanos / 1000000;
        return (uint32_t)ms;
    }
    return 0;
}

/* True when there are well-formed details: then the status is the server's own. */
static bool read_details(struct status *status, const grpc_metadata_array *trailers)
{
    const grpc_slice *value = rpc_metadata_get(trailers, "grpc-status-details-bin");
    struct arena arena = { .limit_bytes = DETAILS_ARENA_BYTES };
    ProtobufCAllocator allocator = { in_arena, freed_with_arena, &arena };
    Reelkv__Rpc__ErrorStatus *error = NULL;

    if (value != NULL)
        error = reelkv__rpc__error_status__unpack(&allocator, GRPC_SLICE_LENGTH(*value),
                                                  GRPC_SLICE_START_PTR(*value));
    if (error != NULL)
        status->retry_after_ms = retry_after_ms_of(error, &allocator);
    arena_reset(&arena);
    return error != NULL;
}

void error_from_call(struct status *status, grpc_status_code code, grpc_slice text,
                     const struct error_source *source)
{
    int len = GRPC_SLICE_LENGTH(text) < STATUS_TEXT_BYTES ? (int)GRPC_SLICE_LENGTH(text) : STATUS_TEXT_BYTES;
    const char *words = (const char *)GRPC_SLICE_START_PTR(text);

    status_fail(status, (enum status_code)code, "%.*s", len, words);
    if (code == GRPC_STATUS_OK) {
        status->text[0] = '\0';
        return;
    }
    if (read_details(status, source->trailers))
        return;
    if (code == GRPC_STATUS_DEADLINE_EXCEEDED && source->timeout_ms != RPC_NO_TIMEOUT)
        status_fail(status, STATUS_DEADLINE, "%s did not answer %s within %u ms", source->address,
                    source->method, source->timeout_ms);
    else if (code == GRPC_STATUS_UNAVAILABLE)
        status_fail(status, STATUS_UNAVAILABLE, "%s cannot be reached: %.*s", source->address, len, words);
    else if (code == GRPC_STATUS_CANCELLED && !source->cancelled_here)
        status_fail(status, STATUS_UNAVAILABLE, "%s dropped %s; it may be going away", source->address,
                    source->method);
    else if (code == GRPC_STATUS_CANCELLED)
        status_fail(status, STATUS_CANCELLED, "%s at %s was cancelled", source->method, source->address);
    else
        status_fail(status, (enum status_code)code, "%s at %s: %.*s", source->method, source->address, len,
                    words);
}
