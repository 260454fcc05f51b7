#include "interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/require.h"
#include "cli_output.h"

/* --- at once --- */

/* Made before the signal comes: a handler may not. */
static struct {
    int fd;
    const char *text;
    size_t len;
} last_words;

static void end_process(int number)
{
    ssize_t written = write(last_words.fd, last_words.text, last_words.len);

    (void)number;
    (void)written;
    _exit(CLI_INTERRUPTED);
}

void interrupt_ends(bool as_json)
{
    struct sigaction action = { .sa_handler = end_process };
    struct status st;

    status_fail(&st, STATUS_CANCELLED, "interrupted; nothing was started");
    last_words.text = cli_fail_text(&st, as_json);
    last_words.len = strlen(last_words.text);
    last_words.fd = as_json ? STDOUT_FILENO : STDERR_FILENO;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* --- as a call --- */

struct interrupt {
    pthread_t thread;
    pthread_mutex_t lock;
    sigset_t signals;
    void (*arrived)(void *user);
    void *user;
    bool has_come, ending;
};

static void tell(struct interrupt *interrupt)
{
    if (interrupt->has_come && interrupt->arrived != NULL)
        interrupt->arrived(interrupt->user);
}

static void *wait_for_signal(void *arg)
{
    struct interrupt *interrupt = arg;
    int number;

    for (;;) {
        sigwait(&interrupt->signals, &number);
        pthread_mutex_lock(&interrupt->lock);
        if (interrupt->ending) {
            pthread_mutex_unlock(&interrupt->lock);
            return NULL;
        }
        interrupt->has_come = true;
        tell(interrupt);
        pthread_mutex_unlock(&interrupt->lock);
    }
}

struct interrupt *interrupt_create(void)
{
    struct interrupt *interrupt = calloc(1, sizeof *interrupt);

    REQUIRE(interrupt != NULL);
    pthread_mutex_init(&interrupt->lock, NULL);
    sigemptyset(&interrupt->signals);
    sigaddset(&interrupt->signals, SIGINT);
    sigaddset(&interrupt->signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &interrupt->signals, NULL);
    REQUIRE(pthread_create(&interrupt->thread, NULL, wait_for_signal, interrupt) == 0);
    return interrupt;
}

void interrupt_watch(struct interrupt *interrupt, void (*arrived)(void *user), void *user)
{
    pthread_mutex_lock(&interrupt->lock);
    interrupt->arrived = arrived;
    interrupt->user = user;
    tell(interrupt);
    pthread_mutex_unlock(&interrupt->lock);
}

bool interrupt_has_come(struct interrupt *interrupt)
{
    bool has_come;

    pthread_mutex_lock(&interrupt->lock);
    has_come = interrupt->has_come;
    pthread_mutex_unlock(&interrupt->lock);
    return has_come;
}

void interrupt_destroy(struct interrupt *interrupt)
{
    if (interrupt == NULL)
        return;
    pthread_mutex_lock(&interrupt->lock);
    interrupt->ending = true;
    pthread_mutex_unlock(&interrupt->lock);
    pthread_kill(interrupt->thread, SIGTERM);
    pthread_join(interrupt->thread, NULL);
    pthread_sigmask(SIG_UNBLOCK, &interrupt->signals, NULL);
    pthread_mutex_destroy(&interrupt->lock);
    free(interrupt);
}
