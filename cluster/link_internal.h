/*
 * What the link's two files share: its struct, and how its sockets are made and closed. Nobody else
 * includes this.
 */
#ifndef CLUSTER_LINK_INTERNAL_H
#define CLUSTER_LINK_INTERNAL_H

#include "cluster/link.h"

#include <stdatomic.h>

#define LINK_SCHEME         "tcp://"
#define LINK_ENDPOINT_BYTES (LINK_ADDRESS_BYTES + sizeof LINK_SCHEME - 1)
#define LINK_REPLY_SLOTS    1024

/* Events of sockets: a handshake came to nothing. */
#define LINK_HANDSHAKE_FAILED                                                                      \
    (ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |                  \
     ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)

struct peer {
    link_peer handle; /* 0: a free slot */
    struct link_address address;
    enum link_state state;
    void *socket, *monitor; /* NULL while waiting */
    uint64_t due_ms;        /* waiting: when to connect; connecting: when to give up */
    unsigned delay_ms;
    unsigned line;          /* of the secret, for this attempt */
    unsigned lines_refused; /* since the last success or other failure */
    atomic_size_t queued;
};

struct counters {
    atomic_uint_fast64_t frames_in, bytes_in, frames_out, bytes_out, full, gone, malformed,
        oversize, knocks, accepted, handshake_failures, refused, connected, disconnected,
        connect_failures;
};

struct link {
    struct env *env;
    struct secret secret; /* count 0: none */
    link_receive *receive;
    link_changed *changed;
    void *arg;
    char address[LINK_ADDRESS_BYTES];
    void *context, *gate, *router, *monitor;
    int wake_fd;
    atomic_bool woken;
    uint64_t serial;     /* of monitors */
    uint32_t generation; /* of peers' handles */
    struct peer peers[LIMIT_LINK_PEERS];
    atomic_size_t replies[LINK_REPLY_SLOTS];
    struct counters count;
};

static inline void link_count(atomic_uint_fast64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* Options. False: libzmq refused (errno). */
bool link_set(void *socket, int option, int value) MUST_CHECK;
bool link_set_key(void *socket, int option, const uint8_t key[SECRET_KEY_BYTES]) MUST_CHECK;
/* Those that listening sockets and connections have in common. */
bool link_set_common(void *socket, bool v6) MUST_CHECK;

void link_endpoint(char out[LINK_ENDPOINT_BYTES], const char *address);

/* A socket and its monitor, or what there is of them; clears both. */
void link_close_pair(void **socket, void **monitor);

/* The peer in use under HANDLE, or NULL. */
struct peer *link_peer_find(const struct link *link, link_peer handle);

/* Act on what the monitor of the peer tells. */
void link_peer_follow(struct link *link, link_peer handle);

/* Do for all peers what is due; the time until something else is, at most TIMEOUT_MS. */
unsigned link_peers_tick(struct link *link, unsigned timeout_ms);

#endif
