/* reelkv: starts a cluster on this machine, feeds it cameras, asks it questions. See docs/cli.md. */
#include <signal.h>

#include "cli_command.h"

int main(int argc, char **argv)
{
    signal(SIGPIPE,
           SIG_IGN); /* `reelkv ask ... | head`: a failed write, not a death in the middle of a call */
    return (int)cli_main(argc, argv);
}
