/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is let in. Each refusal has its own code at the source's job and its own words in the log of
 * either agent; the guest runs on, and the agents go on serving others.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "lib/lab_test.h"
#include "lib/lab_wire.h"

TestSuite(tls, .timeout = 120);

/**
 * struct refusal - one way of not being let in
 * @source, @dest:	identities
 * @allow:		of the destination
 * @source_crl, @dest_crl: the revocation list is in use there
 * @code:		of the job's error
 * @dest_says:		in its log
 */
struct refusal {
	char what[40];
	char source[24];
	char dest[24];
	char allow[48];
	bool source_crl;
	bool dest_crl;
	char code[24];
	char dest_says[40];
};

static struct refusal refusals[] = {
	{.what = "source expired",
	 .source = "expired",
	 .code = "tls-expired",
	 .dest_says = "expired"},
	{.what = "destination expired",
	 .dest = "expired",
	 .code = "tls-expired",
	 .dest_says = "expired"},
	{.what = "source revoked",
	 .source = "revoked",
	 .dest_crl = true,
	 .code = "tls-revoked",
	 .dest_says = "revoked"},
	{.what = "destination revoked",
	 .dest = "revoked",
	 .source_crl = true,
	 .code = "tls-revoked",
	 .dest_says = "revoked"},
	{.what = "source of another authority",
	 .source = "foreign",
	 .code = "tls-unknown-ca",
	 .dest_says = "not signed by a CA"},
	{.what = "destination of another authority",
	 .dest = "foreign",
	 .code = "tls-unknown-ca",
	 .dest_says = "not signed by a CA"},
	{.what = "wrong host name", .dest = "elsewhere", .code = "tls-wrong-name", .dest_says = ""},
	{.what = "not on the list",
	 .allow = "[\"DNS:host-x\"]",
	 .code = "tls-not-allowed",
	 .dest_says = "not let in"},
	{.what = "empty list", .allow = "[]", .code = "tls-not-allowed", .dest_says = "not let in"},
};

ParameterizedTestParameters(tls, refused)
{
	return cr_make_param_array(struct refusal, refusals, LAB_COUNT(refusals));
}

static const char *or_null(const char *s)
{
	return *s ? s : NULL;
}

ParameterizedTest(struct refusal *r, tls, refused, .timeout = 120)
{
	struct lab *lab = lab_new(lab_test_failed);
	char crl[LAB_PATH_MAX + 64];
	struct lab_host *a, *b;
	struct lab_guest *g;

	snprintf(crl, sizeof(crl), "{\"tls\": {\"crl\": \"%s/crl.pem\"}}", lab->certs);
	a = lab_host_start(lab, &(struct lab_host_opts){.name = "a",
							.identity = or_null(r->source),
							.source_conf = r->source_crl ? crl : NULL});
	b = lab_host_start(lab, &(struct lab_host_opts){.name = "b",
							.identity = or_null(r->dest),
							.allow = or_null(r->allow),
							.dest_conf = r->dest_crl ? crl : NULL});
	g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});
	json_decref(lab_migrate(a, b, g,
				&(struct lab_move){.exit = 1, .phase = "failed", .code = r->code}));
	lab_until(lab, 5000, lab_proc_said(lab, b->dest, r->dest_says),
		  "%s: the destination does not say \"%s\"", r->what, r->dest_says);
	lab_guest_verified(g);
	lab_end(lab);
}

/* --- peers that are no agents --- */

static struct lab *dest_alone(struct lab_host **ret)
{
	struct lab *lab = lab_new(lab_test_failed);

	*ret = lab_host_start(lab, &(struct lab_host_opts){.name = "b", .no_source = true});
	return lab;
}

static void said_and_alive(struct lab_host *b, const char *text)
{
	struct lab_wire *w;

	lab_until(b->lab, 5000, lab_proc_said(b->lab, b->dest, text),
		  "the destination does not say \"%s\"", text);
	w = lab_wire_open(b, &(struct lab_wire_opts){0});
	lab_check(b->lab, w, "a proper peer is not let in any more");
	lab_wire_close(w);
}

Test(tls, plain_text_client)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: b\r\n\r\n";
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);
	int fd = lab_tcp_open(b);

	lab_check(lab, write(fd, request, sizeof(request) - 1) > 0, "write: %m");
	said_and_alive(b, "does not speak TLS");
	close(fd);
	lab_end(lab);
}

/* TLS 1.3 clients learn of a refusal when they first read. */
static bool refused(struct lab_wire *w)
{
	uint8_t buf[1024];
	bool refused = !w || lab_wire_recv(w, buf, sizeof(buf), 10000) == 0;

	if (w)
		lab_wire_close(w);
	return refused;
}

Test(tls, old_version_client)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);

	lab_check(lab, refused(lab_wire_open(b, &(struct lab_wire_opts){.tls12 = true})),
		  "TLS 1.2 was let in");
	said_and_alive(b, "TLS 1.3");
	lab_end(lab);
}

Test(tls, client_without_certificate)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);

	lab_check(lab, refused(lab_wire_open(b, &(struct lab_wire_opts){.identity = ""})),
		  "a peer without certificate was let in");
	said_and_alive(b, "certificate");
	lab_end(lab);
}

