/* directory_record.h - what the directory in Redis says, and its text form.
 *
 * Redis holds addresses, leases and where streams live; never KV, and nothing that cannot be written again by
 * its owner. All of it is one small set of keys, version 1, values JSON in UTF-8:
 *
 *   reelkv:1:workers:<kind>      hash   worker name -> worker record; written by the worker each heartbeat; removed when
 *                                       it leaves, or by any other when it is a day old and no longer changes
 *   reelkv:1:streams             hash   <namespace>/<stream> -> stream record; written by the owning kvstore
 *   reelkv:1:lease:<ns>/<stream> string name of the encoder that reads the source; expires
 *
 * A reader treats every value as untrusted: one that does not parse is skipped and counted, one with another
 * version number in its key is not seen at all. */
#ifndef REELKV_REDIS_DIRECTORY_RECORD_H
#define REELKV_REDIS_DIRECTORY_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/status.h"

enum {
    DIRECTORY_ADDRESS_BYTES = 128, /* "unix:/path" or "host:port", with its NUL */
    DIRECTORY_RECORD_BYTES = 1024, /* JSON text of one record */
    DIRECTORY_FINGERPRINT_BYTES = 16,
};

enum worker_kind { WORKER_KVSTORE, WORKER_ANALYZER, WORKER_ENCODER, WORKER_QA, WORKER_KINDS };
extern const char *const worker_kind_names[WORKER_KINDS]; /* "kvstore", ... */

struct worker_record {
    enum worker_kind kind; /* from the key */
    char name[LIMIT_NAME_BYTES + 1];
    char address[DIRECTORY_ADDRESS_BYTES];
    uint64_t pid;
    int64_t started_ms; /* UTC */
    int64_t seen_ms;    /* UTC, of the heartbeat */
    uint32_t streams;   /* the worker has now */
    uint32_t capacity;  /* streams it can have; 0: does not take streams */
    bool has_model;
    uint8_t fingerprint[DIRECTORY_FINGERPRINT_BYTES]; /* of its model, when it has one */
    bool draining;
};

enum stream_phase {
    STREAM_WAITING = 1,
    STREAM_RUNNING,
    STREAM_ENDED,
    STREAM_FAILED
}; /* as proto StreamState */

struct stream_record {
    char ns[LIMIT_NAME_BYTES + 1];
    char name[LIMIT_NAME_BYTES + 1];
    char store[LIMIT_NAME_BYTES + 1]; /* kvstore that owns the stream */
    enum stream_phase phase;
    int64_t seen_ms;
};

/* JSON text, NUL-terminated. The records' own bounds keep it below DIRECTORY_RECORD_BYTES. */
void worker_record_write(const struct worker_record *record, char text[DIRECTORY_RECORD_BYTES]);
void stream_record_write(const struct stream_record *record, char text[DIRECTORY_RECORD_BYTES]);

/* INVALID with the field that is wrong; *record is then unspecified. `name` and "ns/name" come from the hash.
 */
bool worker_record_read(enum worker_kind kind, struct bytes name, struct bytes text,
                        struct worker_record *record, struct status *st);
bool stream_record_read(struct bytes path, struct bytes text, struct stream_record *record,
                        struct status *st);

/* Which of `count` names owns `key`: highest random weight, so that a worker that comes or goes moves only
 * its own share of keys. Returns the index; count must be at least 1. */
uint32_t rendezvous_pick(const char *key, const char *const *names, uint32_t count);

#endif
