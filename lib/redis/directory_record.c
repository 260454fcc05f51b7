#include "redis/directory_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/name.h"
#include "base/require.h"

const char *const worker_kind_names[WORKER_KINDS] = { "kvstore", "analyzer", "encoder", "qa" };

static void write_text(struct json *value, char text[DIRECTORY_RECORD_BYTES])
{
    char *made = json_text(value, 0);

    REQUIRE(text_copy(text, DIRECTORY_RECORD_BYTES, made));
    free(made);
    json_free(value);
}

void worker_record_write(const struct worker_record *record, char text[DIRECTORY_RECORD_BYTES])
{
    struct json *value = json_make_object();
    char hex[2 * DIRECTORY_FINGERPRINT_BYTES + 1];

    json_set_str(value, "address", record->address);
    json_set_u64(value, "pid", record->pid);
    json_set_i64(value, "started_ms", record->started_ms);
    json_set_i64(value, "seen_ms", record->seen_ms);
    json_set_u64(value, "streams", record->streams);
    json_set_u64(value, "capacity", record->capacity);
    json_set_bool(value, "draining", record->draining);
    if (record->has_model) {
        hex_write(record->fingerprint, sizeof record->fingerprint, hex);
        json_set_str(value, "fingerprint", hex);
    }
    write_text(value, text);
}

void stream_record_write(const struct stream_record *record, char text[DIRECTORY_RECORD_BYTES])
{
    struct json *value = json_make_object();

    json_set_str(value, "store", record->store);
    json_set_u64(value, "phase", record->phase);
    json_set_i64(value, "seen_ms", record->seen_ms);
    write_text(value, text);
}

/* Takes `len` bytes that must be a valid name. */
static bool take_name(const char *what, struct bytes from, char out[LIMIT_NAME_BYTES + 1], struct status *st)
{
    if (from.len > LIMIT_NAME_BYTES || memchr(from.data, 0, from.len) != NULL)
        return status_fail(st, STATUS_INVALID, "%s name has %zu bytes or a NUL", what, from.len);
    memcpy(out, from.data, from.len);
    out[from.len] = '\0';
    return name_check(what, out, st);
}

static bool read_times(const struct json *value, int64_t *seen_ms_p, struct status *st)
{
    uint64_t seen_ms;

    if (!json_read_u64(value, "seen_ms", &seen_ms, st))
        return false;
    *seen_ms_p = (int64_t)seen_ms;
    return true;
}

static bool read_worker_fields(const struct json *value, struct worker_record *record, struct status *st)
{
    const char *address, *hex = json_str(json_get(value, "fingerprint"));
    uint64_t started_ms;

    if (!json_read_str(value, "address", &address, st) || !json_read_u64(value, "pid", &record->pid, st) ||
        !json_read_u64(value, "started_ms", &started_ms, st) || !read_times(value, &record->seen_ms, st) ||
        !json_read_u32(value, "streams", &record->streams, st) ||
        !json_read_u32(value, "capacity", &record->capacity, st))
        return false;
    record->started_ms = (int64_t)started_ms;
    record->draining = json_bool(json_get(value, "draining"));
    if (!text_copy(record->address, sizeof record->address, address))
        return status_fail(st, STATUS_INVALID, "address has more than %zu bytes", sizeof record->address - 1);
    record->has_model = hex != NULL;
    if (hex != NULL && !hex_read(hex, record->fingerprint, sizeof record->fingerprint))
        return status_fail(st, STATUS_INVALID, "fingerprint is not %d hex digits",
                           2 * DIRECTORY_FINGERPRINT_BYTES);
    return true;
}

bool worker_record_read(enum worker_kind kind, struct bytes name, struct bytes text,
                        struct worker_record *record, struct status *st)
{
    struct json *value;
    bool ok;

    memset(record, 0, sizeof *record);
    record->kind = kind;
    if (!take_name("worker", name, record->name, st))
        return false;
    if (text.len >= DIRECTORY_RECORD_BYTES)
        return status_fail(st, STATUS_INVALID, "worker record has %zu bytes", text.len);
    value = json_parse(text, st);
    if (value == NULL)
        return false;
    ok = read_worker_fields(value, record, st);
    json_free(value);
    return ok;
}

static bool read_stream_fields(const struct json *value, struct stream_record *record, struct status *st)
{
    const char *store;
    uint32_t phase;

    if (!json_read_str(value, "store", &store, st) || !json_read_u32(value, "phase", &phase, st) ||
        !read_times(value, &record->seen_ms, st))
        return false;
    if (phase < STREAM_WAITING || phase > STREAM_FAILED)
        return status_fail(st, STATUS_INVALID, "phase %u is not known", phase);
    record->phase = (enum stream_phase)phase;
    return take_name("store", (struct bytes){ (const uint8_t *)store, strlen(store) }, record->store, st);
}

bool stream_record_read(struct bytes path, struct bytes text, struct stream_record *record, struct status *st)
{
    const uint8_t *slash = memchr(path.data, '/', path.len);
    struct json *value;
    size_t ns_len;
    bool ok;

    memset(record, 0, sizeof *record);
    if (slash == NULL)
        return status_fail(st, STATUS_INVALID, "stream key has no '/'");
    ns_len = (size_t)(slash - path.data);
    if (!take_name("namespace", (struct bytes){ path.data, ns_len }, record->ns, st) ||
        !take_name("stream", (struct bytes){ slash + 1, path.len - ns_len - 1 }, record->name, st))
        return false;
    if (text.len >= DIRECTORY_RECORD_BYTES)
        return status_fail(st, STATUS_INVALID, "stream record has %zu bytes", text.len);
    value = json_parse(text, st);
    if (value == NULL)
        return false;
    ok = read_stream_fields(value, record, st);
    json_free(value);
    return ok;
}

/* FNV-1a over both texts, then a finaliser (MurmurHash3's, public domain) because FNV's high bits mix slowly.
 */
static uint64_t weight_of(const char *key, const char *name)
{
    uint64_t hash = 14695981039346656037u;

    for (; *key != '\0'; key++)
        hash = (hash ^ (uint8_t)*key) * 1099511628211u;
    hash = (hash ^ 0xff) * 1099511628211u; /* a byte no name has: "ab"+"c" is not "a"+"bc" */
    for (; *name != '\0'; name++)
        hash = (hash ^ (uint8_t)*name) * 1099511628211u;
    hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdu;
    hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53u;
    return hash ^ (hash >> 33);
}

uint32_t rendezvous_pick(const char *key, const char *const *names, uint32_t count)
{
    uint32_t best = 0;

    REQUIRE(count > 0);
    for (uint32_t i = 1; i < count; i++) {
        uint64_t mine = weight_of(key, names[i]), other = weight_of(key, names[best]);

        if (mine > other || (mine == other && strcmp(names[i], names[best]) > 0))
            best = i;
    }
    return best;
}
