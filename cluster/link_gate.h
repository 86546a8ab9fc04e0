/*
 * Who gets in: answers libzmq's questions about those who knock (ZAP, rfc.zeromq.org/spec/27), and
 * reads what it tells about sockets (monitor events). For the link alone, in its thread.
 */
#ifndef CLUSTER_LINK_GATE_H
#define CLUSTER_LINK_GATE_H

#include "base/err.h"
#include "cluster/secret.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * A socket of CONTEXT at which libzmq asks; has to exist before the listening socket does. NULL
 * where there is no memory or fd (errno).
 */
void *link_gate_open(void *context);

/*
 * Answer one question. With SECRET, CURVE clients with the client key of one of its lines get in;
 * without (NULL), whoever comes from loopback. 0: let in; ERR_PERMISSION: refused; ERR_AGAIN: no
 * question was waiting.
 */
int link_gate_answer(void *gate, const struct secret *secret) MUST_CHECK;

/* The end at which EVENTS (ZMQ_EVENT_…) of SOCKET are read, NULL where there is no memory or fd.
 * SERIAL makes its name; never twice the same in a context. QUEUED events are kept. */
void *link_monitor_open(void *context, void *socket, uint64_t serial, int events, int queued);

/* The next event, 0 where there is none. */
int link_monitor_next(void *monitor);

#endif
