#include "tensor/cpu/kernel_attention.h"
#include "tensor/cpu/kernel_gemm.h"
#include "tensor/cpu/kernel_rows.h"

const struct cpu_kernels cpu_kernels_avx512 = CPU_KERNELS("avx512");
