/* CRC32C as a polynomial over GF(2), bits reflected: the highest bit of a word is x^0. Appending n bytes
 * multiplies what was before by x^(8n) modulo the polynomial, which is all that joining needs. */
#include "kv/kv_crc.h"

#include <isa-l/crc.h>
#include <pthread.h>

#include "base/bytes.h"
#include "kv/kv_crc_internal.h"

enum { CRC_ONE = 1u << 31, CRC_X = 1u << 30, CRC_POLYNOMIAL = 0x82f63b78 };
enum { PIECE_BYTES = 1 << 30 }; /* isa-l takes an int */

static uint32_t power_of_x[64]; /* x^(2^i) */
static pthread_once_t power_once = PTHREAD_ONCE_INIT;

uint32_t kv_crc(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *at = data;

    if (len >= KV_CRC_FOLD_BYTES) {
        size_t done = kv_crc_fold(&crc, at, len);

        at += done;
        len -= done;
    }
    crc = ~crc;
    while (len > 0) {
        size_t piece = len < PIECE_BYTES ? len : PIECE_BYTES;

        /* isa-l reads only, though it does not say so */
        crc = crc32_iscsi((unsigned char *)(uintptr_t)at, (int)piece, crc);
        at += piece;
        len -= piece;
    }
    return ~crc;
}

static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;

    for (unsigned bit = 0; bit < 32; bit++) {
        product ^= (a & (CRC_ONE >> bit)) ? b : 0;
        b = (b >> 1) ^ ((b & 1) ? (uint32_t)CRC_POLYNOMIAL : 0);
    }
    return product;
}

static void fill_powers(void)
{
    power_of_x[0] = CRC_X;
    for (unsigned i = 1; i < 64; i++)
        power_of_x[i] = multiply(power_of_x[i - 1], power_of_x[i - 1]);
}

/* x^(8 * len). The slices of a record are all alike, so the last answer is mostly the next one. */
static uint32_t shift_of(uint64_t len)
{
    static __thread uint64_t last_len;
    static __thread uint32_t last_shift;
    uint32_t shift = CRC_ONE;

    if (last_shift != 0 && last_len == len)
        return last_shift;
    pthread_once(&power_once, fill_powers);
    for (unsigned i = 0; i < 61; i++)
        if (len >> i & 1)
            shift = multiply(shift, power_of_x[i + 3]);
    last_len = len;
    last_shift = shift;
    return shift;
}

uint32_t kv_crc_join(uint32_t crc_a, uint32_t crc_b, uint64_t len_b)
{
    return multiply(shift_of(len_b), crc_a) ^ crc_b;
}

uint32_t kv_crc_identity(uint64_t salt, uint64_t seq, uint32_t part)
{
    uint8_t bytes[20];

    put_u64(bytes, salt);
    put_u64(bytes + 8, seq);
    put_u32(bytes + 16, part);
    return kv_crc(0, bytes, sizeof bytes);
}

uint32_t kv_crc_unseed(uint32_t seeded, uint32_t identity, uint64_t len)
{
    return multiply(shift_of(len), identity) ^ seeded;
}
