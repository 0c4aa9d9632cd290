/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench/qemu/versus.h"

#define ROUNDS  3
#define VM_MB   512
#define FILL_MB 256
/*
 * Below 9.0 QEMU's own migration loses writes of an emulated processor, and its guest crashes, where it looks for
 * written pages in one go: in RAM of a multiple of 256 KiB. So there is a bit more of it; looking takes QEMU longer.
 */
#define MORE_KB  128
#define RATE     1000
#define STILL_MS 1000

static const char *const ways[VERSUS_WAYS] = {
	[VERSUS_PRECOPY] = "QEMU precopy",
	[VERSUS_POSTCOPY] = "QEMU post-copy",
	[VERSUS_PREEMPT] = "QEMU post-copy, preempt",
	[VERSUS_DECANT] = "decant",
};

static const struct figure {
	const char *name, *unit;
	bool more_is_better;
} figures[VERSUS_FIGURES] = {
	[VERSUS_TOTAL] = {"total time", "s", false},
	[VERSUS_RATE] = {"bulk rate", "MB/s", true},
	[VERSUS_DOWNTIME] = {"downtime, STOP to RESUME", "ms", false},
	[VERSUS_GAP] = {"longest gap of the 2 ms ticks", "ms", false},
	[VERSUS_TOUCHES] = {"accesses to memory that the guest made", "/s", true},
	[VERSUS_P50] = {"access to memory, p50", "us", false},
	[VERSUS_P99] = {"access to memory, p99", "us", false},
	[VERSUS_MAX] = {"access to memory, max", "us", false},
};

/**
 * struct versus - the run
 * @rounds:	wanted
 * @mode:	of decant's migrations
 * @still:	longest gap of ticks in STILL_MS before each move: what the machine does by itself
 */
struct versus {
	unsigned int rounds;
	const char *mode;
	struct report report;
	struct report_series *series[VERSUS_FIGURES][VERSUS_WAYS];
	struct report_series *still;
};

__attribute__((noreturn)) static void failed(const char *msg)
{
	fprintf(stderr, "bench-qemu: did not work: %s\n", msg);
	exit(1);
}

static void add_series(struct versus *v)
{
	char name[96];

	for (int f = 0; f < VERSUS_FIGURES; f++)
		for (int w = 0; w < VERSUS_WAYS; w++) {
			snprintf(name, sizeof(name), "%s: %s", figures[f].name, ways[w]);
			v->series[f][w] =
				report_add(&v->report, name, figures[f].unit, REPORT_NO_BOUND, 0);
		}
	v->still = report_add(&v->report, "longest gap of the 2 ms ticks: no migration", "ms",
			      REPORT_NO_BOUND, 0);
}

/* --- a move --- */

/* Hosts that know this VM, and how to start it where it goes. */
static void start_hosts(struct lab_vm *src, struct lab_vm *dst, struct lab_host *host[2])
{
	char *conf = lab_vm_launcher(dst);

	host[0] = lab_host_start(src->lab, &(struct lab_host_opts){.name = "a", .no_dest = true});
	host[1] = lab_host_start(src->lab, &(struct lab_host_opts){.name = "b", .dest_conf = conf});
	free(conf);
	lab_vm_add(host[0], src);
}

static void accesses(struct lab_vm *vm, double *v)
{
	char *text = lab_vm_ask(vm, 20000, "latency");
	unsigned long n, p50, p99, max;

	lab_check(vm->lab,
		  sscanf(text, "touches %lu p50 %lu p99 %lu max %lu", &n, &p50, &p99, &max) == 4 &&
			  n > 0,
		  "latency: %s", text);
	free(text);
	v[VERSUS_TOUCHES] = (double)n;
	v[VERSUS_P50] = (double)p50 / 1000;
	v[VERSUS_P99] = (double)p99 / 1000;
	v[VERSUS_MAX] = (double)max / 1000;
}

