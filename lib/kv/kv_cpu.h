/* kv_cpu.h - what the processor can, where __builtin_cpu_supports() of clang 14 has no name for it. Inside lib/kv only.
 *
 * Asked once, when the program starts: a virtual machine's host answers, which takes many thousand cycles.
 *
 * Thread: any. */
#ifndef REELKV_KV_KV_CPU_H
#define REELKV_KV_KV_CPU_H

#include <stdbool.h>

bool kv_cpu_has_f16c(void);

#endif
