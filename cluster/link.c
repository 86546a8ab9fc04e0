/*
 * Frames between nodes, over ZeroMQ.
 *
 * The happy path: link_open makes a context of its own (so that several nodes live in one process),
 * the gate, then the ROUTER; link_peer_open makes a DEALER with a monitor, which tells when the
 * handshake is done; link_poll waits on all of them and on an eventfd for wakes.
 *
 * What libzmq would do for us, and why we do it instead:
 *
 * - Reconnecting: see link_peer.c.
 *
 * - Bounding what waits to be sent. libzmq counts messages; with frames of 10 bytes to 512 KiB that
 *   bounds nothing. Frames therefore tell us when libzmq is done with their memory (in its thread:
 *   hence the atomics), and bytes are counted per peer. Answers are counted per slot of a table
 * that their connection's number picks: two connections that share one share a bound, which is
 * harmless.
 *
 * - Queueing for whoever is not there: nothing is taken for a peer that is not up.
 *
 * What is left to libzmq: a holder of the secret can send a message of endlessly many parts, which
 * libzmq collects before it shows any of it; and connections that have not finished their handshake
 * are bounded by its deadline and the process's file descriptors alone.
 */
#include "cluster/link_internal.h"

#include "cluster/link_gate.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#define ROUTER_EVENTS (LINK_HANDSHAKE_FAILED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_ACCEPTED)
#define CURVE_EXTRA   64 /* what CURVE and the frame's own header add to a frame, rounded up */
#define FIXED_ITEMS   4

/* A frame on its way out, owned by libzmq. */
struct frame {
    size_t len;
    uint8_t data[];
};

static const struct secret *secret_of(const struct link *link)
{
    return link->secret.count ? &link->secret : NULL;
}

/* --- sockets ------------------------------------------------------------------------------ */

bool link_set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

bool link_set_key(void *socket, int option, const uint8_t key[SECRET_KEY_BYTES])
{
    return zmq_setsockopt(socket, option, key, SECRET_KEY_BYTES) == 0;
}

bool link_set_common(void *socket, bool v6)
{
    int64_t max = LIMIT_WIRE_BYTES + CURVE_EXTRA;

    return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max, sizeof max) == 0 &&
           link_set(socket, ZMQ_IPV6, v6) && link_set(socket, ZMQ_LINGER, LINK_LINGER_MS) &&
           link_set(socket, ZMQ_SNDHWM, LIMIT_LINK_FRAMES_OUT) &&
           link_set(socket, ZMQ_RCVHWM, LIMIT_LINK_FRAMES_IN) &&
           link_set(socket, ZMQ_HANDSHAKE_IVL, LINK_HANDSHAKE_MS) &&
           /* A peer whose machine is gone closes nothing. */
           link_set(socket, ZMQ_HEARTBEAT_IVL, 5000) &&
           link_set(socket, ZMQ_HEARTBEAT_TIMEOUT, 15000) &&
           link_set(socket, ZMQ_HEARTBEAT_TTL, 15000) && link_set(socket, ZMQ_TCP_KEEPALIVE, 1) &&
           link_set(socket, ZMQ_TCP_KEEPALIVE_IDLE, 30) &&
           link_set(socket, ZMQ_TCP_KEEPALIVE_INTVL, 5) &&
           link_set(socket, ZMQ_TCP_KEEPALIVE_CNT, 3);
}

void link_endpoint(char out[LINK_ENDPOINT_BYTES], const char *address)
{
    (void)snprintf(out, LINK_ENDPOINT_BYTES, LINK_SCHEME "%s", address);
}

static void close_socket(void **socket)
{
    if (!*socket)
        return;
    int rc = zmq_close(*socket);
    assert(rc == 0);
    *socket = NULL;
}

void link_close_pair(void **socket, void **monitor)
{
    if (*monitor) {
        /* Room in the queue first: libzmq must not wait for it with the lock that this takes. */
        while (link_monitor_next(*monitor))
            ;
        (void)zmq_socket_monitor(*socket, NULL, 0);
    }
    close_socket(socket);
    close_socket(monitor);
}

static bool set_router(const struct link *link)
{
    const struct secret_keys *keys = &link->secret.lines[0];

    /* With a domain, libzmq lets nobody in without asking the gate, whatever the mechanism. */
    if (zmq_setsockopt(link->router, ZMQ_ZAP_DOMAIN, "objstore", 8) ||
        !link_set(link->router, ZMQ_ROUTER_MANDATORY, 1))
        return false;
    return !link->secret.count ||
           (link_set(link->router, ZMQ_CURVE_SERVER, 1) &&
            link_set_key(link->router, ZMQ_CURVE_SECRETKEY, keys->server_private));
}

/* --- opening and closing ------------------------------------------------------------------ */

