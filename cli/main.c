/* reelkv: starts a cluster on this machine, feeds it cameras, asks it questions. See docs/cli.md. */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "base/file.h"
#include "cli_command.h"

/* A descriptor 0, 1 or 2 that was closed would be given to the next file or socket, and written into. What is printed
 * where nobody can get it fails as it would have. */
static void open_standard_files(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_RDWR) != fd)
            return;
}

/* Done is done only when the answer has been written. */
static enum cli_exit close_output(enum cli_exit code)
{
    struct status st;

    return code != CLI_OK || file_flush_output(&st) ? code : cli_fail(&st, false);
}

int main(int argc, char **argv)
{
    open_standard_files();
    signal(SIGPIPE, SIG_IGN); /* a failed write, not a death in the middle of a call */
    return (int)close_output(cli_main(argc, argv));
}
