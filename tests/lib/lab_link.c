/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "lib/lab_link.h"

#define SHELL_MS 15000

/* Return: its exit status */
static int shell(struct lab_link *l, int side, const char *line)
{
	const char *const argv[] = {"/bin/sh", "-c", line, NULL};
	char *err = NULL;
	int status = lab_run(l->lab, &l->ns[side], SHELL_MS, NULL, &err, argv);

	if (status)
		fprintf(stderr, "%s: %s\n", line, err);
	free(err);
	return status;
}

static void must(struct lab_link *l, int side, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void must(struct lab_link *l, int side, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	lab_check(l->lab, !shell(l, side, line), "%s", line);
}

/* What comes in on either side passes a chain of ours, so that its sender is told nothing. */
static const char chain[] =
	"nft add table inet lab && "
	"nft 'add chain inet lab in { type filter hook input priority 0; policy accept; }'";

bool lab_link_new(struct lab *lab, struct lab_link *ret)
{
	*ret = (struct lab_link){.lab = lab, .address = {"10.77.0.1", "10.77.0.2"}};
	if (!lab_ns_pair(lab, &ret->ns[0], &ret->ns[1]))
		return false;
	return !shell(ret, 0, chain) && !shell(ret, 1, chain);
}

void lab_link_drop(struct lab_link *l, int from)
{
	must(l, !from, "nft add rule inet lab in iifname net0 drop");
}

void lab_link_drop_one(struct lab_link *l)
{
	/* Two lines for each connection: addresses, then its counts. */
	static const char busiest[] =
		"ss -tinH state established dst 10.77.0.2 | paste - - | "
		"sed -n 's/.*10\\.77\\.0\\.1:\\([0-9]*\\) .*bytes_sent:\\([0-9]*\\).*/\\2 \\1/p' | "
		"sort -n | tail -n 1 | cut -d' ' -f2";
	const char *const argv[] = {"/bin/sh", "-c", busiest, NULL};
	char *out = NULL;
	int port;

	lab_check(l->lab, !lab_run(l->lab, &l->ns[0], SHELL_MS, &out, NULL, argv), "ss");
	port = atoi(out);
	lab_check(l->lab, port > 0, "no connection: %s", out);
	free(out);
	must(l, 0, "nft add rule inet lab in tcp dport %d drop", port);
	must(l, 1, "nft add rule inet lab in tcp sport %d drop", port);
}

void lab_link_reset(struct lab_link *l)
{
	for (int side = 0; side < 2; side++)
		must(l, side,
		     "nft add rule inet lab in iifname net0 meta l4proto tcp tcp 'flags & (syn | "
		     "rst) == "
		     "0' reject with tcp reset");
}

void lab_link_heal(struct lab_link *l)
{
	for (int side = 0; side < 2; side++)
		must(l, side, "nft flush chain inet lab in");
}

void lab_link_slow(struct lab_link *l, int from, unsigned int kbit)
{
	if (kbit)
		must(l, from,
		     "tc qdisc replace dev net0 root tbf rate %ukbit burst 16kb latency 500ms",
		     kbit);
	else
		must(l, from, "tc qdisc del dev net0 root");
}
