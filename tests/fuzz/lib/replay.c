/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main() of a fuzz target where libFuzzer is not: every file named, and every file in a folder
 * named, is one input. Return: 0 when all came back; a crash ends it as it ends a daemon, and the
 * last line says with which file.
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fuzz/lib/fuzz.h"
#include "util/cleanup.h"
#include "util/fdio.h"

#define INPUT_MAX (4u << 20)

static int run_file(const char *path)
{
	CLEANUP_FREE char *text = NULL;
	ssize_t n = fdio_read_file(path, INPUT_MAX, &text);

	if (n < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror((int)-n));
		return -1;
	}
	dprintf(STDOUT_FILENO, "%s\n", path);
	LLVMFuzzerTestOneInput((const uint8_t *)text, (size_t)n);
	return 1;
}

static int run_folder(const char *path)
{
	struct dirent **names;
	int n = scandir(path, &names, NULL, alphasort), ran = 0;

	for (int i = 0; i < n; i++) {
		CLEANUP_FREE char *file = NULL;

		if (names[i]->d_name[0] != '.' && ran >= 0) {
			if (asprintf(&file, "%s/%s", path, names[i]->d_name) < 0 ||
			    run_file(file) < 0)
				ran = -1;
			else
				ran++;
		}
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return n < 0 ? -1 : ran;
}

int main(int argc, char **argv)
{
	int ran = 0;

	for (int i = 1; i < argc; i++) {
		struct stat st;
		int n = stat(argv[i], &st)    ? -1
			: S_ISDIR(st.st_mode) ? run_folder(argv[i])
					      : run_file(argv[i]);

		if (n < 0)
			return 1;
		ran += n;
	}
	printf("%d inputs\n", ran);
	return ran ? 0 : 1;
}
