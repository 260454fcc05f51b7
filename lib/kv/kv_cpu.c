#include "kv/kv_cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>

static bool has_f16c;

__attribute__((constructor)) static void ask(void)
{
    unsigned eax, ebx, ecx, edx;

    has_f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

bool kv_cpu_has_f16c(void)
{
    return has_f16c;
}

#else

bool kv_cpu_has_f16c(void)
{
    return false;
}

#endif
