/* A daemon that needs nothing of the host: it says where it is and waits for its end. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    sigset_t ends;
    int signal;

    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    printf("static for %s\n", getenv("AEGIS_INSTANCE"));
    fflush(stdout);
    sigwait(&ends, &signal);
    printf("ended in order\n");
    return 0;
}
