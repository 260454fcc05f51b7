/* What the first use of lib/rpc does to the process. */
#include <malloc.h>
#include <stdlib.h>

#include "rpc/rpc.h"
#include "support/test.h"

enum { LARGE_BYTES = 16 << 20 };

/* By default glibc maps a block of this size for itself and gives it back at once, to be faulted in again for the next
 * message: it must come from the heap, and stay with it when it is free. */
TEST(large_messages_stay_in_the_heap)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    test_skip("the sanitizer has an allocator of its own");
#else
    struct loop *loop = NULL;
    struct rpc *rpc = NULL;
    struct mallinfo2 before, taken, after;
    struct status st = { 0 };
    char *block;

    CHECK_OK(loop_create(&loop, &st), st);
    CHECK_OK(rpc_create(&rpc, loop, &st), st);
    before = mallinfo2();
    block = malloc(LARGE_BYTES);
    CHECK(block != NULL);
    memset(block, 1, LARGE_BYTES);
    taken = mallinfo2();
    free(block);
    after = mallinfo2();
    CHECK_EQ(taken.hblks, before.hblks); /* mapped for one block each */
    CHECK(taken.arena >= before.arena + LARGE_BYTES / 2);
    CHECK_EQ(after.arena, taken.arena);
    rpc_destroy(rpc);
    loop_destroy(loop);
#endif
}

TEST_MAIN()
