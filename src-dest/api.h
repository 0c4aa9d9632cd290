/* SPDX-License-Identifier: Apache-2.0 */
/* The REST interface of decant-dest. Loop thread only. */
#ifndef DECANT_API_H
#define DECANT_API_H

#include "dest.h"

/** api_listen() - serve on all addresses of conf.agent.api. Return: 0 or -errno with @err filled */
int api_listen(struct dest *d, struct error *err);

#endif
