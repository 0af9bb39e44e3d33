/* A function for GNU make (manual, "Loading Dynamic Objects"):
 *
 *     $(become RUN,COMMAND)
 *
 * puts `sh -c COMMAND` in make's own place, with AEGIS_RUN=RUN in its
 * environment. make itself answers every failure with 2; this way the exit code
 * of what runs in the machine arrives. */
#include <gnumake.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int plugin_is_GPL_compatible;

static char *become(const char *name, unsigned argc, char **argv)
{
    (void)name;
    (void)argc;
    setenv("AEGIS_RUN", argv[0], 1);
    execl("/bin/sh", "sh", "-c", argv[1], (char *)NULL);
    perror("make: cannot run /bin/sh");
    exit(127);
}

int become_gmk_setup(void)
{
    gmk_add_function("become", become, 2, 2, GMK_FUNC_DEFAULT);
    return 1;
}