static int fails(int rc, char *message, size_t cap, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int fails(int rc, char *message, size_t cap, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, cap, format, args);
    va_end(args);
    return rc;
}

/* Where to listen: what the operator said, or less where there is no secret. */
static int narrow(struct link_address *at, const struct link_config *config, char *message,
                  size_t cap)
{
    int rc = link_address_parse(at, config->bind_address);
    char loopback[32];

    if (rc)
        return fails(rc, message, cap, "%s is no numeric address with a port",
                     config->bind_address);
    if (config->secret || at->loopback)
        return 0;
    if (!at->any)
        return fails(ERR_PERMISSION, message, cap,
                     "without a cluster secret this node listens on loopback only, not on %s",
                     at->text);
    (void)snprintf(loopback, sizeof loopback, at->v6 ? "[::1]:%u" : "127.0.0.1:%u", at->port);
    rc = link_address_parse(at, loopback);
    assert(rc == 0 && at->loopback);
    return rc;
}

static int listen_at(struct link *link, const struct link_address *at, char *message, size_t cap)
{
    char endpoint[LINK_ENDPOINT_BYTES];
    size_t size = sizeof endpoint;
    int rc;

    link_endpoint(endpoint, at->text);
    if (zmq_bind(link->router, endpoint)) {
        rc = errno == EADDRINUSE                         ? ERR_IN_USE
             : errno == ENODEV || errno == EADDRNOTAVAIL ? ERR_INVALID
                                                         : err_from_errno(errno);
        return fails(rc, message, cap, "cannot listen on %s: %s", at->text, zmq_strerror(errno));
    }
    if (zmq_getsockopt(link->router, ZMQ_LAST_ENDPOINT, endpoint, &size) ||
        strncmp(endpoint, LINK_SCHEME, sizeof LINK_SCHEME - 1) != 0)
        return fails(ERR_IO, message, cap, "cannot tell the address listened on");
    (void)snprintf(link->address, sizeof link->address, "%s", endpoint + sizeof LINK_SCHEME - 1);
    return 0;
}

int link_open(struct link **out, const struct link_config *config, char *message, size_t cap)
{
    struct link_address at;
    struct link *link = NULL;
    int rc = narrow(&at, config, message, cap);

    assert(config->receive && config->env);
    *out = NULL;
    if (rc)
        return rc;
    if (config->secret && !zmq_has("curve"))
        return fails(ERR_UNSUPPORTED, message, cap, "this libzmq was built without CURVE");
    link = calloc(1, sizeof *link);
    if (!link)
        return fails(ERR_NO_MEMORY, message, cap, "out of memory");
    link->env = config->env;
    link->receive = config->receive;
    link->changed = config->changed;
    link->arg = config->arg;
    if (config->secret)
        link->secret = *config->secret;
    link->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (link->wake_fd < 0)
        goto out;
    link->context = zmq_ctx_new();
    /* A socket and a monitor with two ends for each peer, and as many that are being closed. */
    if (!link->context || zmq_ctx_set(link->context, ZMQ_MAX_SOCKETS, 6 * LIMIT_LINK_PEERS + 64))
        goto out;
    link->gate = link_gate_open(link->context);
    link->router = link->gate ? zmq_socket(link->context, ZMQ_ROUTER) : NULL;
    if (!link->router || !link_set_common(link->router, at.v6) || !set_router(link))
        goto out;
    link->monitor = link_monitor_open(link->context, link->router, link->serial++, ROUTER_EVENTS,
                                      LIMIT_LINK_EVENTS);
    if (!link->monitor)
        goto out;
    rc = listen_at(link, &at, message, cap);
    if (rc)
        goto out_told;
    *out = link;
    return 0;
out:
    rc = errno ? err_from_errno(errno) : ERR_NO_MEMORY;
    (void)fails(rc, message, cap, "cannot make sockets: %s", err_text(rc));
out_told:
    link_close(&link);
    return rc;
}

void link_close(struct link **link)
{
    struct link *old = *link;

    if (!old)
        return;
    *link = NULL;
    for (size_t i = 0; i < LIMIT_LINK_PEERS; i++)
        link_close_pair(&old->peers[i].socket, &old->peers[i].monitor);
    link_close_pair(&old->router, &old->monitor);
    close_socket(&old->gate);
    while (old->context && zmq_ctx_term(old->context) && errno == EINTR)
        ;
    if (old->wake_fd >= 0)
        (void)close(old->wake_fd);
    secret_release(&old->secret);
    free(old);
}

const char *link_address(const struct link *link)
{
    return link->address;
}

/* --- sending ------------------------------------------------------------------------------ */

