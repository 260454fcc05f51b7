/* What every operation checks before it touches memory. Offsets and strides come from callers and are checked
 * with overflow in mind: a view that passes can be read (or written) whole. */
#include "tensor/cpu/cpu.h"

#include <stdarg.h>
#include <stdio.h>

bool cpu_bad(struct status *st, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return status_fail(st, STATUS_INVALID, "%s", text);
}

static bool check_dtype(enum tensor_dtype dtype, const char *what, struct status *st)
{
    if (dtype == TENSOR_F32 || dtype == TENSOR_F16 || dtype == TENSOR_BF16)
        return true;
    return cpu_bad(st, "%s has the unknown type %d", what, (int)dtype);
}

/* `elements` is the distance from the view's first element to the end of its last. */
static bool check_extent(const struct tensor_buffer *buffer, size_t offset, size_t elements, size_t size,
                         const char *what, struct status *st)
{
    if (offset % size != 0)
        return cpu_bad(st, "%s starts at byte %zu, not at a multiple of %zu", what, offset, size);
    if (offset > buffer->size || elements > (buffer->size - offset) / size)
        return cpu_bad(st, "%s ends past its buffer of %zu bytes", what, buffer->size);
    return true;
}

static bool check_buffer(const struct tensor_buffer *buffer, const char *what, bool written,
                         struct status *st)
{
    if (buffer == NULL)
        return cpu_bad(st, "%s has no buffer", what);
    if (written && buffer->wrapped)
        return cpu_bad(st, "%s lies in wrapped host memory, which is read-only", what);
    return true;
}

bool cpu_check(const struct tensor *view, const char *what, bool written, struct status *st)
{
    size_t last;

    if (!check_buffer(view->buffer, what, written, st) || !check_dtype(view->dtype, what, st))
        return false;
    if (view->rows == 0 || view->rows > TENSOR_ROWS_MAX || view->cols == 0 || view->cols > TENSOR_COLS_MAX)
        return cpu_bad(st, "%s is [%u, %u]; rows must be 1 to %d and columns 1 to %d", what, view->rows,
                       view->cols, TENSOR_ROWS_MAX, TENSOR_COLS_MAX);
    if (view->stride < view->cols && view->rows > 1 && (written || view->stride != 0))
        return cpu_bad(st, "rows of %s overlap: %u columns, stride %zu", what, view->cols, view->stride);
    if (__builtin_mul_overflow(view->rows - 1, view->stride, &last) ||
        __builtin_add_overflow(last, view->cols, &last))
        return cpu_bad(st, "%s has an impossible stride", what);
    return check_extent(view->buffer, view->offset, last, tensor_dtype_bytes(view->dtype), what, st);
}

bool cpu_check_heads(const struct tensor_heads *view, const char *what, bool written, struct status *st)
{
    size_t last_head, last;

    if (!check_buffer(view->buffer, what, written, st) || !check_dtype(view->dtype, what, st))
        return false;
    if (view->heads == 0 || view->heads > TENSOR_COLS_MAX || view->tokens == 0 ||
        view->tokens > TENSOR_ROWS_MAX || view->head_dim == 0 || view->head_dim > TENSOR_COLS_MAX)
        return cpu_bad(st, "%s is [%u, %u, %u], which is empty or too large", what, view->heads, view->tokens,
                       view->head_dim);
    if (written && ((view->tokens > 1 && view->token_stride < view->head_dim) ||
                    (view->heads > 1 && view->head_stride < view->head_dim)))
        return cpu_bad(st, "heads or tokens of %s overlap", what);
    if (__builtin_mul_overflow(view->heads - 1, view->head_stride, &last_head) ||
        __builtin_mul_overflow(view->tokens - 1, view->token_stride, &last) ||
        __builtin_add_overflow(last, last_head, &last) || __builtin_add_overflow(last, view->head_dim, &last))
        return cpu_bad(st, "%s has impossible strides", what);
    return check_extent(view->buffer, view->offset, last, tensor_dtype_bytes(view->dtype), what, st);
}

bool cpu_check_f32(const struct tensor *view, const char *what, uint32_t rows, uint32_t cols,
                   struct status *st)
{
    if (!cpu_check(view, what, false, st))
        return false;
    if (view->dtype != TENSOR_F32 || view->rows != rows || view->cols != cols)
        return cpu_bad(st, "%s must be f32 [%u, %u]", what, rows, cols);
    return true;
}
