/* A camera's small files, as a store reads them at start. Of the first byte two bits say which one the rest is, the next whether
 * a checksum that fits is put behind it; the others are sound ones. What is accepted of a history is the same when it is written
 * and read again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/name.h"
#include "fuzz.h"
#include "fuzz_file.h"
#include "kv/kv_crc.h"
#include "kvstore/store.h"
#include "kvstore/stream_forget.h"
#include "kvstore/stream_hold.h"

enum { FITS = 4 };

static const struct {
    const char *path, *sound;
} files[] = {
    { "/m/stream.json",
      "{\n  \"namespace\": \"default\",\n  \"name\": \"cam-1\",\n  \"source\": \"rtsp://cam/1\",\n  \"kind\": \"live\",\n"
      "  \"sample_fps\": 0.5,\n  \"start_time_ns\": 0,\n  \"created_ns\": 1700000000000000000,\n  \"epoch\": 3,\n"
      "  \"next_seq\": 12,\n  \"writer\": \"analyzer-0\",\n  \"expected_frames\": 0,\n  \"ended\": false,\n"
      "  \"trouble\": \"\"\n}\n" },
    { "/m/history.json",
      "{\"next_seq\": 9, \"next_token_index\": 180, \"spans\": [{\"from_seq\": 0, \"to_seq\": 4, \"from_pts_ns\": 1,"
      " \"to_pts_ns\": 7, \"frames\": 4}, {\"from_seq\": 4, \"to_seq\": 9, \"from_pts_ns\": 8, \"to_pts_ns\": 9,"
      " \"frames\": 0}]}" },
    { "/m/holds.json",
      "{\"next\": 3, \"holds\": [{\"number\": 2, \"from_ns\": 5, \"to_ns\": 9, \"owner\": \"police\","
      " \"reason\": \"case 17\", \"until_ns\": 0, \"created_ns\": 7}]}" },
    { "/m/forget.json",
      "{\"next\": 2, \"receipts\": [{\"number\": 1, \"from_ns\": 5, \"to_ns\": 9, \"next_seq\": 4,"
      " \"asked_ns\": 7, \"done_ns\": 8, \"frames\": 1, \"bytes\": 4096, \"files\": 1,"
      " \"store\": \"kv-a\", \"version\": \"0.1.0\"}]}" },
};

static struct store store = { .disk = &fuzz_disk };

static void put(const char *path, const void *data, size_t len, bool fits)
{
    char tail[CHECKED_JSON_TAIL_BYTES + 1];
    uint8_t *to;

    if (len + CHECKED_JSON_TAIL_BYTES > FUZZ_FILE_BYTES)
        return;
    to = fuzz_disk_put(path, len + (fits ? CHECKED_JSON_TAIL_BYTES : 0));
    memcpy(to, data, len);
    snprintf(tail, sizeof tail, ",\n\"crc32c\": \"%08x\"\n}\n", kv_crc(0, data, len));
    if (fits)
        memcpy(to + len, tail, CHECKED_JSON_TAIL_BYTES);
}

static void write_and_read(const struct history *history)
{
    static struct history again;
    char *text = history_text(history, "m/history.json");
    struct status st;

    REQUIRE(text != NULL);
    put("/m/history.json", text, strlen(text), false);
    REQUIRE(history_read(&again, &fuzz_disk, "/m/history.json", &st));
    REQUIRE(again.count == history->count && again.next_seq == history->next_seq &&
            again.next_token_index == history->next_token_index &&
            memcmp(again.spans, history->spans, history->count * sizeof history->spans[0]) == 0);
    free(text);
}

static void look_at_history(struct stream *stream)
{
    struct history *history = &stream->history;
    uint64_t frames, gaps;

    REQUIRE(history->count <= HISTORY_SPANS_MAX);
    history_in_range(history, INT64_MIN, INT64_MAX, &frames, &gaps);
    REQUIRE(history_frames(history) + history_gap_frames(history) >= history_frames(history));
    for (uint32_t i = 0; i < history->count; i++)
        REQUIRE(history_find(history, history->spans[i].from_seq) != NULL);
    write_and_read(history);
    history_take_back(history, 3, 6);
}

static void look_at_the_rest(struct stream *stream)
{
    const struct stream_hold *hold;

    for (uint32_t i = 0; (hold = stream_hold_at(stream, i)) != NULL; i++)
        REQUIRE(i < STREAM_HOLDS_MAX && hold->from_ns < hold->to_ns &&
                stream_held(stream, hold->from_ns, hold->to_ns) != NULL);
    for (uint32_t i = 0; stream_receipt_at(stream, i) != NULL; i++)
        REQUIRE(i < FORGET_RECEIPTS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct stream stream;
    struct status st;

    if (len == 0)
        return 0;
    memset(&stream, 0, sizeof stream);
    stream.store = &store;
    text_copy(stream.ns, sizeof stream.ns, "default");
    text_copy(stream.name, sizeof stream.name, "cam-1");
    text_copy(stream.folder, sizeof stream.folder, "/m");
    fuzz_disk_clear();
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        put(files[i].path, files[i].sound, strlen(files[i].sound), false);
    put(files[data[0] % ARRAY_LEN(files)].path, data + 1, len - 1, (data[0] & FITS) != 0);
    if (!stream_load_file(&stream, &st)) {
        REQUIRE(st.code != STATUS_OK && st.text[0] != '\0');
    } else if (!stream.is_importing) {
        look_at_history(&stream);
        look_at_the_rest(&stream);
    }
    free(stream.holds);
    stream_forget_free(&stream);
    return 0;
}

/* Each file as an older store wrote it, and as this one does. */
void fuzz_seeds(fuzz_seed_fn *add)
{
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        const char *name = files[i].path + 3, *sound = files[i].sound;
        char input[1024], kind[32];
        int len;

        len = snprintf(input, sizeof input, "%c%s", (int)i, sound);
        snprintf(kind, sizeof kind, "%.*s", (int)(strchr(name, '.') - name), name);
        add(kind, input, (size_t)len);
        len = snprintf(input, sizeof input, "%c{\"format\":2,\"file\":\"m/%s\",%.*s", (int)i + FITS, name,
                       (int)(strrchr(sound, '}') - sound - 1), sound + 1);
        snprintf(kind, sizeof kind, "%.*s-2", (int)(strchr(name, '.') - name), name);
        add(kind, input, (size_t)len);
    }
}