/* In a thread of libzmq's. */
static void release_frame(void *data, void *hint)
{
    struct frame *frame = (struct frame *)(void *)((char *)data - offsetof(struct frame, data));
    atomic_size_t *queued = hint;
    size_t len;

    /* Pairs with send_frame's: what it put into the frame is seen from here on. */
    (void)atomic_load_explicit(queued, memory_order_acquire);
    len = frame->len;
    free(frame);
    atomic_fetch_sub_explicit(queued, len, memory_order_relaxed);
}

/* MESSAGE becomes a copy of LEN bytes of DATA, counted in *QUEUED until libzmq closes it. */
static int make_frame(zmq_msg_t *message, atomic_size_t *queued, const void *data, size_t len)
{
    struct frame *frame = malloc(sizeof *frame + len);

    if (!frame)
        return ERR_NO_MEMORY;
    frame->len = len;
    if (len)
        memcpy(frame->data, data, len);
    atomic_fetch_add_explicit(queued, len, memory_order_release);
    if (!zmq_msg_init_data(message, frame->data, len, release_frame, queued))
        /* cppcheck-suppress memleak ; libzmq's now */
        return 0;
    release_frame(frame->data, queued);
    /* cppcheck-suppress memleak ; by its data */
    return ERR_NO_MEMORY;
}

/* Send on SOCKET, to TO where that is not NULL, what may wait together with *QUEUED. */
static int send_frame(struct link *link, void *socket, const struct link_from *to,
                      atomic_size_t *queued, const void *data, size_t len)
{
    zmq_msg_t message;
    int rc;

    if (len > LIMIT_WIRE_BYTES)
        return ERR_TOO_BIG;
    /* An empty frame costs something, too, but LIMIT_LINK_FRAMES_OUT bounds those. */
    if (atomic_load_explicit(queued, memory_order_relaxed) + len > LIMIT_LINK_BYTES_OUT) {
        link_count(&link->count.full, 1);
        return ERR_FULL;
    }
    rc = make_frame(&message, queued, data, len);
    if (rc)
        return rc;
    if ((to && zmq_send(socket, to->id, to->id_len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) ||
        zmq_msg_send(&message, socket, ZMQ_DONTWAIT) < 0) {
        rc = errno == EAGAIN ? ERR_FULL : ERR_CLOSED;
        link_count(rc == ERR_FULL ? &link->count.full : &link->count.gone, 1);
        (void)zmq_msg_close(&message);
        return rc;
    }
    link_count(&link->count.frames_out, 1);
    link_count(&link->count.bytes_out, len);
    return 0;
}

int link_send(struct link *link, link_peer handle, const void *data, size_t len)
{
    struct peer *peer = link_peer_find(link, handle);

    if (!peer || peer->state != LINK_UP) {
        link_count(&link->count.gone, 1);
        return ERR_CLOSED;
    }
    return send_frame(link, peer->socket, NULL, &peer->queued, data, len);
}

int link_reply(struct link *link, const struct link_from *from, const void *data, size_t len)
{
    uint32_t number = 0;
    size_t tail = from->id_len < sizeof number ? from->id_len : sizeof number;

    if (from->peer)
        return link_send(link, from->peer, data, len);
    assert(from->id_len > 0 && from->id_len <= LINK_ID_BYTES);
    /* libzmq numbers connections in the last four bytes, big-endian. */
    for (size_t i = from->id_len - tail; i < from->id_len; i++)
        number = number << 8 | from->id[i];
    return send_frame(link, link->router, from, &link->replies[number % LINK_REPLY_SLOTS], data,
                      len);
}

/* --- receiving ---------------------------------------------------------------------------- */

/* The rest of a message in parts. libzmq shows only whole ones: this ends. */
static void skip_parts(void *socket, zmq_msg_t *part)
{
    while (zmq_msg_more(part) && zmq_msg_recv(part, socket, ZMQ_DONTWAIT) >= 0)
        ;
}

static void deliver(struct link *link, struct link_from *from, zmq_msg_t *message)
{
    const char *ip = zmq_msg_gets(message, "Peer-Address");
    size_t len = zmq_msg_size(message);

    if (len > LIMIT_WIRE_BYTES) {
        link_count(&link->count.oversize, 1);
        return;
    }
    (void)snprintf(from->ip, sizeof from->ip, "%s", ip ? link_ip_plain(ip) : "");
    link_count(&link->count.frames_in, 1);
    link_count(&link->count.bytes_in, len);
    link->receive(link->arg, from, zmq_msg_data(message), len);
}

/* One message of SOCKET, where FROM is all that is known of its sender: 1 where it was delivered, 0
 * where it was dropped, ERR_AGAIN where there is none. */
static int take(struct link *link, void *socket, link_peer handle)
{
    struct link_from from = {.peer = handle};
    zmq_msg_t message;
    bool good = true;

    (void)zmq_msg_init(&message);
    if (zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) < 0)
        return ERR_AGAIN;
    if (!handle) {
        size_t len = zmq_msg_size(&message);

        good = len > 0 && len <= LINK_ID_BYTES && zmq_msg_more(&message);
        if (good) {
            memcpy(from.id, zmq_msg_data(&message), len);
            from.id_len = (uint8_t)len;
            good = zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) >= 0;
        }
    }
    good = good && !zmq_msg_more(&message);
    if (good)
        deliver(link, &from, &message);
    else {
        link_count(&link->count.malformed, 1);
        skip_parts(socket, &message);
    }
    (void)zmq_msg_close(&message);
    return good;
}

