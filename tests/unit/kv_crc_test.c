/* Checksums: known vectors, joining, identities. */
#include "kv/kv_crc.h"

#include "support/test.h"

/* RFC 3720 appendix B.4 and the check value of the catalogue of CRCs. */
TEST(crc_gives_the_published_values)
{
    uint8_t bytes[32] = { 0 };

    CHECK_EQ(kv_crc(0, "123456789", 9), 0xe3069283);
    CHECK_EQ(kv_crc(0, bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, sizeof bytes);
    CHECK_EQ(kv_crc(0, bytes, 32), 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    CHECK_EQ(kv_crc(0, bytes, 32), 0x46dd794e);
    CHECK_EQ(kv_crc(0, bytes, 0), 0);
}

/* Going on, joining and computing at once agree for every split of a buffer. */
TEST(crc_of_pieces_joins_to_the_crc_of_the_whole)
{
    uint8_t bytes[300];
    uint32_t whole;

    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * i + 3);
    whole = kv_crc(0, bytes, sizeof bytes);
    for (size_t split = 0; split <= sizeof bytes; split++) {
        uint32_t a = kv_crc(0, bytes, split), b = kv_crc(0, bytes + split, sizeof bytes - split);

        CHECK_EQ(kv_crc(a, bytes + split, sizeof bytes - split), whole);
        CHECK_EQ(kv_crc_join(a, b, sizeof bytes - split), whole);
    }
}

/* A length of more than 32 bits, against joining by squaring: zeros appended in two steps and in one. */
TEST(crc_joins_long_lengths)
{
    uint32_t start = kv_crc(0, "x", 1), zeros = 0, doubled;
    uint64_t len = 1;

    zeros = kv_crc(0, "", 1); /* one zero byte */
    for (unsigned i = 0; i < 40; i++) {
        doubled = kv_crc_join(zeros, zeros, len);
        CHECK_EQ(kv_crc_join(kv_crc_join(start, zeros, len), zeros, len),
                 kv_crc_join(start, doubled, 2 * len));
        zeros = doubled;
        len *= 2;
    }
}

TEST(crc_identity_depends_on_all_it_is_made_of)
{
    uint32_t one = kv_crc_identity(7, 11, 13);

    CHECK(kv_crc_identity(8, 11, 13) != one);
    CHECK(kv_crc_identity(7, 12, 13) != one);
    CHECK(kv_crc_identity(7, 11, 14) != one);
    CHECK_EQ(kv_crc_unseed(kv_crc(one, "block", 5), one, 5), kv_crc(0, "block", 5));
}

TEST_MAIN()
