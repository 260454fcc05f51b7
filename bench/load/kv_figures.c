#include "kv_figures.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "base/json.h"

struct figure {
    struct kv_sample last;
    double values[KV_ROUNDS], shares[KV_ROUNDS], own_cpu[KV_ROUNDS], store_cpu[KV_ROUNDS];
    int count;
};

static struct figure figures[KV_FIGURES], limits[KV_FIGURES];
static int figure_count, limit_count;

void kv_die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "kv: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

static struct figure *figure_of(struct figure *list, int *count, const char *name)
{
    for (int i = 0; i < *count; i++)
        if (strcmp(list[i].last.name, name) == 0)
            return &list[i];
    if (*count == KV_FIGURES)
        kv_die("more than %d figures", KV_FIGURES);
    list[*count].last.name = name;
    return &list[(*count)++];
}

void kv_add(const struct kv_sample *sample)
{
    struct figure *figure = figure_of(figures, &figure_count, sample->name);

    if (figure->count == KV_ROUNDS)
        kv_die("more than %d rounds", KV_ROUNDS);
    figure->last = *sample;
    figure->values[figure->count] = sample->value;
    figure->shares[figure->count] =
        sample->is_time ? sample->bound / sample->value : sample->value / sample->bound;
    figure->own_cpu[figure->count] = sample->own_cpu;
    figure->store_cpu[figure->count] = sample->store_cpu;
    figure->count++;
}

void kv_add_limit(const char *name, double bytes_per_second)
{
    struct figure *figure = figure_of(limits, &limit_count, name);

    if (figure->count < KV_ROUNDS)
        figure->values[figure->count++] = bytes_per_second;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Sorts the numbers. */
static double median(double *numbers, int count)
{
    qsort(numbers, (size_t)count, sizeof *numbers, compare);
    return count % 2 == 1 ? numbers[count / 2] : (numbers[count / 2 - 1] + numbers[count / 2]) / 2;
}

static void print_table(void)
{
    printf("limits of this machine, medians\n");
    for (int i = 0; i < limit_count; i++)
        printf("  %-50s %8.2f GB/s\n", limits[i].last.name, median(limits[i].values, limits[i].count) * 1e-9);
    printf("\n%-52s %13s %7s %15s %6s  %-26s %s\n", "figure, medians", "", "share", "of the rounds", "goal",
           "limit", "CPU ms/GB: caller, store");
    for (int i = 0; i < figure_count; i++) {
        struct figure *figure = &figures[i];
        double value = median(figure->values, figure->count), share = median(figure->shares, figure->count);
        char goal[16] = "-";

        if (figure->last.goal > 0)
            snprintf(goal, sizeof goal, "%.0f %%", 100 * figure->last.goal);
        printf("%-52s %8.2f %s %5.0f %% %6.0f - %3.0f %% %6s  %-26s", figure->last.name,
               figure->last.is_time ? value * 1e3 : value * 1e-9, figure->last.is_time ? "ms  " : "GB/s",
               100 * share, 100 * figure->shares[0], 100 * figure->shares[figure->count - 1], goal,
               figure->last.limit);
        if (figure->last.own_cpu > 0)
            printf(" %4.0f %4.0f", 1e3 * median(figure->own_cpu, figure->count),
                   1e3 * median(figure->store_cpu, figure->count));
        printf("\n");
    }
}

static void print_json(void)
{
    struct json *root = json_make_object(), *shown_limits = json_make_object(), *list = json_make_array();
    char *text;

    for (int i = 0; i < limit_count; i++)
        json_set_f64(shown_limits, limits[i].last.name, median(limits[i].values, limits[i].count));
    json_set(root, "limits_bytes_per_second", shown_limits);
    for (int i = 0; i < figure_count; i++) {
        struct figure *figure = &figures[i];
        struct json *one = json_make_object();
        const char *unit = figure->last.is_time ? "seconds" : "bytes_per_second";

        json_set_str(one, "name", figure->last.name);
        json_set_str(one, "limit", figure->last.limit);
        json_set_f64(one, unit, median(figure->values, figure->count));
        json_set_f64(one, "share", median(figure->shares, figure->count));
        json_set_f64(one, "share_least", figure->shares[0]);
        json_set_f64(one, "share_greatest", figure->shares[figure->count - 1]);
        json_set_f64(one, "goal", figure->last.goal);
        if (figure->last.own_cpu > 0) {
            json_set_f64(one, "caller_cpu_seconds_per_gb", median(figure->own_cpu, figure->count));
            json_set_f64(one, "store_cpu_seconds_per_gb", median(figure->store_cpu, figure->count));
        }
        json_set_u64(one, "rounds", (uint64_t)figure->count);
        json_append(list, one);
    }
    json_set(root, "figures", list);
    text = json_text(root, 2);
    printf("%s\n", text);
    free(text);
    json_free(root);
}

void kv_report(bool as_json)
{
    if (as_json)
        print_json();
    else
        print_table();
}
