/* Names of epochs' folders and of segment files: what a store writes is read back, and nothing else is one. */
#include "kv/kv_format.h"

#include "support/test.h"

TEST(names_of_files_are_read_back)
{
    struct kv_file_name file;
    uint64_t epoch = 0;

    CHECK(kv_file_name_get(&file, "00000000000000000040-0123456789abcdef.seg"));
    CHECK_EQ(file.first_seq, 40);
    CHECK(file.salt == 0x0123456789abcdefull && !file.is_open);
    CHECK(kv_file_name_get(&file, "00000000000000000000-00000000000000ff.open"));
    CHECK(file.first_seq == 0 && file.salt == 255 && file.is_open);
    CHECK(kv_epoch_name_get(&epoch, "00000000000000000007"));
    CHECK_EQ(epoch, 7);
}

TEST(names_that_are_none)
{
    static const char *const files[] = { "",
                                         "stream.json",
                                         "0000000000000000004-0123456789abcdef.seg",
                                         "000000000000000000401-123456789abcdef0.seg",
                                         "00000000000000000040_0123456789abcdef.seg",
                                         "00000000000000000040-0123456789abcdeF.seg",
                                         "00000000000000000040-0123456789abcde.seg",
                                         "00000000000000000040-0123456789abcdef",
                                         "00000000000000000040-0123456789abcdef.new",
                                         "00000000000000000040-0123456789abcdef.seg.new" };
    static const char *const epochs[] = { "", "7", "0000000000000000000x", "000000000000000000071",
                                          "0000000000000000007" };
    struct kv_file_name file = { .first_seq = 5 };
    uint64_t epoch = 5;

    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        CHECK(!kv_file_name_get(&file, files[i]));
    for (size_t i = 0; i < ARRAY_LEN(epochs); i++)
        CHECK(!kv_epoch_name_get(&epoch, epochs[i]));
    CHECK(file.first_seq == 5 && epoch == 5);
}

TEST(names_of_shapes_for_people)
{
    struct kv_geometry geometry = { .layers = 3, .kv_heads = 2, .head_dim = 16, .dtype = KV_DTYPE_F16 },
                       other;
    char text[KV_GEOMETRY_TEXT_BYTES];

    CHECK_HAS(kv_geometry_text(&geometry, text), "3");
    geometry.dtype = (enum kv_dtype)77; /* as a file may say */
    CHECK(kv_geometry_text(&geometry, text)[0] != '\0');
    for (unsigned i = 0; i < 4; i++) {
        other = geometry;
        other.layers += i == 0;
        other.kv_heads += i == 1;
        other.head_dim += i == 2;
        other.dtype = i == 3 ? KV_DTYPE_F32 : other.dtype;
        CHECK(!kv_geometry_is_equal(&geometry, &other));
    }
    CHECK(kv_geometry_is_equal(&geometry, &geometry));
    CHECK_STR(kv_tombstone_text(KV_TOMBSTONE_THINNED), "thinned");
    CHECK_STR(kv_tombstone_text(0), "gone");
    CHECK_STR(kv_tombstone_text(999), "gone");
}

TEST_MAIN()
