/*
 * The link: frames between this node and others. The one place that touches ZeroMQ.
 *
 * One listening socket (ROUTER) for what others ask, with answers to them on the way that they
 * came; one connection (DEALER) for each peer that we ask. A frame is one message of opaque bytes.
 * It arrives whole or not at all, each peer's in order; it may be lost at any time without a word:
 * whoever sends has a deadline and asks again.
 *
 * With a secret every connection is CURVE: encrypted, and open only to holders of the secret, both
 * ways. Without one there is no cryptography, and nothing but loopback is listened on, let in or
 * connected to.
 *
 * All calls are for the one thread that polls, but link_wake and link_stats, which any thread may
 * make while the link is open. (link_open and link_close may be another thread's, where that thread
 * starts and joins the polling one.) None blocks, but link_poll, for as long as it is told, and
 * link_close, for LINK_LINGER_MS.
 */
#ifndef CLUSTER_LINK_H
#define CLUSTER_LINK_H

#include "base/env.h"
#include "base/err.h"
#include "base/limits.h"
#include "cluster/link_address.h"
#include "cluster/secret.h"

#define LINK_ID_BYTES 16

struct link;

/* A connection that we made or try to make; never 0, and not given out again for long. */
typedef uint32_t link_peer;

enum link_state {
    LINK_DOWN,    /* not connected (yet): it is tried again every LINK_RETRY_MAX_MS at least */
    LINK_UP,      /* each has proved to the other that it knows the secret */
    LINK_REFUSED, /* somebody is there, but not with our secret (tried again all the same) */
};

/* Who sent a frame. Plain data: may be copied and kept, and answered as long as the connection
 * stands. */
struct link_from {
    link_peer peer;         /* the connection of ours that it answers on; 0: they came to us */
    char ip[LINK_IP_BYTES]; /* where they came from, without a port */
    uint8_t id_len, id[LINK_ID_BYTES];
};

/* A frame of LEN bytes, at most LIMIT_WIRE_BYTES, perhaps 0; DATA and FROM are lent for the call.
 * Any function of the link may be called from in here, but link_poll and link_close. */
typedef void link_receive(void *arg, const struct link_from *from, const uint8_t *data, size_t len);

/* PEER's state has changed to STATE. As above. */
typedef void link_changed(void *arg, link_peer peer, enum link_state state);

struct link_config {
    struct env *env;             /* its monotonic clock */
    const char *bind_address;    /* numeric "ip:port", "[v6]:port"; port 0: any free one */
    const struct secret *secret; /* copied; NULL: loopback only */
    link_receive *receive;
    link_changed *changed; /* may be NULL */
    void *arg;
};

/* Since the link was opened. What is dropped was never seen by `receive`. */
struct link_stats {
    uint64_t frames_in, bytes_in;
    uint64_t frames_out, bytes_out; /* taken to be sent; a connection that breaks may lose some */
    uint64_t full;                  /* sends that got ERR_FULL */
    uint64_t gone;                  /* sends that got ERR_CLOSED */
    uint64_t malformed;             /* dropped: in several parts, or from an impossible sender */
    /* Dropped: over LIMIT_WIRE_BYTES by a little. Much larger ones cost the sender its connection
     * before they are read. */
    uint64_t oversize;
    uint64_t knocks;   /* TCP connections made to us */
    uint64_t accepted; /* those of them whose handshake succeeded */
    /* Those that spoke our protocol, but not with our secret, and those that broke off in it. What
     * speaks something else only knocks. */
    uint64_t handshake_failures;
    uint64_t refused;                 /* of them: those that knew the way in, but are not let in */
    uint64_t connected, disconnected; /* our connections that came up, and that broke */
    uint64_t connect_failures;        /* attempts that did not come up */
};

/*
 * Listen. Without a secret, "any" addresses are narrowed to loopback (0.0.0.0 to 127.0.0.1, [::] to
 * [::1]: link_address tells) and others are ERR_PERMISSION. ERR_INVALID: not a numeric address;
 * ERR_IN_USE: the port is taken; ERR_UNSUPPORTED: a libzmq without CURVE; ERR_NO_MEMORY, ERR_FULL:
 * no more file descriptors, ERR_IO. MESSAGE (CAP bytes) then says what is wrong.
 */
int link_open(struct link **out, const struct link_config *config, char *message,
              size_t cap) MUST_CHECK;

/* Frames sent within the last moment get LINK_LINGER_MS to leave. NULL-safe; clears the pointer. */
void link_close(struct link **link);

/* The address listened on, "ip:port". Lent until the link is closed. */
const char *link_address(const struct link *link);

/*
 * The peer at ADDRESS (numeric, with a port); begins to connect where it is new, and from then on
 * connects again whenever the connection is lost. ERR_INVALID, ERR_RANGE: not an address that can
 * be connected to; ERR_PERMISSION: beyond loopback without a secret; ERR_FULL: LIMIT_LINK_PEERS.
 */
int link_peer_open(struct link *link, const char *address, link_peer *peer) MUST_CHECK;

/* Forget the peer, and what comes from it. One that is not known (any more) is fine. */
void link_peer_close(struct link *link, link_peer handle);

/* LINK_DOWN for one that is not known (any more). */
enum link_state link_peer_state(const struct link *link, link_peer handle);

/* The peer's address, canonical; "" for one that is not known. Lent until the peer is closed. */
const char *link_peer_address(const struct link *link, link_peer handle);

/*
 * Send LEN bytes of DATA, copied. ERR_CLOSED: not connected, or not known (any more); ERR_FULL:
 * LIMIT_LINK_BYTES_OUT or LIMIT_LINK_FRAMES_OUT wait to be sent to that peer already; ERR_TOO_BIG:
 * over LIMIT_WIRE_BYTES; ERR_NO_MEMORY. Nothing is queued then.
 */
int link_send(struct link *link, link_peer handle, const void *data, size_t len) MUST_CHECK;

/* The same, to whoever sent the frame that came with FROM, on the connection that it came by. */
int link_reply(struct link *link, const struct link_from *from, const void *data,
               size_t len) MUST_CHECK;

/*
 * Wait at most TIMEOUT_MS (0: not at all) for frames, and hand over those that are there, at most
 * LIMIT_LINK_BURST of each connection; let in who may come in; connect again what is due. Returns
 * the number of frames handed over, perhaps 0 before the time is over, or an error (ERR_IO) after
 * which the link does nothing more. Has to be called at least every second: handshakes need it.
 */
int link_poll(struct link *link, unsigned timeout_ms) MUST_CHECK;

/* Have the link_poll under way, or else the next one, return at once. Any thread. */
void link_wake(struct link *link);

/* Any thread; the counters are read one after the other. */
void link_stats(struct link *link, struct link_stats *out);

#endif
