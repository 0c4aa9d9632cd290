/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this host can and cannot do: the data behind `decant check` and GET /v1/host. Everything is
 * asked of the calling process, so an agent answers for its own privileges and confinement.
 */
#ifndef DECANT_HOST_HOST_PROBE_H
#define DECANT_HOST_HOST_PROBE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/**
 * host_probe_json() - look at everything
 * @speed:	also measure the TLS ciphers: about 100 ms of computing on the calling thread (so not
 *		on a loop that serves guests); false leaves their "bytes_per_s" null
 *
 * Members: version, hostname, kernel, arch, cpus; userfaultfd {available, how, doors {NAME: null or
 * why not}, features [], missing_features [], missing {anonymous [], shared []}}; tracking {shared
 * {async, faults}, anonymous {async, faults}, populate_first}; postcopy {available, reason};
 * page_sizes [{bytes, kind, total, free}]; thp {anonymous, shared}; kvm {available, api_version,
 * reason}; tls {library, ciphers [{name, bytes_per_s}]} in the order of preference; memory
 * {total_bytes, available_bytes, shm_total_bytes, shm_free_bytes}; limits {nofile, nofile_max,
 * memlock_bytes (null: unlimited), ptrace_scope, unprivileged_userfaultfd}; capabilities {NAME:
 * bool}; findings [{level: error | warning | info, what, means, do}], worst first. A value that this
 * host does not have is null.
 *
 * Return: new reference, NULL only when out of memory
 */
json_t *host_probe_json(bool speed);

/** host_probe_print() - the same as a table for people, from the object of host_probe_json() */
void host_probe_print(FILE *out, const json_t *host);

#endif
