/* kv_cpu.h - what the processor can, where __builtin_cpu_supports() of clang 14 has no name for it. Inside lib/kv only. x86-64.
 *
 * Thread: any. */
#ifndef REELKV_KV_KV_CPU_H
#define REELKV_KV_KV_CPU_H

#include <cpuid.h>
#include <stdbool.h>

static inline bool kv_cpu_has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

#endif
