/* A supervisor in this process that can watch no descriptor: a service's pipe for its ready line is made, cannot be
 * watched, and goes again. Redis, which has no such pipe, is a real one. */
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/loop.h"
#include "supervisor.h"
#include "support/test.h"

/* The linker turns close() and loop_poll_create() of what is linked here into these. */
static unsigned not_watched, closed_twice;

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    int result = __real_close(fd);

    if (result != 0 && errno == EBADF)
        closed_twice++;
    return result;
}

bool __wrap_loop_poll_create(struct loop_poll **poll_p, struct loop *loop, int fd,
                             void (*ready)(struct loop_poll *poll, unsigned events, void *user), void *user,
                             struct status *st);
bool __wrap_loop_poll_create(struct loop_poll **poll_p, struct loop *loop, int fd,
                             void (*ready)(struct loop_poll *poll, unsigned events, void *user), void *user,
                             struct status *st)
{
    not_watched++;
    kill(getpid(), SIGTERM); /* the supervisor has seen enough */
    return status_fail(st, STATUS_EXHAUSTED, "no memory to watch a descriptor");
}

/* Closed a second time it may by then be another's, a camera's or a log's. */
TEST(a_pipe_that_cannot_be_watched_is_closed_once)
{
    static struct cluster_file file;
    struct cluster_plan *plan = &file.plan;
    char path[512];
    struct status st;

    *plan = (struct cluster_plan){
        .dtype = "f32", .sample_fps = 2, .ram_bytes = 64 << 20, .disk_bytes = 64 << 20
    };
    plan->counts[CLUSTER_REDIS] = plan->counts[CLUSTER_KVSTORE] = 1;
    snprintf(plan->bin, sizeof plan->bin, "%s", test_folder());
    snprintf(plan->model, sizeof plan->model, "%s", test_folder());
    snprintf(plan->run, sizeof plan->run, "%s/run", test_folder());
    snprintf(path, sizeof path, "%s/log", test_folder());
    CHECK(mkdir(plan->run, 0700) == 0 && mkdir(path, 0700) == 0);
    CHECK_OK(cluster_file_write(test_folder(), &file, &st), st);
    CHECK_OK(supervisor_run(test_folder(), &st), st);
    CHECK(not_watched > 0);
    CHECK_EQ(closed_twice, 0);
}

TEST_MAIN()
