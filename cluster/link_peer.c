/*
 * The connections that we make: one DEALER for each peer, made again whenever it is lost.
 *
 * libzmq could reconnect by itself, but it gives a connection up for good after some protocol
 * errors, and it cannot change keys between attempts, which changing the secret needs. So a DEALER
 * lives for one attempt (ZMQ_RECONNECT_IVL -1), its monitor tells how that goes, and what follows
 * is ours:
 *
 *     state of a peer   socket   left when
 *     waiting           none     its time has come: a socket is made, and connects
 *     connecting        yes      handshake succeeded → up; it failed, the connection was refused,
 * or no word for ATTEMPT_MS → waiting up (LINK_UP)      yes      disconnected → waiting
 *
 * After a handshake that failed the next attempt uses the secret's other line, where there is one,
 * after the shortest delay; the delay doubles with each round of failures. A line that worked stays
 * the first to be tried.
 */
#include "cluster/link_internal.h"

#include "cluster/link_gate.h"

#include <assert.h>
#include <string.h>
#include <zmq.h>

#define CONNECT_MS  3000
#define ATTEMPT_MS  (CONNECT_MS + LINK_HANDSHAKE_MS + 2000)
#define PEER_EVENTS 64
#define DEALER_EVENTS                                                                              \
    (LINK_HANDSHAKE_FAILED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |              \
     ZMQ_EVENT_CLOSED)

static uint64_t now_ms(const struct link *link)
{
    return env_mono_ms(link->env);
}

static bool set_dealer(const struct link *link, void *socket, unsigned line)
{
    const struct secret_keys *keys = &link->secret.lines[line];

    if (!link_set(socket, ZMQ_IMMEDIATE, 1) || !link_set(socket, ZMQ_RECONNECT_IVL, -1) ||
        !link_set(socket, ZMQ_CONNECT_TIMEOUT, CONNECT_MS))
        return false;
    return !link->secret.count || (link_set_key(socket, ZMQ_CURVE_SERVERKEY, keys->server_public) &&
                                   link_set_key(socket, ZMQ_CURVE_PUBLICKEY, keys->client_public) &&
                                   link_set_key(socket, ZMQ_CURVE_SECRETKEY, keys->client_private));
}

struct peer *link_peer_find(const struct link *link, link_peer handle)
{
    const struct peer *peer = &link->peers[handle % LIMIT_LINK_PEERS];

    return handle && peer->handle == handle ? (struct peer *)peer : NULL;
}

static void become(struct link *link, struct peer *peer, enum link_state state)
{
    bool news = peer->state != state;

    peer->state = state;
    if (news && link->changed)
        link->changed(link->arg, peer->handle, state);
}

/* The attempt or the connection is over. */
static void lose(struct link *link, struct peer *peer, bool refused)
{
    bool was_up = peer->state == LINK_UP;
    bool other_line = false;

    link_close_pair(&peer->socket, &peer->monitor);
    link_count(was_up ? &link->count.disconnected : &link->count.connect_failures, 1);
    if (refused && link->secret.count == SECRET_LINES) {
        peer->line = 1 - peer->line;
        peer->lines_refused++;
        other_line = peer->lines_refused % SECRET_LINES != 0;
    } else {
        peer->lines_refused = 0;
    }
    if (was_up || peer->delay_ms == 0)
        peer->delay_ms = LINK_RETRY_MIN_MS;
    else if (!other_line)
        peer->delay_ms =
            2 * peer->delay_ms < LINK_RETRY_MAX_MS ? 2 * peer->delay_ms : LINK_RETRY_MAX_MS;
    peer->due_ms = now_ms(link) + (other_line ? LINK_RETRY_MIN_MS : peer->delay_ms);
    if (!other_line)
        become(link, peer, refused ? LINK_REFUSED : LINK_DOWN);
}

