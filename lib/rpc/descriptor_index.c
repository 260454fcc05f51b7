#include "rpc/descriptor_index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"

enum { SYMBOL_BYTES = 256, NESTING_MAX = 16 };

struct symbol {
    char *name; /* "reelkv.v1.StreamId", without a dot in front */
    uint32_t file;
};

struct descriptor_index {
    struct descriptor_file files[DESCRIPTOR_FILES];
    uint32_t file_count;
    struct symbol symbols[DESCRIPTOR_SYMBOLS];
    uint32_t symbol_count;
};

/* One field of a message: its number and, for length-delimited ones, its bytes. */
struct field {
    uint64_t number;
    struct bytes bytes;
};

static bool take_varint(struct bytes *in, uint64_t *value_p)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64 && in->len > 0; shift += 7) {
        uint8_t byte = *in->data++;

        in->len--;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value_p = value;
            return true;
        }
    }
    return false;
}

/* True with the next field; false at the end, or (*bad) when the bytes make no sense. */
static bool take_field(struct bytes *in, struct field *field, bool *bad)
{
    uint64_t tag, len = 0;

    if (in->len == 0)
        return false;
    *bad = true;
    if (!take_varint(in, &tag))
        return false;
    switch (tag & 7) {
    case 0:
        if (!take_varint(in, &len))
            return false;
        len = 0;
        break;
    case 1:
        len = 8;
        break;
    case 2:
        if (!take_varint(in, &len))
            return false;
        break;
    case 5:
        len = 4;
        break;
    default:
        return false;
    }
    if (len > in->len)
        return false;
    field->number = tag >> 3;
    field->bytes = (struct bytes){ in->data, (size_t)len };
    in->data += len;
    in->len -= (size_t)len;
    *bad = false;
    return true;
}

/* The `name` field of a descriptor message; empty when there is none. */
static struct bytes name_in(struct bytes message)
{
    struct field field;
    bool bad = false;

    while (take_field(&message, &field, &bad))
        if (field.number == 1)
            return field.bytes;
    return (struct bytes){ (const uint8_t *)"", 0 };
}

