/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network for VMs: on each of two hosts (lab_ns_pair()) a bridge "br0" with a tap "vm0" for one VM; the bridges are
 * joined by the wire between the hosts. The hosts' addresses of lab_ns_pair() are on the bridges
 * then, so that daemons and VMs share the wire as on real hosts; a VM takes another of 10.77.0.0/24.
 *
 *	if (!lab_ns_pair(lab, &ns[0], &ns[1]) || !lab_net_bridges(lab, ns))
 *		skip
 *	a = lab_vm_start(lab, &(struct lab_vm_opts){.tap = LAB_NET_TAP, .ns = &ns[0]});
 *	lab_vm_do(a, "net up 10.77.0.77");
 *	c = lab_net_client(lab, &ns[1], "10.77.0.77");	// connects and stays
 *	ear = lab_net_listen(lab, &ns[0], "52:54:00:de:ca:01");
 *	… migrate …
 *	lab_net_answers(c, 5000);			// the same connection is answered again
 *	lab_net_announced(ear, 5000);			// RARP or gratuitous ARP of that address has come
 */
#ifndef DECANT_TESTS_LAB_NET_H
#define DECANT_TESTS_LAB_NET_H

#include "lib/lab.h"

/** LAB_NET_TAP - interface for lab_vm_opts.tap, in each namespace */
#define LAB_NET_TAP "vm0"

/** lab_net_bridges() - make them. Return: false if this kernel has no bridge or tap */
bool lab_net_bridges(struct lab *lab, const struct lab_ns ns[2]);

/**
 * struct lab_net_client - a TCP connection to a VM's server that stays
 * @fd:	made in the client's namespace; lives in this process
 * @asked:	lines sent; each carries its number
 * @answered:	how many of them have been
 * @counter:	the server's counter in the last answer
 * @answer_us:	how long lab_net_answers() waited last
 * @longest_us:	the longest of these
 */
struct lab_net_client {
	struct lab *lab;
	int fd;
	uint64_t asked;
	uint64_t answered;
	uint64_t counter;
	uint64_t answer_us;
	uint64_t longest_us;
	char text[128];
	size_t n;
};

/** lab_net_client() - connect to port 7 of a VM, for lab_net_client_end() */
struct lab_net_client *lab_net_client(struct lab *lab, const struct lab_ns *ns,
				      const char *address);
/** lab_net_asks() - send one line and wait for nothing */
void lab_net_asks(struct lab_net_client *c);
/**
 * lab_net_answers() - wait until all lines have been answered, each with its own number and a counter
 * that goes on by one: the connection and the server are still the same
 */
void lab_net_answers(struct lab_net_client *c, unsigned int ms);
void lab_net_client_end(struct lab_net_client *c);

/**
 * struct lab_net_ear - hears frames on a bridge
 * @mac:	whose announcements count
 * @arps, @rarps: gratuitous ARP and RARP frames of that address so far
 */
struct lab_net_ear {
	struct lab *lab;
	int fd;
	uint8_t mac[6];
	unsigned int arps, rarps;
};

/** lab_net_listen() - begin to listen on a host's bridge for announcements of @mac, for lab_net_ear_end() */
struct lab_net_ear *lab_net_listen(struct lab *lab, const struct lab_ns *ns, const char *mac);
/** lab_net_heard() - Return: announcements so far */
unsigned int lab_net_heard(struct lab_net_ear *e);
/** lab_net_announced() - wait for one, if none has come yet */
void lab_net_announced(struct lab_net_ear *e, unsigned int ms);
void lab_net_ear_end(struct lab_net_ear *e);

#endif