static void attempt(struct link *link, struct peer *peer)
{
    char endpoint[LINK_ENDPOINT_BYTES];

    assert(!peer->socket && !peer->monitor && peer->state != LINK_UP);
    link_endpoint(endpoint, peer->address.text);
    peer->socket = zmq_socket(link->context, ZMQ_DEALER);
    if (peer->socket && link_set_common(peer->socket, peer->address.v6) &&
        set_dealer(link, peer->socket, peer->line))
        peer->monitor = link_monitor_open(link->context, peer->socket, link->serial++,
                                          DEALER_EVENTS, PEER_EVENTS);
    if (!peer->monitor || zmq_connect(peer->socket, endpoint)) {
        lose(link, peer, false);
        return;
    }
    peer->due_ms = now_ms(link) + ATTEMPT_MS;
}

int link_peer_open(struct link *link, const char *address, link_peer *peer)
{
    struct link_address at;
    struct peer *found = NULL;
    int rc = link_address_parse(&at, address);

    if (rc)
        return rc;
    if (at.any || at.port == 0)
        return ERR_INVALID;
    if (!link->secret.count && !at.loopback)
        return ERR_PERMISSION;
    for (size_t i = LIMIT_LINK_PEERS; i-- > 0;) {
        struct peer *each = &link->peers[i];

        if (each->handle && !strcmp(each->address.text, at.text)) {
            *peer = each->handle;
            return 0;
        }
        if (!each->handle)
            found = each;
    }
    if (!found)
        return ERR_FULL;
    link->generation = link->generation % (UINT32_MAX / LIMIT_LINK_PEERS - 1) + 1;
    found->handle =
        (link_peer)(link->generation * LIMIT_LINK_PEERS + (size_t)(found - link->peers));
    found->address = at;
    found->state = LINK_DOWN;
    found->line = found->lines_refused = found->delay_ms = 0;
    *peer = found->handle;
    attempt(link, found);
    return 0;
}

void link_peer_close(struct link *link, link_peer handle)
{
    struct peer *peer = link_peer_find(link, handle);

    if (!peer)
        return;
    link_close_pair(&peer->socket, &peer->monitor);
    peer->state = LINK_DOWN;
    peer->handle = 0; /* `queued` stays: frames may still be on their way out */
}

enum link_state link_peer_state(const struct link *link, link_peer handle)
{
    const struct peer *peer = link_peer_find(link, handle);

    return peer ? peer->state : LINK_DOWN;
}

const char *link_peer_address(const struct link *link, link_peer handle)
{
    const struct peer *peer = link_peer_find(link, handle);

    return peer ? peer->address.text : "";
}

/* What the monitor tells about one of our connections. */
void link_peer_follow(struct link *link, link_peer handle)
{
    for (int i = 0; i < PEER_EVENTS; i++) {
        struct peer *peer = link_peer_find(link, handle);
        int event = peer && peer->monitor ? link_monitor_next(peer->monitor) : 0;

        if (!event)
            return;
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            link_count(&link->count.connected, 1);
            peer->delay_ms = peer->lines_refused = 0;
            become(link, peer, LINK_UP);
        } else {
            lose(link, peer, event & LINK_HANDSHAKE_FAILED);
        }
    }
}

/* Do what is due; the time until something else is, at most TIMEOUT_MS. */
unsigned link_peers_tick(struct link *link, unsigned timeout_ms)
{
    uint64_t now = now_ms(link);

    for (size_t i = 0; i < LIMIT_LINK_PEERS; i++) {
        struct peer *peer = &link->peers[i];

        if (!peer->handle || peer->state == LINK_UP)
            continue;
        if (peer->due_ms <= now) {
            if (peer->socket)
                lose(link, peer, false);
            else
                attempt(link, peer);
        }
        /* `changed` may have closed it. */
        if (peer->handle && peer->due_ms < now + timeout_ms)
            timeout_ms = peer->due_ms > now ? (unsigned)(peer->due_ms - now) : 0;
    }
    return timeout_ms;
}
