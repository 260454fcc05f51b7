/* array.h - a list that grows one by one and keeps no number for its room: that is the power of two at or above its count. */
#ifndef REELKV_BASE_ARRAY_H
#define REELKV_BASE_ARRAY_H

#include <stdlib.h>

/* Room for one more item behind `count` (list NULL: 0) that were added like this, one by one. NULL: no memory, and the list
 * is as it was. */
static inline void *array_grow(void *list, size_t count, size_t item_bytes)
{
    if ((count & (count - 1)) != 0)
        return list;
    return realloc(list, (count == 0 ? 1 : 2 * count) * item_bytes);
}

#endif
