#include "rpc/descriptor_index.h"

#include <stdlib.h>

#include "support/test.h"

extern const uint8_t reelkv_descriptor_set[], reelkv_descriptor_set_end[];

static struct bytes whole_set(void)
{
    return (struct bytes){ reelkv_descriptor_set,
                           (size_t)(reelkv_descriptor_set_end - reelkv_descriptor_set) };
}

static struct bytes text(const char *words)
{
    return (struct bytes){ (const uint8_t *)words, strlen(words) };
}

TEST(files_are_found_by_name_and_by_every_kind_of_symbol)
{
    static const struct {
        const char *symbol, *file;
    } rows[] = {
        { "reelkv.v1.KvStore", "reelkv/v1/kvstore.proto" },
        { "reelkv.v1.KvStore.Append", "reelkv/v1/kvstore.proto" },
        { "reelkv.v1.StreamId", "reelkv/v1/common.proto" },
        { "reelkv.v1.FrameResult", "reelkv/v1/common.proto" },
        { "grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto" },
        { "grpc.reflection.v1alpha.ServerReflection", "grpc/reflection/v1alpha/reflection.proto" },
    };
    struct descriptor_index *index = NULL;
    struct status st = { 0 };

    CHECK_OK(descriptor_index_create(&index, whole_set(), &st), st);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct descriptor_file *file = descriptor_file_with_symbol(index, rows[i].symbol);

        CHECK(file != NULL);
        CHECK(file == descriptor_file_named(index, text(rows[i].file)));
    }
    CHECK(descriptor_file_with_symbol(index, "reelkv.v1") == NULL);
    CHECK(descriptor_file_with_symbol(index, ".reelkv.v1.KvStore") == NULL);
    CHECK(descriptor_file_named(index, text("reelkv/v1/none.proto")) == NULL);
    descriptor_index_destroy(index);
}

/* qa imports kvstore and common, kvstore imports catalog and common, catalog imports common: common comes once. */
TEST(a_files_imports_come_with_it_each_once)
{
    const struct descriptor_file *closure[DESCRIPTOR_FILES];
    struct descriptor_index *index = NULL;
    struct status st = { 0 };

    CHECK_OK(descriptor_index_create(&index, whole_set(), &st), st);
    CHECK_EQ(descriptor_file_closure(index, descriptor_file_named(index, text("reelkv/v1/qa.proto")),
                                     closure),
             4);
    CHECK(closure[0] == descriptor_file_named(index, text("reelkv/v1/qa.proto")));
    descriptor_index_destroy(index);
}

TEST(cut_and_flipped_sets_are_refused_or_read_within_their_bytes)
{
    struct bytes set = whole_set();
    struct status st = { 0 };

    for (size_t i = 0; i < set.len; i += 7) {
        struct descriptor_index *index = NULL;
        uint8_t *copy = malloc(set.len);

        REQUIRE(copy != NULL);
        memcpy(copy, set.data, set.len);
        copy[i] ^= 0x81;
        if (descriptor_index_create(&index, (struct bytes){ copy, set.len }, &st))
            descriptor_index_destroy(index);
        index = NULL;
        if (descriptor_index_create(&index, (struct bytes){ copy, i }, &st))
            descriptor_index_destroy(index);
        free(copy);
    }
    CHECK_EQ(st.code, STATUS_INVALID);
}

TEST_MAIN()
