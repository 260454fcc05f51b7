/* Devices, queues and buffers of the CPU backend. Work is done before an operation returns, so a queue is
 * only the scratch memory of whoever submits. */
#include "tensor/cpu/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/require.h"

enum { BUFFER_ALIGN = 64, HUGE_PAGE = 2 << 20, HUGE_BYTES = 4 << 20 };

/* Best first. */
static const struct cpu_kernels *const all_kernels[] = {
#ifdef REELKV_TENSOR_X86
    &cpu_kernels_avx512bf16,
    &cpu_kernels_avx512,
    &cpu_kernels_avx2,
#endif
    &cpu_kernels_portable,
};

static bool machine_has(const struct cpu_kernels *kernels)
{
#ifdef REELKV_TENSOR_X86
    bool avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");

    if (kernels == &cpu_kernels_avx512bf16)
        return avx512 && __builtin_cpu_supports("avx512bf16");
    if (kernels == &cpu_kernels_avx512)
        return avx512;
    if (kernels == &cpu_kernels_avx2)
        return avx2;
#endif
    return kernels == &cpu_kernels_portable;
}

/* How many of all_kernels a limit rules out; all of them when it names none. */
static size_t skip_to(const char *isa)
{
    size_t i = 0;

    while (isa != NULL && i < ARRAY_LEN(all_kernels) && strcmp(all_kernels[i]->name, isa) != 0)
        i++;
    return i;
}

static bool choose_kernels(const struct cpu_kernels **kernels_p, const char *option, struct status *st)
{
    const char *limits[] = { option, getenv("REELKV_TENSOR_ISA") };
    size_t first = 0;

    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        size_t skip = skip_to(limits[i]);

        if (skip == ARRAY_LEN(all_kernels))
            return cpu_bad(st, "instruction set \"%s\" is not one of avx512bf16, avx512, avx2, portable",
                           limits[i]);
        first = skip > first ? skip : first;
    }
    while (!machine_has(all_kernels[first]))
        first++;
    *kernels_p = all_kernels[first];
    return true;
}