static void note(struct versus *v, enum versus_way way, const double *value)
{
	fprintf(stderr, "bench-qemu:   %-24s", ways[way]);
	for (int f = 0; f < VERSUS_FIGURES; f++) {
		report_value(v->series[f][way], value[f]);
		fprintf(stderr, " %.4g %s%s", value[f], figures[f].unit,
			f + 1 < VERSUS_FIGURES ? "," : "\n");
	}
}

/* Return: the VM where it is now */
static struct lab_vm *move(struct versus *v, struct lab_vm *src, enum versus_way way)
{
	static const char *const sides[VERSUS_WAYS] = {"b", "c", "d", "e"};
	struct lab_vm *dst = lab_vm_twin(src, sides[way]);
	struct versus_progress *p = calloc(1, sizeof(*p));
	double value[VERSUS_FIGURES];
	struct lab_host *host[2];
	struct versus_ear ear;
	uint64_t began, done;

	if (way == VERSUS_DECANT)
		start_hosts(src, dst, host);
	versus_ear_begin(&ear, src->tty);
	usleep(STILL_MS * 1000);
	report_value(v->still, (double)ear.gap_us / 1000);
	versus_ear_end(&ear);
	/* So that it forgets. */
	accesses(src, value);
	versus_ear_begin(&ear, src->tty);
	began = versus_now_us();
	done = way == VERSUS_DECANT ? versus_by_decant(src, dst, host, v->mode, &ear, p)
				    : versus_by_qemu(src, dst, way, &ear, p);
	lab_until(src->lab, 60000, versus_now_us() > ear.came_us + VERSUS_AFTER_MS * 1000,
		  "time passes");
	versus_ear_end(&ear);
	accesses(dst, value);
	value[VERSUS_TOUCHES] *= 1e6 / (double)(versus_now_us() - began);
	lab_vm_heard(src);
	lab_vm_heard(dst);
	lab_check(src->lab, src->stop_us && dst->resume_us > src->stop_us,
		  "QEMU has not said when it stopped and when it went on");
	value[VERSUS_TOTAL] = (double)(done - began) / 1e6;
	value[VERSUS_RATE] = versus_rate(p) / 1e6;
	value[VERSUS_DOWNTIME] = (double)(dst->resume_us - src->stop_us) / 1000;
	value[VERSUS_GAP] = (double)ear.gap_us / 1000;
	note(v, way, value);
	free(p);
	lab_vm_quit(src);
	return dst;
}

/* QEMU's own in another order each time. decant is last, as its agents would stay with the VM. */
static void run_round(struct versus *v, unsigned int round)
{
	struct lab *lab = lab_new(failed);
	const char *missing = lab_vm_missing(lab);
	struct lab_vm_state state;
	struct lab_vm *vm;

	if (missing)
		failed(missing);
	fprintf(stderr, "bench-qemu: round %u of %u, booting\n", round + 1, v->rounds);
	vm = lab_vm_start(lab, &(struct lab_vm_opts){.mb = VM_MB,
						     .more_kb = MORE_KB,
						     .fill = FILL_MB,
						     .rate = RATE,
						     .backing = LAB_VM_MEMFD});
	lab_vm_do(vm, "beat on");
	for (unsigned int i = 0; i < VERSUS_DECANT; i++)
		vm = move(v, vm, (enum versus_way)((i + round) % VERSUS_DECANT));
	vm = move(v, vm, VERSUS_DECANT);
	state = lab_vm_state(vm);
	lab_check(lab, state.pages && !state.bad && !state.gap,
		  "of %lu pages %lu are bad, %ld writes are lost", state.pages, state.bad,
		  state.gap);
	lab_vm_quit(vm);
	lab_end(lab);
}

/* --- the table --- */

/* Less of a difference than this is none. */
#define ALIKE 1.03