static bool add_symbol(struct descriptor_index *index, const char *name, struct status *st)
{
    struct symbol *symbol = &index->symbols[index->symbol_count];

    if (index->symbol_count == DESCRIPTOR_SYMBOLS)
        return status_fail(st, STATUS_INVALID, "more than %d names in the descriptors", DESCRIPTOR_SYMBOLS);
    symbol->name = strdup(name);
    if (symbol->name == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for descriptors");
    symbol->file = index->file_count - 1;
    index->symbol_count++;
    return true;
}

/* What a message of one kind holds: which fields are named things, and of which kind they are in turn. */
enum kind { KIND_NAME_ONLY, KIND_MESSAGE, KIND_SERVICE, KIND_FILE, KINDS };

static const struct {
    uint64_t number;
    enum kind kind;
} parts[KINDS][4] = {
    [KIND_MESSAGE] = { { 3, KIND_MESSAGE }, { 4, KIND_NAME_ONLY } }, /* nested_type, enum_type */
    [KIND_SERVICE] = { { 2, KIND_NAME_ONLY } },                      /* method */
    [KIND_FILE] = { { 4, KIND_MESSAGE },
                    { 5, KIND_NAME_ONLY },
                    { 6, KIND_SERVICE } }, /* message, enum, service */
};

static bool add_parts(struct descriptor_index *index, struct bytes message, enum kind kind,
                      const char *prefix, struct status *st)
{
    struct field field;
    bool bad = false;

    if (strlen(prefix) >= SYMBOL_BYTES - 1)
        return status_fail(st, STATUS_INVALID, "a name in the descriptors is longer than %d", SYMBOL_BYTES);
    while (take_field(&message, &field, &bad)) {
        for (size_t i = 0; i < ARRAY_LEN(parts[kind]) && parts[kind][i].number != 0; i++) {
            char name[SYMBOL_BYTES];
            struct bytes own = name_in(field.bytes);

            if (field.number != parts[kind][i].number)
                continue;
            snprintf(name, sizeof name, "%s%s%.*s", prefix, prefix[0] != '\0' ? "." : "", (int)own.len,
                     (const char *)own.data);
            if (!add_symbol(index, name, st) || !add_parts(index, field.bytes, parts[kind][i].kind, name, st))
                return false;
        }
    }
    return !bad || status_fail(st, STATUS_INVALID, "the descriptors are damaged near %s", prefix);
}

static bool add_file(struct descriptor_index *index, struct bytes raw, struct status *st)
{
    struct descriptor_file *file = &index->files[index->file_count];
    struct bytes rest = raw;
    struct field field;
    char package[SYMBOL_BYTES];
    bool bad = false;

    if (index->file_count == DESCRIPTOR_FILES)
        return status_fail(st, STATUS_INVALID, "more than %d files in the descriptors", DESCRIPTOR_FILES);
    index->file_count++;
    file->raw = raw;
    file->package = (struct bytes){ (const uint8_t *)"", 0 };
    while (take_field(&rest, &field, &bad)) {
        if (field.number == 1)
            file->name = field.bytes;
        else if (field.number == 2)
            file->package = field.bytes;
        else if (field.number == 3 && file->dependency_count < DESCRIPTOR_DEPENDENCIES)
            file->dependencies[file->dependency_count++] = field.bytes;
        else if (field.number == 3)
            return status_fail(st, STATUS_INVALID, "a file imports more than %d others",
                               DESCRIPTOR_DEPENDENCIES);
    }
    if (bad || file->name.data == NULL)
        return status_fail(st, STATUS_INVALID, "file %u of the descriptors is damaged", index->file_count);
    snprintf(package, sizeof package, "%.*s", (int)file->package.len, (const char *)file->package.data);
    return add_parts(index, raw, KIND_FILE, package, st);
}

bool descriptor_index_create(struct descriptor_index **index_p, struct bytes set, struct status *st)
{
    struct descriptor_index *index = calloc(1, sizeof *index);
    struct field field;
    bool bad = false;

    if (index == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for descriptors");
    while (take_field(&set, &field, &bad)) {
        if (field.number == 1 && !add_file(index, field.bytes, st)) {
            descriptor_index_destroy(index);
            return false;
        }
    }
    if (bad) {
        descriptor_index_destroy(index);
        return status_fail(st, STATUS_INVALID, "the descriptors are damaged");
    }
    *index_p = index;
    return true;
}

void descriptor_index_destroy(struct descriptor_index *index)
{
    if (index == NULL)
        return;
    for (uint32_t i = 0; i < index->symbol_count; i++)
        free(index->symbols[i].name);
    free(index);
}

const struct descriptor_file *descriptor_file_named(const struct descriptor_index *index, struct bytes name)
{
    for (uint32_t i = 0; i < index->file_count; i++)
        if (index->files[i].name.len == name.len &&
            memcmp(index->files[i].name.data, name.data, name.len) == 0)
            return &index->files[i];
    return NULL;
}

const struct descriptor_file *descriptor_file_with_symbol(const struct descriptor_index *index,
                                                          const char *symbol)
{
    for (uint32_t i = 0; i < index->symbol_count; i++)
        if (strcmp(index->symbols[i].name, symbol) == 0)
            return &index->files[index->symbols[i].file];
    return NULL;
}

uint32_t descriptor_file_closure(const struct descriptor_index *index, const struct descriptor_file *file,
                                 const struct descriptor_file *out[DESCRIPTOR_FILES])
{
    uint32_t count = 0;

    out[count++] = file;
    for (uint32_t at = 0; at < count; at++) {
        for (uint32_t d = 0; d < out[at]->dependency_count; d++) {
            const struct descriptor_file *next = descriptor_file_named(index, out[at]->dependencies[d]);
            uint32_t seen = 0;

            while (seen < count && out[seen] != next)
                seen++;
            if (next != NULL && seen == count)
                out[count++] = next;
        }
    }
    return count;
}
