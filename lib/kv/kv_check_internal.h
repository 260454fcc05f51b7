/* kv_check_internal.h - what the parts of a check share. For kv_check.c and kv_check_record.c. */
#ifndef REELKV_KV_KV_CHECK_INTERNAL_H
#define REELKV_KV_KV_CHECK_INTERNAL_H

#include "kv/kv_check.h"

struct kv_finding kv_check_damage_at(uint64_t offset, uint64_t bytes);

/* Tells a finding, with this sentence. */
void kv_check_tell(struct kv_check *check, struct kv_finding finding, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What could not be read, or is of another version, is no damage. */
enum kv_finding_kind kv_check_kind_of(const struct status *why);

/* So many bytes more were checked. False: CANCELLED. */
bool kv_check_go_on(struct kv_check *check, uint64_t bytes, struct status *st);

/* Checks the records: by the footer's table, whose checksum fits; or as they stand. False: CANCELLED. */
bool kv_check_walk_table(struct kv_check *check, struct status *st);
bool kv_check_walk_records(struct kv_check *check, struct status *st);

#endif
