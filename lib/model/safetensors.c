/* One shard's layout (https://github.com/huggingface/safetensors, "Format"):
 *
 *    0  u64  N, length of the header, little endian
 *    8  N    JSON object: { name: { "dtype", "shape": [..], "data_offsets": [begin, end] }, "__metadata__": {..} }
 *  8+N  ...  the data; offsets count from here, cover it without overlap or hole
 *
 * A reader refuses anything else. */
#include "model/safetensors.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/json.h"

static const struct {
    const char *word;
    uint32_t bytes;
} dtypes[] = {
#define SAFETENSORS_ROW(name, word, bytes) { word, bytes },
    SAFETENSORS_DTYPE_TABLE(SAFETENSORS_ROW)
#undef SAFETENSORS_ROW
};

enum { DTYPES = sizeof dtypes / sizeof dtypes[0], INDEX_BYTES_MAX = 64 << 20 };

struct shard {
    char *name;
    struct file_map map;
    struct json *header; /* the tensors' names live here */
};

struct safetensors {
    struct shard *shards;
    size_t shard_count;
    struct safetensors_tensor *tensors; /* by name, once all shards are read */
    size_t tensor_count, tensor_room;
};

const char *safetensors_dtype_word(enum safetensors_dtype dtype)
{
    return dtypes[dtype].word;
}