static void print_ratio(const struct figure *f, double decant, double other)
{
	double better = f->more_is_better ? decant / other : other / decant;

	if (decant <= 0 || other <= 0)
		printf("  not measured: too short\n");
	else if (better > 1 / ALIKE && better < ALIKE)
		printf("  %7.2f  alike\n", decant / other);
	else if (better < 1)
		printf("  %7.2f  decant is WORSE, %.2f times\n", decant / other, 1 / better);
	else
		printf("  %7.2f  decant is better, %.2f times\n", decant / other, better);
}

static void print_row(const struct versus *v, int f, int w)
{
	struct report_series *s = v->series[f][w];
	double decant = report_median(v->series[f][VERSUS_DECANT]), low, high;
	double sorted[REPORT_VALUES_MAX];

	memcpy(sorted, s->v, sizeof(sorted));
	low = report_quantile(sorted, s->n, 0);
	high = report_quantile(sorted, s->n, 1);
	printf("  %-26s %10.2f %-5s (%.2f..%.2f)", ways[w], report_median(s), s->unit, low, high);
	if (w == VERSUS_DECANT)
		putchar('\n');
	else
		print_ratio(&figures[f], decant, report_median(s));
}

/* What the machine was busy with besides, and what it does to a VM that nobody moves. */
static void print_load(const struct versus *v)
{
	double load = 0;

	if (getloadavg(&load, 1) < 1)
		load = 0;
	printf("%ld processors, load now %.1f. Total time has the start of the destination's "
	       "QEMU in it; accesses are from the word\nuntil %d s after the switch; longest gap "
	       "of ticks in a second without a "
	       "migration: %.2f ms\n",
	       sysconf(_SC_NPROCESSORS_ONLN), load, VERSUS_AFTER_MS / 1000,
	       report_median(v->still));
}

static void table(const struct versus *v)
{
	printf("\nOne VM of %d MiB, emulated, %d MiB of them written at %d pages a second and "
	       "verified; TLS on loopback;\n%u rounds, medians (min..max); ratio: decant (%s) / "
	       "QEMU's own\n",
	       VM_MB, FILL_MB, RATE, v->rounds, v->mode);
	printf("The VM's RAM is %d KiB larger, as QEMU below 9.0 corrupts emulated guests "
	       "otherwise: its "
	       "looks for written\npages take longer so, which lengthens the gaps of its "
	       "precopy\n",
	       MORE_KB);
	print_load(v);
	for (int f = 0; f < VERSUS_FIGURES; f++) {
		printf("%s\n", figures[f].name);
		print_row(v, f, VERSUS_DECANT);
		for (int w = 0; w < VERSUS_DECANT; w++)
			print_row(v, f, w);
	}
}

static void usage(FILE *f)
{
	fputs("usage: bench_qemu [--json] [--rounds N] [--mode hybrid|postcopy|precopy]\n"
	      "One VM moved by decant and by QEMU's own migration with TLS.\n",
	      f);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"json", 0, NULL, 'j'},
						{"rounds", 1, NULL, 'r'},
						{"mode", 1, NULL, 'm'},
						{"help", 0, NULL, 'h'},
						{NULL, 0, NULL, 0}};
	struct versus *v = calloc(1, sizeof(*v));
	bool json = false;
	int c;

	*v = (struct versus){.rounds = ROUNDS, .mode = "hybrid"};
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 'r')
			v->rounds = (unsigned int)strtoul(optarg, NULL, 10);
		if (c == 'm')
			v->mode = optarg;
		json |= c == 'j';
		if (c == 'h' || c == '?') {
			usage(c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	/* One value of v.still for each move. */
	if (!v->rounds || v->rounds > REPORT_VALUES_MAX / VERSUS_WAYS || optind < argc) {
		usage(stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	add_series(v);
	for (unsigned int i = 0; i < v->rounds; i++)
		run_round(v, i);
	if (json)
		report_json(&v->report);
	else
		table(v);
	free(v);
	return 0;
}
