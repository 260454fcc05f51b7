/* process.h - real programs in tests: start, read what they print, stop. Never more than PROCESS_MAX at once.
 *
 * Whatever a test leaves running is killed and reaped when the test's program ends, also on a failed CHECK.
 * stdout and stderr go to <test_folder>/<name>.log; process_wait_text() polls that file. */
#ifndef REELKV_TEST_PROCESS_H
#define REELKV_TEST_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { PROCESS_MAX = 64, PROCESS_LOG_BYTES = 1 << 20 };

struct process {
    pid_t pid; /* 0: not running */
    char name[64];
    char log_path[320];
};

/* argv[0] is a path, or a name in REELKV_BIN_DIR (build/PRESET/bin), or in PATH. Fails the test when it
 * cannot. */
void process_start(struct process *process, const char *name, const char *const *argv);
#define PROCESS_ARGS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* Puts flags ("--flag", "value", or "--flag=value"; NULL: none) and a NULL behind the words of argv, in place of those of
 * the same name among them: a program takes each once. argv has room for so many. */
void process_args_change(const char **argv, size_t room, const char *const *flags);

/* True when `text` appears in the log within timeout_ms; false also when the process ends before it does. */
bool process_wait_text(const struct process *process, const char *text, uint32_t timeout_ms);

/* The log so far; static storage, until the next call. */
const char *process_log(const struct process *process);

/* Sends the signal and waits; returns the exit code, or 128 + signal. After timeout_ms: SIGKILL, and -1. */
int process_stop(struct process *process, int signal, uint32_t timeout_ms);

/* Waits for the end without a signal. */
int process_wait(struct process *process, uint32_t timeout_ms);

/* Runs to the end; the log is what it printed. Returns the exit code. */
int process_run(struct process *process, const char *name, const char *const *argv, uint32_t timeout_ms);

/* A redis-server of the test's own, on <test_folder>/redis.sock, nothing saved to disk. */
void redis_start(struct process *process);
const char *redis_address(void); /* "unix:/tmp/.../redis.sock" */

/* Sleeps a few milliseconds; for polling loops with their own bound. */
void test_pause_ms(uint32_t ms);

#endif