static uint32_t cpus_allowed(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return CPU_COUNT(&set) > 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

static void device_close(struct tensor_device *device)
{
    if (device == NULL)
        return;
    pool_destroy(device->pool);
    free(device->scratch);
    free(device);
}

static bool device_open(struct tensor_device **device_p, const struct tensor_options *options,
                        struct status *st)
{
    uint32_t threads = options->threads != 0 ? options->threads : cpus_allowed();
    struct tensor_device *device = NULL;
    bool ok = false;

    if (threads > TENSOR_THREADS_MAX)
        threads = TENSOR_THREADS_MAX;
    device = calloc(1, sizeof *device);
    if (device == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a tensor device");
    if (!choose_kernels(&device->kernels, options->isa, st) || !pool_create(&device->pool, threads, st))
        goto out;
    device->scratch = aligned_alloc(BUFFER_ALIGN, (size_t)threads * CPU_WORKER_BYTES);
    if (device->scratch == NULL) {
        status_fail(st, STATUS_EXHAUSTED, "no memory for the scratch of %u compute threads", threads);
        goto out;
    }
    snprintf(device->numerics, sizeof device->numerics, "cpu %s", device->kernels->name);
    *device_p = device;
    device = NULL;
    ok = true;
out:
    device_close(device);
    return ok;
}

static const char *numerics(const struct tensor_device *device)
{
    return device->numerics;
}

static bool queue_create(struct tensor_queue **queue_p, struct tensor_device *device, struct status *st)
{
    struct tensor_queue *queue = calloc(1, sizeof *queue);

    if (queue == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a tensor queue");
    queue->device = device;
    *queue_p = queue;
    return true;
}

static void queue_destroy(struct tensor_queue *queue)
{
    if (queue == NULL)
        return;
    free(queue->scratch.bytes);
    free(queue->lists.bytes);
    free(queue);
}

static bool queue_finish(struct tensor_queue *queue, struct status *st)
{
    return true; /* nothing is ever pending */
}

void *cpu_scratch(struct cpu_scratch *scratch, size_t bytes, struct status *st)
{
    if (bytes > scratch->size) {
        size_t rounded = (bytes + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;

        free(scratch->bytes);
        scratch->size = 0;
        scratch->bytes = aligned_alloc(BUFFER_ALIGN, rounded);
        if (scratch->bytes == NULL) {
            status_fail(st, STATUS_EXHAUSTED, "no memory for %zu bytes of tensor scratch", rounded);
            return NULL;
        }
        scratch->size = rounded;
    }
    return scratch->bytes;
}

static void buffer_destroy(struct tensor_buffer *buffer)
{
    if (buffer == NULL)
        return;
    if (!buffer->wrapped)
        free(buffer->bytes);
    free(buffer);
}

void *cpu_alloc(size_t bytes)
{
    size_t align = bytes >= HUGE_BYTES ? HUGE_PAGE : BUFFER_ALIGN;
    void *memory = bytes < SIZE_MAX - align ? aligned_alloc(align, (bytes + align) / align * align) : NULL;

    if (memory != NULL && align == HUGE_PAGE)
        (void)madvise(memory, bytes, MADV_HUGEPAGE); /* advice: without it all is as right, and slower */
    return memory;
}

static bool buffer_create(struct tensor_buffer **buffer_p, struct tensor_device *device, size_t bytes,
                          struct status *st)
{
    struct tensor_buffer *buffer;

    if (bytes > SIZE_MAX - BUFFER_ALIGN)
        return cpu_bad(st, "a tensor buffer of %zu bytes is impossible", bytes);
    buffer = calloc(1, sizeof *buffer);
    if (buffer != NULL)
        buffer->bytes = cpu_alloc(bytes);
    if (buffer == NULL || buffer->bytes == NULL) {
        buffer_destroy(buffer);
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a tensor buffer of %zu bytes", bytes);
    }
    buffer->size = bytes;
    *buffer_p = buffer;
    return true;
}

static bool buffer_wrap(struct tensor_buffer **buffer_p, struct tensor_device *device, const void *host,
                        size_t bytes, struct status *st)
{
    struct tensor_buffer *buffer = calloc(1, sizeof *buffer);

    if (buffer == NULL)
        return status_fail(st, STATUS_EXHAUSTED, "no memory for a tensor buffer");
    *buffer = (struct tensor_buffer){ .bytes = (uint8_t *)(uintptr_t)host, .size = bytes, .wrapped = true };
    *buffer_p = buffer;
    return true;
}

static bool inside(const struct tensor_buffer *buffer, size_t offset, size_t bytes, struct status *st)
{
    if (offset <= buffer->size && bytes <= buffer->size - offset)
        return true;
    return cpu_bad(st, "bytes %zu to %zu are outside a buffer of %zu bytes", offset, offset + bytes,
                   buffer->size);
}

static bool write_bytes(struct tensor_queue *queue, struct tensor_buffer *to, size_t offset, const void *host,
                        size_t bytes, struct status *st)
{
    if (to->wrapped)
        return cpu_bad(st, "wrapped host memory is read-only");
    if (!inside(to, offset, bytes, st))
        return false;
    if (bytes > 0)
        memcpy(to->bytes + offset, host, bytes);
    return true;
}

static bool read_bytes(struct tensor_queue *queue, void *host, const struct tensor_buffer *from,
                       size_t offset, size_t bytes, struct status *st)
{
    if (!inside(from, offset, bytes, st))
        return false;
    if (bytes > 0)
        memcpy(host, from->bytes + offset, bytes);
    return true;
}

const struct tensor_ops tensor_ops_cpu = {
    .name = "cpu",
    .device_open = device_open,
    .device_close = device_close,
    .numerics = numerics,
    .queue_create = queue_create,
    .queue_destroy = queue_destroy,
    .queue_finish = queue_finish,
    .buffer_create = buffer_create,
    .buffer_wrap = buffer_wrap,
    .buffer_destroy = buffer_destroy,
    .write = write_bytes,
    .read = read_bytes,
    .weights_create = cpu_weights_create,
    .weights_destroy = cpu_weights_destroy,
    .gemm = cpu_gemm,
    .layer_norm = cpu_layer_norm,
    .rms_norm = cpu_rms_norm,
    .embed = cpu_embed,
    .add = cpu_add,
    .convert = cpu_convert,
    .rotary_table = cpu_rotary_table,
    .rotary = cpu_rotary,
    .attention = cpu_attention,
    .mean_tokens = cpu_mean_tokens,
    .pool_bilinear = cpu_pool_bilinear,
    .argmax = cpu_argmax,
};
