/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of common/host only. */
#ifndef DECANT_HOST_HOST_PRIV_H
#define DECANT_HOST_HOST_PRIV_H

#include <jansson.h>

/**
 * host_advice() - what follows from an object of host_probe_json(): a function of its argument alone
 *
 * Return: new array of findings, worst first; empty if nothing is amiss; NULL when out of memory
 */
json_t *host_advice(const json_t *host);

/** host_memory() - Return: new object "memory" of host_probe_json(), or NULL */
json_t *host_memory(void);
/** host_limits() - Return: new object "limits", or NULL */
json_t *host_limits(void);
/** host_capabilities() - Return: new object "capabilities", or NULL */
json_t *host_capabilities(void);
/** host_page_sizes() - Return: new array "page_sizes", or NULL */
json_t *host_page_sizes(void);
/** host_thp() - Return: new object "thp", or NULL */
json_t *host_thp(void);
/** host_kvm() - Return: new object "kvm", or NULL */
json_t *host_kvm(void);

#endif
