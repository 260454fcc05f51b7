#include "kv_figures.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "base/json.h"

struct figure {
    struct kv_figure what;
    bool is_time, has_cpu;
    double values[KV_ROUNDS], shares[KV_ROUNDS], own_cpu[KV_ROUNDS], store_cpu[KV_ROUNDS],
        limit_cpu[KV_ROUNDS];
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
        if (strcmp(list[i].what.name, name) == 0)
            return &list[i];
    if (*count == KV_FIGURES)
        kv_die("more than %d figures", KV_FIGURES);
    list[*count].what.name = name;
    return &list[(*count)++];
}

void kv_add(const struct kv_figure *what, const struct kv_sample *sample, const struct kv_limit bounds[2])
{
    struct figure *figure = figure_of(figures, &figure_count, what->name);
    double rate = sample->bytes / sample->seconds, bound = (bounds[0].rate + bounds[1].rate) / 2;
    int at = figure->count;

    if (at == KV_ROUNDS)
        kv_die("more than %d rounds", KV_ROUNDS);
    figure->what = *what;
    figure->is_time = sample->is_time;
    figure->has_cpu = !sample->is_time;
    figure->values[at] = sample->is_time ? sample->seconds : rate;
    figure->shares[at] = rate / bound;
    figure->own_cpu[at] = sample->own_cpu_s / sample->bytes * 1e9;
    figure->store_cpu[at] = sample->store_cpu_s / sample->bytes * 1e9;
    figure->limit_cpu[at] = (bounds[0].cpu + bounds[1].cpu) / 2;
    figure->count++;
}

void kv_add_limit(const char *name, struct kv_limit limit)
{
    struct figure *figure = figure_of(limits, &limit_count, name);

    if (figure->count == KV_ROUNDS)
        kv_die("more than %d rounds of a limit", KV_ROUNDS);
    figure->values[figure->count] = limit.rate;
    figure->limit_cpu[figure->count++] = limit.cpu;
}

void kv_print_last(const struct kv_figure *what, char *to, uint32_t room)
{
    const struct figure *figure = figure_of(figures, &figure_count, what->name);
    double value = figure->values[figure->count - 1], share = figure->shares[figure->count - 1];

    snprintf(to, room, "%.2f %s, %.0f %% of its limit", figure->is_time ? value * 1e3 : value * 1e-9,
             figure->is_time ? "ms" : "GB/s", 100 * share);
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

static void print_figure(struct figure *figure)
{
    double value = median(figure->values, figure->count), share = median(figure->shares, figure->count);
    char goal[16] = "-";

    if (figure->what.goal > 0)
        snprintf(goal, sizeof goal, "%.0f %%", 100 * figure->what.goal);
    printf("%-52s %8.2f %s %5.0f %% %6.0f - %3.0f %% %6s  %-30s", figure->what.title,
           figure->is_time ? value * 1e3 : value * 1e-9, figure->is_time ? "ms  " : "GB/s", 100 * share,
           100 * figure->shares[0], 100 * figure->shares[figure->count - 1], goal, figure->what.limit);
    if (figure->has_cpu)
        printf(" %4.0f %4.0f %4.0f", 1e3 * median(figure->own_cpu, figure->count),
               1e3 * median(figure->store_cpu, figure->count),
               1e3 * median(figure->limit_cpu, figure->count));
    printf("\n");
}

static void print_table(void)
{
    printf("%-52s %13s %12s\n", "limits of this machine, medians", "", "CPU ms/GB");
    for (int i = 0; i < limit_count; i++)
        printf("  %-50s %8.2f GB/s %12.0f\n", limits[i].what.name,
               median(limits[i].values, limits[i].count) * 1e-9,
               1e3 * median(limits[i].limit_cpu, limits[i].count));
    printf("\n%-52s %13s %7s %15s %6s  %-30s %s\n", "figure, medians", "", "share", "of the rounds", "goal",
           "limit", "CPU ms/GB: caller, store, limit");
    for (int i = 0; i < figure_count; i++)
        print_figure(&figures[i]);
}

static struct json *json_of(struct figure *figure)
{
    struct json *one = json_make_object();

    json_set_str(one, "name", figure->what.name);
    json_set_str(one, "what", figure->what.title);
    json_set_str(one, "limit", figure->what.limit);
    json_set_f64(one, figure->is_time ? "seconds" : "bytes_per_second",
                 median(figure->values, figure->count));
    json_set_f64(one, "share", median(figure->shares, figure->count));
    json_set_f64(one, "share_least", figure->shares[0]);
    json_set_f64(one, "share_greatest", figure->shares[figure->count - 1]);
    json_set_f64(one, "goal", figure->what.goal);
    if (figure->has_cpu) {
        json_set_f64(one, "caller_cpu_seconds_per_gb", median(figure->own_cpu, figure->count));
        json_set_f64(one, "store_cpu_seconds_per_gb", median(figure->store_cpu, figure->count));
        json_set_f64(one, "limit_cpu_seconds_per_gb", median(figure->limit_cpu, figure->count));
    }
    json_set_u64(one, "rounds", (uint64_t)figure->count);
    return one;
}

static void print_json(void)
{
    struct json *root = json_make_object(), *shown_limits = json_make_object(), *list = json_make_array();
    char *text;

    for (int i = 0; i < limit_count; i++)
        json_set_f64(shown_limits, limits[i].what.name, median(limits[i].values, limits[i].count));
    json_set(root, "limits_bytes_per_second", shown_limits);
    for (int i = 0; i < figure_count; i++)
        json_append(list, json_of(&figures[i]));
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