void safetensors_shape_text(const uint64_t *shape, uint32_t dims, char *out, size_t out_bytes)
{
    size_t used = (size_t)snprintf(out, out_bytes, "[");

    for (uint32_t i = 0; i < dims && used < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%" PRIu64, i > 0 ? ", " : "", shape[i]);
    if (used < out_bytes)
        snprintf(out + used, out_bytes - used, "]");
}

static bool read_dtype(const struct json *entry, enum safetensors_dtype *dtype_p, struct status *st)
{
    const char *word;

    if (!json_read_str(entry, "dtype", &word, st))
        return false;
    for (size_t i = 0; i < DTYPES; i++)
        if (strcmp(word, dtypes[i].word) == 0) {
            *dtype_p = (enum safetensors_dtype)i;
            return true;
        }
    return status_fail(st, STATUS_INVALID, "dtype '%.32s' is unknown; expected F32, F16 or BF16", word);
}

/* A JSON number that is a whole number from 0 and exactly known (doubles are below 2^53). */
static bool read_whole(const struct json *value, uint64_t *whole_p)
{
    double number = json_number(value);

    if (!json_is_number(value) || !(number >= 0) || number > 9007199254740992.0 ||
        number != (double)(uint64_t)number)
        return false;
    *whole_p = (uint64_t)number;
    return true;
}

static bool read_shape(const struct json *entry, struct safetensors_tensor *tensor, struct status *st)
{
    const struct json *shape = json_get(entry, "shape");
    uint64_t bytes = dtypes[tensor->dtype].bytes;

    if (!json_is_array(shape) || json_len(shape) > SAFETENSORS_DIMS_MAX)
        return status_fail(st, STATUS_INVALID, "shape is missing or not a list of at most %d numbers",
                           SAFETENSORS_DIMS_MAX);
    tensor->dims = (uint32_t)json_len(shape);
    for (uint32_t i = 0; i < tensor->dims; i++) {
        if (!read_whole(json_at(shape, i), &tensor->shape[i]))
            return status_fail(st, STATUS_INVALID, "shape[%u] is not a whole number from 0", i);
        if (__builtin_mul_overflow(bytes, tensor->shape[i], &bytes))
            return status_fail(st, STATUS_INVALID, "shape needs more than 2^64 bytes");
    }
    tensor->bytes = bytes;
    return true;
}

static bool read_tensor(struct safetensors_tensor *tensor, const struct json *entry, const uint8_t *data,
                        uint64_t data_bytes, struct status *st)
{
    const struct json *offsets = json_get(entry, "data_offsets");
    uint64_t begin, end;

    if (!json_is_object(entry))
        return status_fail(st, STATUS_INVALID, "its entry is not an object");
    if (!read_dtype(entry, &tensor->dtype, st) || !read_shape(entry, tensor, st))
        return false;
    if (json_len(offsets) != 2 || !read_whole(json_at(offsets, 0), &begin) ||
        !read_whole(json_at(offsets, 1), &end))
        return status_fail(st, STATUS_INVALID, "data_offsets is missing or not two whole numbers");
    if (begin > end || end > data_bytes)
        return status_fail(st, STATUS_INVALID,
                           "data_offsets %" PRIu64 "..%" PRIu64 " lie outside the %" PRIu64
                           " data bytes of the file; it is truncated or damaged, fetch it again",
                           begin, end, data_bytes);
    if (end - begin != tensor->bytes) {
        char shape[128];

        safetensors_shape_text(tensor->shape, tensor->dims, shape, sizeof shape);
        return status_fail(st, STATUS_INVALID, "has %" PRIu64 " bytes; its shape %s of %s takes %" PRIu64,
                           end - begin, shape, dtypes[tensor->dtype].word, tensor->bytes);
    }
    tensor->data = data + begin;
    return true;
}

static struct safetensors_tensor *add_tensor(struct safetensors *checkpoint)
{
    if (checkpoint->tensor_count == checkpoint->tensor_room) {
        size_t room = checkpoint->tensor_room == 0 ? 256 : checkpoint->tensor_room * 2;
        struct safetensors_tensor *grown = realloc(checkpoint->tensors, room * sizeof *grown);

        if (grown == NULL)
            return NULL;
        checkpoint->tensors = grown;
        checkpoint->tensor_room = room;
    }
    memset(&checkpoint->tensors[checkpoint->tensor_count], 0, sizeof *checkpoint->tensors);
    return &checkpoint->tensors[checkpoint->tensor_count++];
}

static int by_place(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;

    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty tensors share a place */
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;

    return strcmp(x->name, y->name);
}

/* The tensors of a shard cover its data exactly: what the header does not name is damage. */
static bool check_cover(struct safetensors_tensor *first, size_t count, const uint8_t *data,
                        uint64_t data_bytes, struct status *st)
{
    uint64_t at = 0;

    if (count > 0)
        qsort(first, count, sizeof *first, by_place);
    for (size_t i = 0; i < count; i++) {
        uint64_t begin = (uint64_t)(first[i].data - data);

        if (begin != at)
            return status_fail(st, STATUS_INVALID,
                               "tensor '%s' begins at byte %" PRIu64 " of the data, expected %" PRIu64
                               ": tensors %s",
                               first[i].name, begin, at, begin < at ? "overlap" : "leave a hole");
        at += first[i].bytes;
    }
    if (at != data_bytes)
        return status_fail(st, STATUS_INVALID, "%" PRIu64 " bytes after the last tensor belong to none",
                           data_bytes - at);
    return true;
}

static bool read_header(struct shard *shard, uint64_t *data_at_p, struct status *st)
{
    uint64_t len;

    if (shard->map.len < 8)
        return status_fail(st, STATUS_INVALID, "has %zu bytes; a safetensors file begins with 8 of length",
                           shard->map.len);
    len = get_u64(shard->map.data);
    if (len > SAFETENSORS_HEADER_BYTES_MAX || len > shard->map.len - 8)
        return status_fail(st, STATUS_INVALID,
                           "header of %" PRIu64 " bytes does not fit the file's %zu (at most %d are read)",
                           len, shard->map.len, SAFETENSORS_HEADER_BYTES_MAX);
    shard->header = json_parse((struct bytes){ shard->map.data + 8, len }, st);
    if (shard->header == NULL)
        return status_wrap(st, "header");
    if (!json_is_object(shard->header))
        return status_fail(st, STATUS_INVALID, "header is not a JSON object");
    *data_at_p = 8 + len;
    return true;
}

static bool read_shard(struct safetensors *checkpoint, struct shard *shard, struct status *st)
{
    size_t first = checkpoint->tensor_count;
    uint64_t data_at = 0, data_bytes;

    if (!read_header(shard, &data_at, st))
        return false;
    data_bytes = shard->map.len - data_at;
    for (void *at = json_first(shard->header); at != NULL; at = json_next(shard->header, at)) {
        struct safetensors_tensor *tensor;

        if (strcmp(json_key(at), "__metadata__") == 0)
            continue;
        if (checkpoint->tensor_count >= SAFETENSORS_TENSORS_MAX)
            return status_fail(st, STATUS_INVALID, "more than %d tensors", SAFETENSORS_TENSORS_MAX);
        tensor = add_tensor(checkpoint);
        if (tensor == NULL)
            return status_fail(st, STATUS_EXHAUSTED, "no memory for the list of tensors");
        tensor->name = json_key(at);
        tensor->file = shard->name;
        if (!read_tensor(tensor, json_value(at), shard->map.data + data_at, data_bytes, st))
            return status_wrap(st, "tensor '%.200s'", tensor->name);
    }
    return check_cover(checkpoint->tensors + first, checkpoint->tensor_count - first,
                       shard->map.data + data_at, data_bytes, st);
}

static bool open_shard(struct safetensors *checkpoint, const char *folder, const char *name,
                       struct status *st)
{
    struct shard *shard = &checkpoint->shards[checkpoint->shard_count];
    char path[PATH_MAX];

    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return status_fail(st, STATUS_INVALID, "path is too long: %.100s...", folder);
    memset(shard, 0, sizeof *shard);
    checkpoint->shard_count++;
    shard->name = strdup(name);
    if (shard->name == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a shard's name");
    if (!file_map_open(path, &shard->map, st))
        return false;
    return read_shard(checkpoint, shard, st) || status_wrap(st, "%s", path);
}

/* "model-00001-of-00002.safetensors": a name within the folder, nothing that leads out of it. */
static bool shard_name_is_plain(const char *name)
{
    return name != NULL && name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL &&
           strlen(name) <= NAME_MAX;
}

static bool has_shard(const struct safetensors *checkpoint, const char *name)
{
    for (size_t i = 0; i < checkpoint->shard_count; i++)
        if (strcmp(checkpoint->shards[i].name, name) == 0)
            return true;
    return false;
}

static bool open_indexed(struct safetensors *checkpoint, const char *folder, const struct json *map,
                         struct status *st)
{
    if (!json_is_object(map) || json_len(map) == 0)
        return status_fail(st, STATUS_INVALID,
                           "field 'weight_map' is missing or not an object of tensor: file");
    for (void *at = json_first(map); at != NULL; at = json_next(map, at)) {
        const char *name = json_str(json_value(at));

        if (!shard_name_is_plain(name))
            return status_fail(st, STATUS_INVALID,
                               "tensor '%.200s' is not in a plain file name of the folder", json_key(at));
        if (has_shard(checkpoint, name))
            continue;
        if (checkpoint->shard_count >= SAFETENSORS_SHARDS_MAX)
            return status_fail(st, STATUS_INVALID, "more than %d shards", SAFETENSORS_SHARDS_MAX);
        if (!open_shard(checkpoint, folder, name, st))
            return false;
    }
    return true;
}

static bool sort_by_name(struct safetensors *checkpoint, struct status *st)
{
    const struct safetensors_tensor *tensors = checkpoint->tensors;

    if (checkpoint->tensor_count == 0)
        return status_fail(st, STATUS_INVALID, "the checkpoint holds no tensors");
    qsort(checkpoint->tensors, checkpoint->tensor_count, sizeof *tensors, by_name);
    for (size_t i = 1; i < checkpoint->tensor_count; i++)
        if (strcmp(tensors[i - 1].name, tensors[i].name) == 0)
            return status_fail(st, STATUS_INVALID, "tensor '%.200s' is both in %s and in %s", tensors[i].name,
                               tensors[i - 1].file, tensors[i].file);
    return true;
}

static bool check_index(const struct safetensors *checkpoint, const struct json *map, struct status *st)
{
    for (void *at = json_first(map); at != NULL; at = json_next(map, at)) {
        const struct safetensors_tensor *found = safetensors_find(checkpoint, json_key(at));

        if (found == NULL || strcmp(found->file, json_str(json_value(at))) != 0)
            return status_fail(st, STATUS_INVALID, "tensor '%.200s' is not in %s, where the index expects it",
                               json_key(at), json_str(json_value(at)));
    }
    return true;
}

static bool open_folder(struct safetensors *checkpoint, const char *folder, struct status *st)
{
    char path[PATH_MAX];
    struct json *index;
    bool ok;

    if (snprintf(path, sizeof path, "%s/model.safetensors", folder) >= (int)sizeof path)
        return status_fail(st, STATUS_INVALID, "path is too long: %.100s...", folder);
    if (access(path, F_OK) == 0) {
        checkpoint->shards = calloc(1, sizeof *checkpoint->shards);
        if (checkpoint->shards == NULL)
            return status_fail(st, STATUS_EXHAUSTED, "no memory for the list of shards");
        return open_shard(checkpoint, folder, "model.safetensors", st) && sort_by_name(checkpoint, st);
    }
    if (snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder) >= (int)sizeof path)
        return status_fail(st, STATUS_INVALID, "path is too long: %.100s...", folder);
    if (access(path, F_OK) != 0)
        return status_fail(
            st, STATUS_NOT_FOUND,
            "%s holds neither model.safetensors nor model.safetensors.index.json; name a Hugging "
            "Face checkpoint folder",
            folder);
    checkpoint->shards = calloc(SAFETENSORS_SHARDS_MAX, sizeof *checkpoint->shards);
    if (checkpoint->shards == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for the list of shards");
    index = json_parse_file(path, INDEX_BYTES_MAX, st);
    if (index == NULL)
        return false;
    ok = open_indexed(checkpoint, folder, json_get(index, "weight_map"), st) &&
         sort_by_name(checkpoint, st) && check_index(checkpoint, json_get(index, "weight_map"), st);
    if (!ok)
        status_wrap(st, "model.safetensors.index.json");
    json_free(index);
    return ok;
}

bool safetensors_open(struct safetensors **checkpoint_p, const char *folder, struct status *st)
{
    struct safetensors *checkpoint = calloc(1, sizeof *checkpoint);

    if (checkpoint == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a checkpoint");
    if (!open_folder(checkpoint, folder, st)) {
        safetensors_close(checkpoint);
        return false;
    }
    *checkpoint_p = checkpoint;
    return true;
}

void safetensors_close(struct safetensors *checkpoint)
{
    if (checkpoint == NULL)
        return;
    for (size_t i = 0; i < checkpoint->shard_count; i++) {
        json_free(checkpoint->shards[i].header);
        file_map_close(&checkpoint->shards[i].map);
        free(checkpoint->shards[i].name);
    }
    free(checkpoint->shards);
    free(checkpoint->tensors);
    free(checkpoint);
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *checkpoint, const char *name)
{
    struct safetensors_tensor wanted = { .name = name };

    return bsearch(&wanted, checkpoint->tensors, checkpoint->tensor_count, sizeof wanted, by_name);
}

size_t safetensors_count(const struct safetensors *checkpoint)
{
    return checkpoint->tensor_count;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *checkpoint, size_t index)
{
    return &checkpoint->tensors[index];
}
