/* large.h - memory for what is large, kept long, and read whole again and again: pieces of regions of large pages.
 *
 * One pass over a GB takes a processor a fifth to a third longer in pages of 4 KiB than in large ones. Pieces stand one behind
 * the other in a region and are not used again: a piece that is given back goes to the kernel at once, its region with its
 * last piece. So what was taken together (and goes together, as the oldest of a store does) leaves whole large pages free.
 *
 * Owner:  the taker, who keeps the region's handle beside the piece. Thread: any, as malloc().
 * Fails:  NULL, and nothing has changed.
 * Bounds: large_bytes() a piece, which the caller counts, and of each region less than one large page more. Of a large page
 *         that loses some of its pieces the kernel takes the rest when it needs it. */
#ifndef REELKV_BASE_LARGE_H
#define REELKV_BASE_LARGE_H

#include <stddef.h>

enum {
    LARGE_PAGE_BYTES = 2 << 20,
    LARGE_REGION_BYTES = 32 << 20,
    LARGE_ALIGN = 4096, /* of pieces */
};

struct large_region;

/* What a piece takes. */
size_t large_bytes(size_t bytes);

/* *region_p: for large_free(). */
void *large_alloc(size_t bytes, struct large_region **region_p);
void large_free(struct large_region *region, void *memory, size_t bytes);

#endif
