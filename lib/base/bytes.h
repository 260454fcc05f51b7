/* bytes.h - a view of bytes that somebody else owns; little-endian get/put and rounding for written layouts. */
#ifndef REELKV_BASE_BYTES_H
#define REELKV_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Borrowed: whoever hands one out says until when it is valid. Not NUL-terminated. */
struct bytes {
    const uint8_t *data;
    size_t len;
};

static inline bool bytes_are_zero(const void *data, size_t len)
{
    const uint8_t *bytes = (const uint8_t *)data;

    return len == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0);
}

/* To a multiple of `align`. */
static inline uint64_t subtract_to_zero(uint64_t from, uint64_t value)
{
    return from > value ? from - value : 0;
}

static inline uint64_t round_down(uint64_t value, uint64_t align)
{
    return value / align * align;
}
static inline uint64_t round_up(uint64_t value, uint64_t align)
{
    return round_down(value + align - 1, align);
}

/* Layouts on disk and on the wire are little endian; so is every machine this runs on (checked here), which
 * makes these single moves. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "layouts are written for little-endian machines");

static inline void put_u16(uint8_t *to, uint16_t value)
{
    memcpy(to, &value, sizeof value);
}
static inline void put_u32(uint8_t *to, uint32_t value)
{
    memcpy(to, &value, sizeof value);
}
static inline void put_u64(uint8_t *to, uint64_t value)
{
    memcpy(to, &value, sizeof value);
}
static inline uint16_t get_u16(const uint8_t *from)
{
    uint16_t value;

    memcpy(&value, from, sizeof value);
    return value;
}
static inline uint32_t get_u32(const uint8_t *from)
{
    uint32_t value;

    memcpy(&value, from, sizeof value);
    return value;
}
static inline uint64_t get_u64(const uint8_t *from)
{
    uint64_t value;

    memcpy(&value, from, sizeof value);
    return value;
}

#endif
