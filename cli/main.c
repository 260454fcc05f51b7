/* reelkv: starts a cluster on this machine, feeds it cameras, asks it questions. See docs/cli.md. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "cli_command.h"

/* A descriptor 0, 1 or 2 that was closed would be given to the next file or socket, and written into. */
static void open_standard_files(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return;
}

/* `reelkv cam ls | head`: it has seen enough. */
static bool reader_is_gone(void)
{
    struct pollfd out = { .fd = STDOUT_FILENO, .events = POLLOUT };

    return poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0;
}

/* Done is done only when the answer has been written. */
static enum cli_exit close_output(enum cli_exit code)
{
    struct status st;
    bool written = fflush(stdout) == 0 && !ferror(stdout);

    if (written || code != CLI_OK || reader_is_gone())
        return code;
    status_fail(&st, STATUS_UNKNOWN, "not all of the output could be written");
    return cli_fail(&st, false);
}

int main(int argc, char **argv)
{
    open_standard_files();
    signal(SIGPIPE, SIG_IGN); /* a failed write, not a death in the middle of a call */
    return (int)close_output(cli_main(argc, argv));
}
