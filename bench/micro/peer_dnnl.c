#include "peer_dnnl.h"

#include <stdlib.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>

enum { COPIES_MAX = 64 };

/* From libgomp, which the packaged library runs on. */
void omp_set_num_threads(int threads);

struct peer_dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_desc_t description;
    dnnl_primitive_t product;
    dnnl_memory_t in, out, weights[COPIES_MAX];
    uint32_t copy_count, next;
};

static bool describe(struct peer_dnnl *peer, const uint32_t shape[3], bool bf16)
{
    dnnl_dims_t in_dims = { shape[0], shape[1] }, weights_dims = { shape[1], shape[2] };
    dnnl_dims_t out_dims = { shape[0], shape[2] };
    dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t in, weights, out;
    dnnl_matmul_desc_t matmul;

    return dnnl_memory_desc_init_by_tag(&in, 2, in_dims, type, dnnl_ab) == dnnl_success &&
           dnnl_memory_desc_init_by_tag(&weights, 2, weights_dims, type, dnnl_format_tag_any) ==
               dnnl_success &&
           dnnl_memory_desc_init_by_tag(&out, 2, out_dims, dnnl_f32, dnnl_ab) == dnnl_success &&
           dnnl_matmul_desc_init(&matmul, &in, &weights, NULL, &out) == dnnl_success &&
           dnnl_primitive_desc_create(&peer->description, &matmul, NULL, peer->engine, NULL) == dnnl_success;
}

static dnnl_memory_t new_memory(struct peer_dnnl *peer, dnnl_query_t which)
{
    const dnnl_memory_desc_t *description = dnnl_primitive_desc_query_md(peer->description, which, 0);
    dnnl_memory_t memory = NULL;
    void *bytes = NULL;

    if (dnnl_memory_create(&memory, description, peer->engine, DNNL_MEMORY_ALLOCATE) != dnnl_success)
        return NULL;
    dnnl_memory_get_data_handle(memory, &bytes);
    memset(bytes, 0x3c, dnnl_memory_desc_get_size(description)); /* small positive numbers in both types */
    return memory;
}

struct peer_dnnl *peer_dnnl_create(uint32_t rows, uint32_t inputs, uint32_t outputs, bool bf16,
                                   uint32_t threads)
{
    const uint32_t shape[3] = { rows, inputs, outputs };
    struct peer_dnnl *peer = calloc(1, sizeof *peer);
    size_t bytes = (size_t)inputs * outputs * (bf16 ? 2 : 4);
    uint32_t copies = (uint32_t)((160u << 20) / bytes) + 1;

    if (peer == NULL)
        return NULL;
    omp_set_num_threads((int)threads);
    if (dnnl_engine_create(&peer->engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&peer->stream, peer->engine, dnnl_stream_default_flags) != dnnl_success ||
        !describe(peer, shape, bf16) ||
        dnnl_primitive_create(&peer->product, peer->description) != dnnl_success ||
        (peer->in = new_memory(peer, dnnl_query_src_md)) == NULL ||
        (peer->out = new_memory(peer, dnnl_query_dst_md)) == NULL) {
        peer_dnnl_destroy(peer);
        return NULL;
    }
    for (uint32_t i = 0; i < copies && i < COPIES_MAX; i++, peer->copy_count++)
        if ((peer->weights[i] = new_memory(peer, dnnl_query_weights_md)) == NULL)
            break;
    if (peer->copy_count == 0) {
        peer_dnnl_destroy(peer);
        return NULL;
    }
    return peer;
}

void peer_dnnl_run(void *argument)
{
    struct peer_dnnl *peer = argument;
    dnnl_exec_arg_t args[] = { { DNNL_ARG_SRC, peer->in },
                               { DNNL_ARG_WEIGHTS, peer->weights[peer->next++ % peer->copy_count] },
                               { DNNL_ARG_DST, peer->out } };

    dnnl_primitive_execute(peer->product, peer->stream, 3, args);
    dnnl_stream_wait(peer->stream);
}

void peer_dnnl_destroy(struct peer_dnnl *peer)
{
    if (peer == NULL)
        return;
    for (uint32_t i = 0; i < peer->copy_count; i++)
        dnnl_memory_destroy(peer->weights[i]);
    dnnl_memory_destroy(peer->in);
    dnnl_memory_destroy(peer->out);
    dnnl_primitive_destroy(peer->product);
    dnnl_primitive_desc_destroy(peer->description);
    dnnl_stream_destroy(peer->stream);
    dnnl_engine_destroy(peer->engine);
    free(peer);
}
