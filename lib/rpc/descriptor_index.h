/* descriptor_index.h - inside lib/rpc: what a FileDescriptorSet contains, by file and by symbol.
 *
 * protobuf-c ships no descriptor.pb-c.h; this walks the bytes (google/protobuf/descriptor.proto) for the
 * names of files, messages, nested messages, enums, services and methods, and hands files out as they lie in
 * the set.
 *
 * Owner:  the creator; borrows the set's bytes.
 * Thread: one at a time.
 * Bounds: DESCRIPTOR_FILES, DESCRIPTOR_SYMBOLS. */
#ifndef REELKV_RPC_DESCRIPTOR_INDEX_H
#define REELKV_RPC_DESCRIPTOR_INDEX_H

#include "base/bytes.h"
#include "base/status.h"

enum { DESCRIPTOR_FILES = 64, DESCRIPTOR_SYMBOLS = 1024, DESCRIPTOR_DEPENDENCIES = 16 };

struct descriptor_file {
    struct bytes name;
    struct bytes package;
    struct bytes raw; /* FileDescriptorProto */
    struct bytes dependencies[DESCRIPTOR_DEPENDENCIES];
    uint32_t dependency_count;
};

struct descriptor_index;

/* INVALID: not a FileDescriptorSet, or over the bounds. */
bool descriptor_index_create(struct descriptor_index **index_p, struct bytes set, struct status *st);
void descriptor_index_destroy(struct descriptor_index *index); /* NULL is fine */

/* NULL: none. */
const struct descriptor_file *descriptor_file_named(const struct descriptor_index *index, struct bytes name);
const struct descriptor_file *descriptor_file_with_symbol(const struct descriptor_index *index,
                                                          const char *symbol);

/* The file and all that it imports, each once, the file first. Returns how many; at most DESCRIPTOR_FILES. */
uint32_t descriptor_file_closure(const struct descriptor_index *index, const struct descriptor_file *file,
                                 const struct descriptor_file *out[DESCRIPTOR_FILES]);

#endif