Test(tls, other_protocol)
{
	struct lab_host *b;
	struct lab *lab = dest_alone(&b);

	lab_check(lab, refused(lab_wire_open(b, &(struct lab_wire_opts){.alpn = "h2"})),
		  "another protocol was let in");
	said_and_alive(b, "decant/1");
	lab_end(lab);
}

/* --- servers that are no agents --- */

static void refused_server(const char *version, const char *alpn, const char *code)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a =
		lab_host_start(lab, &(struct lab_host_opts){.name = "a", .no_dest = true});
	struct lab_host *b = lab_host_new(lab, &(struct lab_host_opts){.name = "b"});
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});
	char ca[LAB_PATH_MAX + 64], cert[LAB_PATH_MAX + 64], key[LAB_PATH_MAX + 64];
	const char *const argv[] = {"/usr/bin/openssl",
				    "s_server",
				    "-accept",
				    b->to,
				    "-quiet",
				    "-CAfile",
				    ca,
				    "-cert",
				    cert,
				    "-key",
				    key,
				    "-Verify",
				    "1",
				    "-alpn",
				    alpn,
				    version,
				    NULL};
	struct lab_proc *server;

	snprintf(ca, sizeof(ca), "%s/dest.ca", b->dir);
	snprintf(cert, sizeof(cert), "%s/dest.cert", b->dir);
	snprintf(key, sizeof(key), "%s/dest.key", b->dir);
	server = lab_spawn(lab, NULL, "s_server", argv);
	lab_until(lab, 5000, lab_port_open(b), "s_server does not listen");
	json_decref(lab_migrate(a, b, g,
				&(struct lab_move){.exit = 1, .phase = "failed", .code = code}));
	lab_guest_verified(g);
	lab_proc_kill(lab, server);
	lab_end(lab);
}

Test(tls, old_version_server)
{
	refused_server("-tls1_2", "decant/1", "tls-version");
}

Test(tls, other_protocol_server)
{
	refused_server("-tls1_3", "h2", "tls-alpn");
}

/* A server that answers everybody with the same line. */
static void talk_plainly(int listener)
{
	static const char answer[] = "SSH-2.0-OpenSSH_9.2\r\n";

	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			_exit(0);
		(void)!write(fd, answer, sizeof(answer) - 1);
		shutdown(fd, SHUT_WR);
		while (read(fd, (char[256]){0}, 256) > 0)
			;
		close(fd);
	}
}

Test(tls, plain_text_server)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a =
		lab_host_start(lab, &(struct lab_host_opts){.name = "a", .no_dest = true});
	struct lab_host *b = lab_host_new(lab, &(struct lab_host_opts){.name = "b"});
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_port = htons(b->port),
				  .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pid_t server;

	lab_check(lab,
		  bind(listener, (struct sockaddr *)&sin, sizeof(sin)) == 0 &&
			  listen(listener, 8) == 0,
		  "listen: %m");
	server = fork();
	if (server == 0)
		talk_plainly(listener);
	close(listener);
	lab_lend(lab, "plain server", server);
	json_decref(lab_migrate(
		a, b, g,
		&(struct lab_move){.exit = 1, .phase = "failed", .code = "tls-plaintext"}));
	lab_guest_verified(g);
	lab_end(lab);
}

/* --- new certificates --- */

Test(tls, reload_on_sighup)
{
	struct lab *lab = lab_new(lab_test_failed);
	struct lab_host *a =
		lab_host_start(lab, &(struct lab_host_opts){.name = "a", .identity = "expired"});
	struct lab_host *b = lab_host_start(lab, &(struct lab_host_opts){.name = "b"});
	struct lab_guest *g = lab_guest_start(a, &(struct lab_guest_opts){.mb = 8});

	lab_check(lab,
		  lab_proc_said(lab, a->source, "our certificate") &&
			  lab_proc_said(lab, a->source, "expired at"),
		  "it does not say that its own certificate is of no use");
	lab_check(lab, !lab_proc_said(lab, b->source, "our certificate"), "nor is that of b");
	json_decref(lab_migrate(
		a, b, g, &(struct lab_move){.exit = 1, .phase = "failed", .code = "tls-expired"}));
	lab_host_identity(a, "source", "host-a");
	/* Not before it is asked to. */
	json_decref(lab_migrate(
		a, b, g, &(struct lab_move){.exit = 1, .phase = "failed", .code = "tls-expired"}));
	kill(a->source->pid, SIGHUP);
	lab_until(lab, 5000, lab_proc_said(lab, a->source, "reload"), "no word of reloading");
	json_decref(lab_migrate(a, b, g, &(struct lab_move){0}));
	lab_guest_arrived(g, b);

	/* Files that cannot be used are refused, and the old ones stay in use. */
	lab_write_file(lab, lab_host_path(b, "source.cert"), "not a certificate\n");
	kill(b->source->pid, SIGHUP);
	lab_until(lab, 5000, lab_proc_said(lab, b->source, "source.cert"),
		  "no word of the bad file");
	lab_host_knows(b, g->name);
	json_decref(lab_migrate(
		b, a, g, &(struct lab_move){.exit = 1, .phase = "failed", .code = "tls-expired"}));
	lab_host_identity(a, "dest", "host-a");
	kill(a->dest->pid, SIGHUP);
	lab_until(lab, 5000, lab_proc_said(lab, a->dest, "reload"), "no word of reloading");
	json_decref(lab_migrate(b, a, g, &(struct lab_move){0}));
	lab_guest_arrived(g, a);
	lab_end(lab);
}