static int receive_router(struct link *link)
{
    int delivered = 0, got = 1;

    for (int i = 0; i < LIMIT_LINK_BURST && got >= 0; i++) {
        got = take(link, link->router, 0);
        delivered += got > 0;
    }
    return delivered;
}

/* `receive` may close the peer, and open another in its slot. */
static int receive_peer(struct link *link, link_peer handle)
{
    int delivered = 0, got = 1;

    for (int i = 0; i < LIMIT_LINK_BURST && got >= 0; i++) {
        struct peer *peer = link_peer_find(link, handle);

        if (!peer || !peer->socket)
            break;
        got = take(link, peer->socket, handle);
        delivered += got > 0;
    }
    return delivered;
}

static void follow_router(struct link *link)
{
    for (int i = 0; i < LIMIT_LINK_EVENTS; i++) {
        int event = link_monitor_next(link->monitor);

        if (!event)
            return;
        link_count(event == ZMQ_EVENT_ACCEPTED              ? &link->count.knocks
                   : event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED ? &link->count.accepted
                                                            : &link->count.handshake_failures,
                   1);
    }
}

static void answer_gate(struct link *link)
{
    for (int i = 0; i < LIMIT_LINK_BURST; i++) {
        int rc = link_gate_answer(link->gate, secret_of(link));

        if (rc == ERR_AGAIN)
            return;
        if (rc)
            link_count(&link->count.refused, 1);
    }
}

/* --- polling ------------------------------------------------------------------------------ */

static void take_wake(struct link *link)
{
    uint64_t value;

    (void)!read(link->wake_fd, &value, sizeof value);
    /* A wake from here on writes again; one before it belongs to this poll. */
    atomic_store(&link->woken, false);
}

int link_poll(struct link *link, unsigned timeout_ms)
{
    zmq_pollitem_t items[FIXED_ITEMS + 2 * LIMIT_LINK_PEERS] = {
        {.fd = link->wake_fd, .events = ZMQ_POLLIN},
        {.socket = link->gate, .events = ZMQ_POLLIN},
        {.socket = link->monitor, .events = ZMQ_POLLIN},
        {.socket = link->router, .events = ZMQ_POLLIN},
    };
    link_peer handles[LIMIT_LINK_PEERS];
    int count = FIXED_ITEMS, connections = 0, delivered = 0;

    timeout_ms = link_peers_tick(link, timeout_ms);
    for (size_t i = 0; i < LIMIT_LINK_PEERS; i++)
        if (link->peers[i].handle && link->peers[i].socket) {
            handles[connections++] = link->peers[i].handle;
            items[count++] =
                (zmq_pollitem_t){.socket = link->peers[i].socket, .events = ZMQ_POLLIN};
            items[count++] =
                (zmq_pollitem_t){.socket = link->peers[i].monitor, .events = ZMQ_POLLIN};
        }
    if (zmq_poll(items, count, (long)timeout_ms) < 0)
        return errno == EINTR ? 0 : ERR_IO;

    if (items[0].revents)
        take_wake(link);
    if (items[1].revents)
        answer_gate(link);
    if (items[2].revents)
        follow_router(link);
    if (items[3].revents)
        delivered += receive_router(link);
    for (int i = 0; i < connections; i++) {
        if (items[FIXED_ITEMS + 2 * i].revents)
            delivered += receive_peer(link, handles[i]);
        if (items[FIXED_ITEMS + 2 * i + 1].revents)
            link_peer_follow(link, handles[i]);
    }
    return delivered;
}

void link_wake(struct link *link)
{
    uint64_t one = 1;

    if (!atomic_exchange(&link->woken, true))
        (void)!write(link->wake_fd, &one, sizeof one);
}

void link_stats(struct link *link, struct link_stats *out)
{
    const struct counters *count = &link->count;

#define READ(name) .name = atomic_load_explicit(&count->name, memory_order_relaxed)
    *out = (struct link_stats){
        READ(frames_in), READ(bytes_in),     READ(frames_out),         READ(bytes_out),
        READ(full),      READ(gone),         READ(malformed),          READ(oversize),
        READ(knocks),    READ(accepted),     READ(handshake_failures), READ(refused),
        READ(connected), READ(disconnected), READ(connect_failures),
    };
#undef READ
}
