/* tensor_standin.h - a stand-in for a device of its own, for tests: the CPU backend behind the habits of a GPU.
 *
 * Its buffers are handles, not memory; wrapped host memory is copied at once; operations are put off until
 * somebody waits (or STANDIN_PENDING_MAX of them have gathered). A caller that reaches into a buffer, changes
 * wrapped memory, counts on results before waiting, or destroys what pending work uses, fails here. It proves
 * nothing about speed. */
#ifndef REELKV_TENSOR_STANDIN_H
#define REELKV_TENSOR_STANDIN_H

#include "tensor/tensor.h"

enum { STANDIN_PENDING_MAX = 256 };

extern const struct tensor_ops tensor_ops_standin;

#endif
