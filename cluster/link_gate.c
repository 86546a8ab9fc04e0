/*
 * The gate: one REP socket in the link's own poll set instead of a thread, so that a flood of
 * strangers is answered between frames, a bounded number at a time. libzmq asks only after the
 * CURVE handshake has proved that the client knows its own key and our public one, and each
 * connection asks once; an answer that does not come in time closes the connection.
 *
 * A question has the parts version, request id, domain, address, routing id, mechanism, and the
 * credentials: for CURVE the client's public key. Anything else than what we expect is refused.
 */
#include "cluster/link_gate.h"

#include "cluster/link_address.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

enum part { VERSION, REQUEST, DOMAIN, ADDRESS, ROUTING_ID, MECHANISM, CREDENTIALS, PARTS };

#define PART_BYTES 256

struct question {
    size_t count;
    size_t len[PARTS]; /* as sent; what is longer than PART_BYTES was cut */
    char part[PARTS][PART_BYTES];
};

void *link_gate_open(void *context)
{
    void *gate = zmq_socket(context, ZMQ_REP);

    if (gate && zmq_bind(gate, "inproc://zeromq.zap.01")) {
        int saved = errno;

        (void)zmq_close(gate);
        errno = saved;
        return NULL;
    }
    return gate;
}

static bool read_question(void *gate, struct question *question)
{
    int more = 1;
    size_t size = sizeof more;

    while (more) {
        char rest[PART_BYTES];
        size_t at = question->count;
        int len = zmq_recv(gate, at < PARTS ? question->part[at] : rest, PART_BYTES, ZMQ_DONTWAIT);

        if (len < 0)
            return false;
        if (at < PARTS)
            question->len[at] = (size_t)len;
        question->count++;
        if (zmq_getsockopt(gate, ZMQ_RCVMORE, &more, &size))
            return false;
    }
    return true;
}

static bool part_is(const struct question *question, enum part part, const char *text)
{
    return question->len[part] == strlen(text) &&
           !memcmp(question->part[part], text, question->len[part]);
}

static bool may_enter(const struct question *question, const struct secret *secret)
{
    if (question->count < MECHANISM + 1 || question->count > PARTS ||
        !part_is(question, VERSION, "1.0"))
        return false;
    if (!secret) {
        char ip[LINK_IP_BYTES];

        if (!part_is(question, MECHANISM, "NULL") || question->len[ADDRESS] >= sizeof ip)
            return false;
        memcpy(ip, question->part[ADDRESS], question->len[ADDRESS]);
        ip[question->len[ADDRESS]] = 0;
        return link_ip_is_loopback(ip);
    }
    if (!part_is(question, MECHANISM, "CURVE") || question->count != PARTS ||
        question->len[CREDENTIALS] != SECRET_KEY_BYTES)
        return false;
    for (size_t i = 0; i < secret->count; i++)
        if (!memcmp(question->part[CREDENTIALS], secret->lines[i].client_public, SECRET_KEY_BYTES))
            return true;
    return false;
}

int link_gate_answer(void *gate, const struct secret *secret)
{
    struct question question = {0};

    if (!read_question(gate, &question))
        return ERR_AGAIN;

    bool enters = may_enter(&question, secret);
    size_t request_len = question.len[REQUEST] < PART_BYTES ? question.len[REQUEST] : 0;
    const struct {
        const char *data;
        size_t len;
    } answer[] = {
        {"1.0", 3}, {question.part[REQUEST], request_len}, {enters ? "200" : "400", 3},
        {"", 0}, /* status text */
        {"", 0}, /* user id */
        {"", 0}, /* metadata */
    };
    enum { COUNT = sizeof answer / sizeof *answer };
    for (int i = 0; i < COUNT; i++)
        /* Only a connection that is gone does not take it, and that one needs none. */
        (void)zmq_send(gate, answer[i].data, answer[i].len,
                       ZMQ_DONTWAIT | (i + 1 < COUNT ? ZMQ_SNDMORE : 0));
    return enters ? 0 : ERR_PERMISSION;
}

void *link_monitor_open(void *context, void *socket, uint64_t serial, int events, int queued)
{
    char name[64];
    void *monitor = NULL;
    int saved;

    (void)snprintf(name, sizeof name, "inproc://monitor-%llu", (unsigned long long)serial);
    if (zmq_socket_monitor(socket, name, events))
        return NULL;
    monitor = zmq_socket(context, ZMQ_PAIR);
    /* libzmq's I/O thread waits where this is full. */
    if (monitor && !zmq_setsockopt(monitor, ZMQ_RCVHWM, &queued, sizeof queued) &&
        !zmq_connect(monitor, name))
        return monitor;
    saved = errno;
    (void)zmq_socket_monitor(socket, NULL, 0);
    if (monitor)
        (void)zmq_close(monitor);
    errno = saved;
    return NULL;
}

int link_monitor_next(void *monitor)
{
    uint8_t event[6]; /* its number, and a value that differs with it, in our byte order */
    char endpoint[1];
    uint16_t number;
    int len = zmq_recv(monitor, event, sizeof event, ZMQ_DONTWAIT);

    if (len < 0)
        return 0;
    assert(len == sizeof event);
    (void)zmq_recv(monitor, endpoint, sizeof endpoint, ZMQ_DONTWAIT);
    memcpy(&number, event, sizeof number);
    return number;
}
