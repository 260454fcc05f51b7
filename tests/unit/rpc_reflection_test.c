/* A program whose descriptors are damaged: these stand in for those that are linked into every other. What reflection
 * answers is asked by a stock client, rpc_stock_client_test.py. */
#include "rpc/server.h"
#include "support/test.h"

/* A file of 127 bytes, of which there is one. */
__asm__(".pushsection .rodata\n"
        ".global reelkv_descriptor_set, reelkv_descriptor_set_end\n"
        "reelkv_descriptor_set: .byte 0x0a, 0x7f, 0x00\n"
        "reelkv_descriptor_set_end:\n"
        ".popsection\n");

TEST(a_server_with_damaged_descriptors_is_refused_with_the_reason)
{
    const char *addresses[] = { "127.0.0.1:0" };
    const struct rpc_server_options options = { .addresses = addresses, .address_count = 1 };
    struct rpc_server *server = NULL;
    struct status st = { 0 };
    struct loop *loop;
    struct rpc *rpc;

    CHECK_OK(loop_create(&loop, &st) && rpc_create(&rpc, loop, &st), st);
    CHECK(!rpc_server_create(&server, rpc, &options, &st));
    CHECK_EQ(st.code, STATUS_INVALID);
    CHECK_STR(st.text, "reflection: the descriptors are damaged");
    CHECK(server == NULL);
    rpc_destroy(rpc);
    loop_destroy(loop);
}

TEST_MAIN()
