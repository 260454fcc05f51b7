/* stream.json and history.json, as a store reads them at start. The first byte says which one the rest is; the other one is
 * a sound one. */
#include <stdlib.h>
#include <string.h>

#include "base/name.h"
#include "fuzz.h"
#include "fuzz_file.h"
#include "kvstore/store.h"

static const char sound_stream[] =
    "{\n  \"namespace\": \"default\",\n  \"name\": \"cam-1\",\n  \"source\": \"rtsp://cam/1\",\n  \"kind\": \"live\",\n"
    "  \"sample_fps\": 0.5,\n  \"start_time_ns\": 0,\n  \"created_ns\": 1700000000000000000,\n  \"epoch\": 3,\n"
    "  \"next_seq\": 12,\n  \"writer\": \"analyzer-0\",\n  \"expected_frames\": 0,\n  \"ended\": false,\n"
    "  \"trouble\": \"\"\n}\n";
static const char sound_history[] =
    "{\"next_seq\": 9, \"next_token_index\": 180, \"spans\": [{\"from_seq\": 0, \"to_seq\": 4, \"from_pts_ns\": 1,"
    " \"to_pts_ns\": 7, \"frames\": 4}, {\"from_seq\": 4, \"to_seq\": 9, \"from_pts_ns\": 8, \"to_pts_ns\": 9,"
    " \"frames\": 0}]}";

static struct store store = { .disk = &fuzz_disk };

static void put(const char *path, const void *data, size_t len)
{
    if (len <= FUZZ_FILE_BYTES)
        memcpy(fuzz_disk_put(path, len), data, len);
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
    history_take_back(history, 3, 6);
    free(history_text(history, "default/cam-1/history.json"));
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
    put("/m/stream.json", sound_stream, sizeof sound_stream - 1);
    put("/m/history.json", sound_history, sizeof sound_history - 1);
    put(data[0] % 2 == 0 ? "/m/stream.json" : "/m/history.json", data + 1, len - 1);
    if (stream_load_file(&stream, &st))
        look_at_history(&stream);
    else
        REQUIRE(st.code != STATUS_OK && st.text[0] != '\0');
    return 0;
}

void fuzz_seeds(fuzz_seed_fn *add)
{
    char input[sizeof sound_stream + sizeof sound_history];

    input[0] = 0;
    memcpy(input + 1, sound_stream, sizeof sound_stream - 1);
    add("stream", input, sizeof sound_stream);
    input[0] = 1;
    memcpy(input + 1, sound_history, sizeof sound_history - 1);
    add("history", input, sizeof sound_history);
}
