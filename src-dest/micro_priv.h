/* SPDX-License-Identifier: Apache-2.0 */
/* A micro-VM as the files that serve it share it. */
#ifndef DECANT_MICRO_PRIV_H
#define DECANT_MICRO_PRIV_H

#include <event2/event.h>
#include "fault.h"
#include "image.h"
#include "micro.h"
#include "micro_hello.h"
#include "place.h"
#include "worker.h"

/** enum micro_state - see micro.h */
enum micro_state {
	MICRO_LISTENING,
	MICRO_GREETING,
	MICRO_SERVING,
	MICRO_COMPLETED,
	MICRO_HELD,
	MICRO_END,
	MICRO_STATES_,
};

/**
 * enum micro_event - what changes it
 * @MICRO_EV_CONNECTED:	somebody has connected
 * @MICRO_EV_GREETED:	the handshake is right and its pages are being served
 * @MICRO_EV_REFUSED:	the handshake is wrong, and no descriptor came
 * @MICRO_EV_TROUBLE:	something is wrong and the micro-VM may wait for a page
 * @MICRO_EV_COMPLETE:	every page is there
 * @MICRO_EV_GONE:	its process has ended
 * @MICRO_EV_STOP:	the agent ends
 */
enum micro_event {
	MICRO_EV_CONNECTED,
	MICRO_EV_GREETED,
	MICRO_EV_REFUSED,
	MICRO_EV_TROUBLE,
	MICRO_EV_COMPLETE,
	MICRO_EV_GONE,
	MICRO_EV_STOP,
	MICRO_EVENTS_,
};

/** struct micro_news - trouble on its way from the fault thread; @used once for each kind */
struct micro_news {
	struct micro *m;
	struct error err;
};

/**
 * struct micro - see micro.h
 * @d:		the daemon
 * @next:	in dest.micros
 * @id_text:	its id, which is also its uuid: it is like no other guest
 * @state:	only micro_event() changes it
 * @image:	name of the image
 * @img:	open until the end
 * @memory:	bytes of its one block
 * @socket:	path; the file is there in state listening
 * @listen_fd, @on_connect: the socket
 * @conn_fd, @on_data, @timer: the handshake under way
 * @hello:	what came of it; NULL before and afterwards
 * @pid, @pidfd, @on_end: its process, and what tells its end
 * @uffd:	owned; with it the missing pages are guarded
 * @uffd_ino:	tells this userfaultfd from others
 * @kept:	the service manager was asked to keep a copy of it
 * @regions, @n: where its memory is; region i is block i of @place
 * @place:	its memory; @placed once it is filled
 * @page:	room for one page, the fault thread's
 * @tally:	nothing is counted there
 * @fault:	from serving on
 * @worker, @stop_fd: fills in what is not touched; readable when it shall give up
 * @fill:	its job
 * @news:	for each kind of trouble
 * @past:	its record
 * @complete:	every page was there once
 * @adopted:	an earlier life of the agent began it
 * @err:	what went wrong first
 * @created_us, @ended_us: wall clock; 0 for not yet
 */
struct micro {
	struct dest *d;
	struct micro *next;
	char id_text[UUID_TEXT_MAX];
	enum micro_state state;
	char image[MSG_NAME_MAX];
	struct image *img;
	uint64_t memory;
	char *socket;
	int listen_fd;
	struct event *on_connect;
	int conn_fd;
	struct event *on_data;
	struct event *timer;
	struct micro_hello *hello;
	pid_t pid;
	int pidfd;
	struct event *on_end;
	int uffd;
	uint64_t uffd_ino;
	bool kept;
	struct micro_region regions[MICRO_REGIONS_MAX];
	unsigned int n;
	struct place place;
	bool placed;
	uint8_t *page;
	struct tally tally;
	struct fault *fault;
	struct worker *worker;
	int stop_fd;
	struct worker_job fill;
	struct micro_news news[3];
	struct past *past;
	bool complete;
	bool adopted;
	struct error err;
	uint64_t created_us;
	uint64_t ended_us;
};

/* micro.c */

/** micro_event() - the only way in which the state changes; @err: why, NULL for none; the first one is
 * kept. An event that has no row is passed over */
void micro_event(struct micro *m, enum micro_event ev, const struct error *err);
/** micro_tell() - hooks hear of a new state. @was: the one before. In incoming_tell.c */
void micro_tell(const struct micro *m, enum micro_state was);
/** micro_publish() - tell those who look at events of a new state, before its action; @was: the one before */
void micro_publish(const struct micro *m, enum micro_state was);
/** micro_state_name() - Return: "listening" and so on */
const char *micro_state_name(enum micro_state s);
/** micro_new() - one that is in dest.micros, with an image, a state and nothing else. Return: NULL without memory */
struct micro *micro_new(struct dest *d, const char *id, const char *image, const char *socket);
/** micro_watch() - be told of the end of its process; takes @pidfd over. Return: 0 or -errno */
int micro_watch(struct micro *m, pid_t pid, int pidfd);
/** micro_image_open() - by name. Return: as micro_begin() */
int micro_image_open(struct micro *m, struct error *err);
/** micro_remove() - an unsuccessful beginning: free it */
void micro_remove(struct micro *m);
/** micro_stop_threads() - nothing of it is touched any more; the descriptor is still open */
void micro_stop_threads(struct micro *m);

/* micro_listen.c */

/** micro_listen() - make the socket. Return: 0 or -errno with @err filled */
int micro_listen(struct micro *m, const struct micro_wish *wish, struct error *err);
/** micro_listen_again() - go on at the socket @fd of an earlier life, which is taken over. Return: 0 or -errno with @err filled */
int micro_listen_again(struct micro *m, int fd, struct error *err);
/**
 * micro_listen_last() - nobody may connect from here on; take who has
 *
 * Whoever has connected has said what it says only once: in state listening afterwards, nobody has.
 */
void micro_listen_last(struct micro *m);
/** micro_listen_end() - socket and connection go, with whatever was said there */
void micro_listen_end(struct micro *m);

/* micro_serve.c */

/** micro_serve() - begin to give pages. @taken_up: page states of an earlier life are gone on with. Return: 0
 * or -errno with @err filled: the descriptor is kept, so that nothing is handed zeros */
int micro_serve(struct micro *m, bool taken_up, struct error *err);
/** micro_completed() - switch missing faults off. Return: 0 or -errno with @err filled */
int micro_completed(struct micro *m, struct error *err);
/** micro_remove_files() - page states, and what micro_adopt.c keeps */
void micro_remove_files(struct micro *m);

/* micro_adopt.c */

/**
 * micro_keep() - have the service manager keep the userfaultfd, if there is one that does: the next life of the
 * agent then needs neither rights over the micro-VM's process nor a copy there
 */
void micro_keep(struct micro *m);
/** micro_unkeep() - it is not needed any more */
void micro_unkeep(struct micro *m);
/** micro_keep_socket() - have it keep the socket: who has connected to it and was not noticed is there for the next life */
void micro_keep_socket(const struct micro *m);
/** micro_unkeep_socket() - it is not listened at any more */
void micro_unkeep_socket(const struct micro *m);
/** micro_note() - keep what the next life of the agent has to know. Return: 0 or -errno with @err filled */
int micro_note(const struct micro *m, struct error *err);

#endif
