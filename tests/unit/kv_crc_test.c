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

/* By its definition, a bit at a time. */
static uint32_t crc_by_bits(uint32_t crc, const uint8_t *bytes, size_t len)
{
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

/* Long runs go through wider registers: around where they begin, around their steps, from every place in a line, and on from
 * an earlier sum. */
TEST(crc_of_long_runs_is_what_its_definition_says)
{
    enum { LEAST = 4096 - 300, MOST = 4096 + 600, LINE = 64 };
    static uint8_t bytes[MOST + LINE];

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 2246822519u >> 11);
    for (size_t len = LEAST; len < MOST; len++) {
        size_t at = len * 5 % LINE;

        CHECK_EQ(kv_crc((uint32_t)len, bytes + at, len), crc_by_bits((uint32_t)len, bytes + at, len));
    }
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

/* Every length around the steps of the folding copy, from and to every place in a line; what stands around the copy
 * stays; and the long runs that go past the caches. */
TEST(crc_copy_copies_and_gives_the_crc_of_what_it_copied)
{
    enum { SHORT = 1200, LONG = 300000, EDGE = 64 };
    static uint8_t from[LONG + 2 * EDGE], to[LONG + 3 * EDGE];

    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t len = 0; len < SHORT; len++) {
        size_t at = len % EDGE, shift = len * 7 % EDGE;

        memset(to, 0x5a, SHORT + 3 * EDGE);
        CHECK_EQ(kv_crc_copy((uint32_t)len, to + EDGE + at, from + shift, len),
                 kv_crc((uint32_t)len, from + shift, len));
        CHECK(memcmp(to + EDGE + at, from + shift, len) == 0);
        CHECK(to[EDGE + at - 1] == 0x5a && to[EDGE + at + len] == 0x5a);
    }
    for (size_t at = 0; at < EDGE; at += 9) {
        size_t len = LONG - at * 11;

        CHECK_EQ(kv_crc_copy(0, to + at, from + at / 2, len), kv_crc(0, from + at / 2, len));
        CHECK(memcmp(to + at, from + at / 2, len) == 0);
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
