/* Checkpoints come from strangers: each kind of damage is refused by name, and good files are read whole. */
#include <stdlib.h>

#include "base/bytes.h"
#include "base/file.h"
#include "model/safetensors.h"
#include "support/test.h"

static void write_file(const char *folder, const char *name, const void *data, size_t len)
{
    char path[512];
    struct status st;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK_OK(file_write_durable(path, data, len, &st), st);
}

/* A safetensors file from its header's text and `data_bytes` bytes 0, 1, 2, ... */
static void write_tensors(const char *folder, const char *name, const char *header, size_t data_bytes)
{
    uint8_t file[4096];
    size_t len = strlen(header);

    CHECK(8 + len + data_bytes <= sizeof file);
    put_u64(file, len);
    memcpy(file + 8, header, len);
    for (size_t i = 0; i < data_bytes; i++)
        file[8 + len + i] = (uint8_t)i;
    write_file(folder, name, file, 8 + len + data_bytes);
}

#define ONE_SHARD "model.safetensors"
#define INDEX     "model.safetensors.index.json"

TEST(tensors_of_one_file_are_found_with_shape_and_bytes)
{
    const char *folder = test_folder();
    struct safetensors *checkpoint = NULL;
    const struct safetensors_tensor *tensor;
    struct status st;

    write_tensors(folder, ONE_SHARD,
                  "{\"__metadata__\":{\"format\":\"pt\"},"
                  "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[24,30]},"
                  "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                  "\"empty\":{\"dtype\":\"F16\",\"shape\":[0,5],\"data_offsets\":[24,24]}}  ",
                  30);
    CHECK_OK(safetensors_open(&checkpoint, folder, &st), st);
    CHECK_EQ(safetensors_count(checkpoint), 3);
    CHECK_STR(safetensors_at(checkpoint, 0)->name, "a");
    tensor = safetensors_find(checkpoint, "b");
    CHECK(tensor != NULL);
    CHECK_EQ(tensor->dtype, SAFETENSORS_BF16);
    CHECK_EQ(tensor->dims, 1);
    CHECK_EQ(tensor->shape[0], 3);
    CHECK_EQ(tensor->bytes, 6);
    CHECK_EQ(tensor->data[0], 24);
    CHECK(safetensors_find(checkpoint, "c") == NULL);
    safetensors_close(checkpoint);
}

TEST(shards_named_by_an_index_read_as_one_checkpoint)
{
    const char *index = "{\"weight_map\":{\"x\":\"m-1.safetensors\",\"w\":\"m-2.safetensors\"}}";
    const char *folder = test_folder();
    struct safetensors *checkpoint = NULL;
    struct status st;

    write_tensors(folder, "m-1.safetensors",
                  "{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4);
    write_tensors(folder, "m-2.safetensors",
                  "{\"w\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2);
    write_file(folder, INDEX, index, strlen(index));
    CHECK_OK(safetensors_open(&checkpoint, folder, &st), st);
    CHECK_STR(safetensors_find(checkpoint, "w")->file, "m-2.safetensors");
    CHECK_STR(safetensors_find(checkpoint, "x")->file, "m-1.safetensors");
    safetensors_close(checkpoint);
}

TEST(every_kind_of_damage_is_named)
{
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *sentence;
    } cases[] = {
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", 8, "malformed JSON" },
        { "[1]", 0, "not a JSON object" },
        { "{\"a\":3}", 0, "its entry is not an object" },
        { "{\"a\":{\"dtype\":\"Q4\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype 'Q4' is unknown" },
        { "{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "field 'dtype' is missing" },
        { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "shape is missing" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "shape[0]" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,8]}}", 8, "shape[0]" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,8]}}", 8,
          "more than 2^64" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "data_offsets is missing" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9]}}", 9, "shape [2] of F32 takes 8" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "lie outside" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "truncated" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12, "leave a hole" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
          "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
          12, "overlap" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 10, "belong to none" },
        { "{}", 0, "holds no tensors" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *folder = test_folder();
        struct safetensors *checkpoint = NULL;
        struct status st = { 0 };

        write_tensors(folder, ONE_SHARD, cases[i].header, cases[i].data_bytes);
        CHECK(!safetensors_open(&checkpoint, folder, &st));
        CHECK_HAS(st.text, cases[i].sentence);
        CHECK_EQ(st.code, STATUS_INVALID);
        CHECK(checkpoint == NULL);
    }
}

TEST(a_header_longer_than_its_file_is_refused)
{
    static const uint64_t lengths[] = { 9, 1u << 20, SAFETENSORS_HEADER_BYTES_MAX + 1ull, UINT64_MAX };

    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        const char *folder = test_folder();
        struct safetensors *checkpoint = NULL;
        struct status st = { 0 };
        uint8_t file[16] = { 0 };

        put_u64(file, lengths[i]);
        write_file(folder, ONE_SHARD, file, sizeof file);
        CHECK(!safetensors_open(&checkpoint, folder, &st));
        CHECK_HAS(st.text, "does not fit the file's 16");
        write_file(folder, ONE_SHARD, file, 5);
        CHECK(!safetensors_open(&checkpoint, folder, &st));
        CHECK_HAS(st.text, "has 5 bytes");
    }
}

TEST(an_index_may_not_lie_or_lead_out_of_the_folder)
{
    static const char *const indexes[][2] = {
        { "{\"weight_map\":{\"x\":\"../m-1.safetensors\"}}", "plain file name" },
        { "{\"weight_map\":{\"x\":\"/etc/passwd\"}}", "plain file name" },
        { "{\"weight_map\":{\"y\":\"m-1.safetensors\"}}", "tensor 'y' is not in m-1.safetensors" },
        { "{\"weight_map\":{\"x\":\"m-9.safetensors\"}}", "m-9.safetensors" },
        { "{\"weight_map\":{}}", "weight_map" },
        { "{\"weight_map\":{\"x\":\"m-1.safetensors\",\"z\":\"m-2.safetensors\"}}", "'x' is both in" },
    };

    for (size_t i = 0; i < ARRAY_LEN(indexes); i++) {
        const char *folder = test_folder();
        struct safetensors *checkpoint = NULL;
        struct status st = { 0 };

        write_tensors(folder, "m-1.safetensors",
                      "{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4);
        write_tensors(folder, "m-2.safetensors",
                      "{\"z\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                      "\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
                      4);
        write_file(folder, INDEX, indexes[i][0], strlen(indexes[i][0]));
        CHECK(!safetensors_open(&checkpoint, folder, &st));
        CHECK_HAS(st.text, indexes[i][1]);
    }
}

TEST(a_folder_without_a_checkpoint_says_what_it_lacks)
{
    struct safetensors *checkpoint = NULL;
    struct status st = { 0 };

    CHECK(!safetensors_open(&checkpoint, test_folder(), &st));
    CHECK_EQ(st.code, STATUS_NOT_FOUND);
    CHECK_HAS(st.text, "neither model.safetensors nor model.safetensors.index.json");
}

TEST_MAIN()
