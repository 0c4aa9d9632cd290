/* SPDX-License-Identifier: Apache-2.0 */
#include "host/host_probe.h"

#include <openssl/crypto.h>
#include <stdint.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "host/host_priv.h"
#include "tls/tls_ctx.h"
#include "tls/tls_speed.h"
#include "uffd/uffd.h"
#include "util/cleanup.h"
#include "util/text.h"

/* Names of the bits that are set. */
static json_t *names(uint64_t bits, const char *(*name)(unsigned int))
{
	json_t *a = json_array();

	for (unsigned int bit = 0; bit < 64; bit++)
		if (bits >> bit & 1 && name(bit))
			json_array_append_new(a, json_string(name(bit)));
	return a;
}

/* How each door answers: null for one that opens. */
static json_t *doors(void)
{
	json_t *o = json_object();

	for (int how = UFFD_HOW_SYSCALL; how <= UFFD_HOW_USER_MODE; how++) {
		int r = uffd_try((enum uffd_how)how);

		json_object_set_new(o, uffd_how_name((enum uffd_how)how),
				    r < 0 ? json_string(strerror(-r)) : json_null());
	}
	return o;
}

static json_t *kinds(unsigned int tracking)
{
	return json_pack("{s:b, s:b}", "async", !!(tracking & UFFD_TRACK_ASYNC), "faults",
			 !!(tracking & UFFD_TRACK_FAULTS));
}

/* Those that decant uses or will ask for by name. */
#define FEATURES_USED                                                                \
	(UFFD_F_PAGEFAULT_FLAG_WP | UFFD_F_EVENT_REMOVE | UFFD_F_MISSING_HUGETLBFS | \
	 UFFD_F_MISSING_SHMEM | UFFD_F_THREAD_ID | UFFD_F_WP_HUGETLBFS_SHMEM |       \
	 UFFD_F_WP_UNPOPULATED | UFFD_F_WP_ASYNC)

static int set_new(json_t *host, const char *key, json_t *value)
{
	return json_object_set_new(host, key, value);
}

static void add_userfaultfd(json_t *host)
{
	struct uffd_caps caps = {};
	struct error err = {}, why = {};
	int r = uffd_probe(&caps, &err);
	bool postcopy = r == 0 && uffd_caps_postcopy(&caps, &why) == 0;
	const char *reason = r < 0 ? err.msg : why.msg;

	set_new(host, "userfaultfd",
		json_pack("{s:b, s:o, s:o, s:o, s:o, s:{s:o, s:o}}", "available", r == 0, "how",
			  r < 0 ? json_null() : json_string(uffd_how_name(caps.how)), "doors",
			  doors(), "features", names(caps.features, uffd_feature_name),
			  "missing_features",
			  names(FEATURES_USED & ~caps.features, uffd_feature_name), "missing",
			  "anonymous", names(caps.missing[UFFD_MEM_ANON], uffd_can_name), "shared",
			  names(caps.missing[UFFD_MEM_SHMEM], uffd_can_name)));
	set_new(host, "tracking",
		json_pack("{s:o, s:o, s:b}", "shared", kinds(caps.tracking), "anonymous",
			  kinds(caps.tracking_anon), "populate_first",
			  r == 0 && caps.populate_first));
	set_new(host, "postcopy",
		json_pack("{s:b, s:o}", "available", postcopy, "reason",
			  postcopy ? json_null() : json_string(reason)));
}

static json_t *cipher(const char *name, size_t n, const struct tls_speed *speed)
{
	uint64_t rate = memmem(name, n, "AES_128", 7) ? speed->aes128gcm : speed->chacha20poly1305;

	return json_pack("{s:o, s:o}", "name", json_stringn(name, n), "bytes_per_s",
			 rate ? json_integer((json_int_t)rate) : json_null());
}

static json_t *tls(bool measure)
{
	const char *list = tls_ctx_ciphers(tls_ctx_cpu_has_aes());
	struct tls_speed speed = {};
	json_t *a = json_array();

	if (measure && tls_speed_measure(&speed, NULL) < 0)
		speed = (struct tls_speed){};
	while (*list) {
		size_t n = strcspn(list, ":");

		json_array_append_new(a, cipher(list, n, &speed));
		list += n + (list[n] == ':');
	}
	return json_pack("{s:s, s:o}", "library", OpenSSL_version(OPENSSL_VERSION), "ciphers", a);
}

json_t *host_probe_json(bool speed)
{
	json_t *host = json_object();
	struct utsname u = {};
	int r = 0;

	if (!host)
		return NULL;
	uname(&u);
	text_clean(u.nodename);
	r |= set_new(host, "version", json_string(DECANT_VERSION));
	r |= set_new(host, "hostname", json_string(u.nodename));
	r |= set_new(host, "kernel", json_string(u.release));
	r |= set_new(host, "arch", json_string(u.machine));
	r |= set_new(host, "cpus", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
	add_userfaultfd(host);
	r |= set_new(host, "page_sizes", host_page_sizes());
	r |= set_new(host, "thp", host_thp());
	r |= set_new(host, "kvm", host_kvm());
	r |= set_new(host, "tls", tls(speed));
	r |= set_new(host, "memory", host_memory());
	r |= set_new(host, "limits", host_limits());
	r |= set_new(host, "capabilities", host_capabilities());
	if (!r && json_object_size(host) == 15)
		r = set_new(host, "findings", host_advice(host));
	else
		r = -1;
	if (r) {
		json_decref(host);
		return NULL;
	}
	return host;
}
