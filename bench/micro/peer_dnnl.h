/* peer_dnnl.h - the same product by oneDNN, to compare with: weights packed as it likes them, its own threads. */
#ifndef REELKV_BENCH_PEER_DNNL_H
#define REELKV_BENCH_PEER_DNNL_H

#include <stdbool.h>
#include <stdint.h>

struct peer_dnnl;

/* out[rows, outputs] = in[rows, inputs] * W^T; NULL when the library has no way to do it here. */
struct peer_dnnl *peer_dnnl_create(uint32_t rows, uint32_t inputs, uint32_t outputs, bool bf16,
                                   uint32_t threads);
void peer_dnnl_run(void *peer);
void peer_dnnl_destroy(struct peer_dnnl *peer); /* NULL is fine */

#endif
