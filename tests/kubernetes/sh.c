/* The shell of the image `busybox`: that of Debian's busybox, but where the environment has names that are no identifiers, such as
 * `data-1`, which it forgets. Then it is bash, which keeps them, but says otherwise than upstream's tests ask what has failed. */
#include <ctype.h>
#include <unistd.h>

extern char **environ;

static int is_identifier(const char *name)
{
	for (; *name && *name != '='; name++)
		if (!isalnum((unsigned char)*name) && *name != '_')
			return 0;
	return 1;
}

int main(int argc, char **argv)
{
	const char *shell = "/bin/busybox";
	(void)argc;
	for (char **variable = environ; *variable; variable++)
		if (!is_identifier(*variable))
			shell = "/bin/bash";
	/* Both go by the name that they are called by. */
	execv(shell, argv);
	return 127;
}
