/* kv_record_internal.h - how long a record's header is. For kv_record.c and kv_record_header.c. */
#ifndef REELKV_KV_KV_RECORD_INTERNAL_H
#define REELKV_KV_KV_RECORD_INTERNAL_H

#include "base/bytes.h"
#include "kv/kv_format.h"

enum { KV_RECORD_TABLE_OFFSET = 256, KV_SLICE_ENTRY_BYTES = 16 };

static inline uint32_t kv_record_header_bytes_of(uint32_t layers)
{
    return (uint32_t)round_up(KV_RECORD_TABLE_OFFSET + 2 * layers * KV_SLICE_ENTRY_BYTES + 4, KV_PAGE_BYTES);
}

#endif
