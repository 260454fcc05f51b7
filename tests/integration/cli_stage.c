#include "cli_stage.h"

#include <signal.h>

#include "base/file.h"
#include "support/test.h"

struct process cluster, redis;
char video[512];

int run_words(struct process *verb, const char *const *words)
{
    static unsigned runs;
    const char *argv[24] = { "reelkv" };
    char name[32];
    size_t n = 1;

    while (*words != NULL)
        argv[n++] = *words++;
    argv[n++] = "--redis";
    argv[n++] = redis_address();
    snprintf(name, sizeof name, "verb-%u", runs++);
    return process_run(verb, name, argv, VERB_MS);
}

void set_up(void)
{
    struct process nodes;
    char listen[400];
    struct status st;

    redis_start(&redis);
    snprintf(listen, sizeof listen, "unix:%s/double.sock", test_folder());
    process_start(&cluster, "double",
                  PROCESS_ARGS("cli-double-cluster", "--listen", listen, "--redis", redis_address()));
    CHECK(process_wait_text(&cluster, "\"ready\":true", VERB_MS));
    for (int i = 0; i < 500; i++) {
        if (RUN(&nodes, "node", "ls") == 0 && strstr(process_log(&nodes), "qa-0") != NULL &&
            strstr(process_log(&nodes), "kvstore-0") != NULL)
            break;
        test_pause_ms(20);
    }
    CHECK_HAS(process_log(&nodes), "kvstore-0");
    snprintf(video, sizeof video, "%s/dock.mp4", test_folder());
    CHECK_OK(file_write_durable(video, "video", 5, &st), st);
}

void tear_down(void)
{
    CHECK_EQ(process_stop(&cluster, SIGTERM, VERB_MS), 0);
    CHECK_EQ(process_stop(&redis, SIGTERM, VERB_MS), 0);
}

struct json *printed(const struct process *verb)
{
    const char *text = strchr(process_log(verb), '{');
    struct json *value;
    struct status st = { 0 };

    if (text == NULL)
        test_fail(__FILE__, __LINE__, "no JSON: %s", process_log(verb));
    value = json_parse((struct bytes){ (const uint8_t *)text, strlen(text) }, &st);
    if (value == NULL)
        test_fail(__FILE__, __LINE__, "%s: %s", st.text, text);
    return value;
}

void wait_until_blocked(const struct process *process, int number)
{
    char path[64], line[256];
    unsigned long long blocked = 0;

    snprintf(path, sizeof path, "/proc/%d/status", (int)process->pid);
    for (int i = 0; i < 3000 && (blocked >> (number - 1) & 1) == 0; i++) {
        FILE *file = fopen(path, "re");

        while (file != NULL && fgets(line, sizeof line, file) != NULL)
            sscanf(line, "SigBlk: %llx", &blocked);
        if (file != NULL)
            fclose(file);
        test_pause_ms(10);
    }
}
