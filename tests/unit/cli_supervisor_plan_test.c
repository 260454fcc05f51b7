/* The table of processes a plan becomes, and the log files' bound. */
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "supervisor_log.h"
#include "supervisor_plan.h"
#include "support/test.h"

static struct cluster_plan two_of_each(void)
{
    struct cluster_plan plan = { .run = "/run/r",
                                 .bin = "/opt/bin",
                                 .model = "/m",
                                 .dtype = "f32",
                                 .n_local = 512,
                                 .top_r = 8,
                                 .recent_window = 1,
                                 .sample_fps = 2,
                                 .ageing = "default=full:24h",
                                 .ram_bytes = 1000,
                                 .disk_bytes = 3000 };

    plan.counts[CLUSTER_REDIS] = 1;
    for (int kind = CLUSTER_KVSTORE; kind < CLUSTER_KINDS; kind++)
        plan.counts[kind] = 2;
    return plan;
}

static bool has_arg(const struct plan_row *row, const char *arg)
{
    for (unsigned i = 0; row->argv[i] != NULL; i++)
        if (strcmp(row->argv[i], arg) == 0)
            return true;
    return false;
}

TEST(a_plan_is_redis_and_so_many_of_each)
{
    struct arena arena = { .limit_bytes = 1 << 20 };
    struct cluster_plan plan = two_of_each();
    struct plan_row *rows;
    uint32_t count;
    struct status st;

    CHECK_OK(supervisor_plan_rows(&plan, "/data", &arena, &rows, &count, &st), st);
    CHECK_EQ(count, 9);
    CHECK_STR(rows[0].name, "redis");
    CHECK(has_arg(&rows[0], "/run/r/redis.sock"));
    CHECK_STR(rows[2].name, "kvstore-1");
    CHECK_STR(rows[2].argv[0], "/opt/bin/reelkv-kvstore");
    CHECK(has_arg(&rows[2], "/data/store/kvstore-1"));
    CHECK(has_arg(&rows[2], "--ram-budget-bytes=500"));
    CHECK(has_arg(&rows[2], "--disk-budget-bytes=1500"));
    CHECK(has_arg(&rows[2], "--sample-fps=2"));
    CHECK(has_arg(&rows[2], "--ageing=default=full:24h"));
    CHECK(has_arg(&rows[3], "--n-local=512"));
    CHECK(!has_arg(&rows[3], "--top-r=8"));
    CHECK(has_arg(&rows[8], "--top-r=8"));
    CHECK(has_arg(&rows[8], "--recent-window=1"));
    CHECK(has_arg(&rows[8], "unix:/run/r/qa-1.sock"));
    arena_reset(&arena);
}

TEST(what_is_not_said_is_left_to_the_services)
{
    struct arena arena = { .limit_bytes = 1 << 20 };
    struct cluster_plan plan = two_of_each();
    struct plan_row *rows;
    uint32_t count;
    struct status st;

    plan.n_local = plan.top_r = 0;
    plan.ageing[0] = '\0';
    plan.recent_window = UINT32_MAX;
    CHECK_OK(supervisor_plan_rows(&plan, "/data", &arena, &rows, &count, &st), st);
    for (uint32_t i = 0; i < count; i++)
        for (unsigned a = 0; rows[i].argv[a] != NULL; a++)
            CHECK(strncmp(rows[i].argv[a], "--n-local", 9) != 0 &&
                  strncmp(rows[i].argv[a], "--top-r", 7) != 0 &&
                  strncmp(rows[i].argv[a], "--ageing", 8) != 0 &&
                  strncmp(rows[i].argv[a], "--recent", 8) != 0);
    arena_reset(&arena);
}

TEST(a_full_arena_is_an_error)
{
    struct arena arena = { .limit_bytes = 64 << 10 };
    struct cluster_plan plan = two_of_each();
    struct plan_row *rows;
    uint32_t count;
    struct status st = { 0 };

    arena.limit_bytes = 1000;
    CHECK(!supervisor_plan_rows(&plan, "/data", &arena, &rows, &count, &st));
    CHECK_EQ(st.code, STATUS_EXHAUSTED);
    arena_reset(&arena);
}

/* A log past its bound moves to .1, once; what is appended through the old descriptor goes on in the emptied file. */
TEST(logs_are_bounded)
{
    char folder[512], path[600], line[64];
    struct file_text text;
    struct status st;
    int fd;

    snprintf(folder, sizeof folder, "%s/log", test_folder());
    CHECK_OK(file_make_folders(folder, &st), st);
    CHECK_OK(supervisor_log_open(test_folder(), "qa-0", &fd, &st), st);
    CHECK(write(fd, "one\ntwo\n\n", 9) == 9);
    supervisor_log_rotate(test_folder(), "qa-0", 100);
    supervisor_log_last_line(test_folder(), "qa-0", line, sizeof line);
    CHECK_STR(line, "two");
    supervisor_log_rotate(test_folder(), "qa-0", 8);
    CHECK(write(fd, "three\n", 6) == 6);
    close(fd);
    supervisor_log_last_line(test_folder(), "qa-0", line, sizeof line);
    CHECK_STR(line, "three");
    snprintf(path, sizeof path, "%s/qa-0.log.1", folder);
    CHECK_OK(file_read_all(path, 100, &text, &st), st);
    CHECK_STR(text.data, "one\ntwo\n\n");
    free(text.data);
    snprintf(path, sizeof path, "%s/qa-0.log", folder);
    CHECK_OK(file_read_all(path, 100, &text, &st), st);
    CHECK_STR(text.data, "three\n");
    free(text.data);
    supervisor_log_last_line(test_folder(), "nobody", line, sizeof line);
    CHECK_STR(line, "");
}

TEST_MAIN()
