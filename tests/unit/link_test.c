/* Goal: frames travel between holders of one secret, both ways, whole and in order; whoever does
 * not hold it gets nothing in or out; no peer, however slow, broken or hostile, stops the others or
 * makes a send wait. */
#include "cluster/link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#define DEADLINE_MS 20000
#define OLD         "an old secret of a cluster"
#define NEW         "a new secret of the cluster"
#define WRONG       "what another cluster holds"

/* A link, and what came in. */
struct node {
    struct link *link;
    struct secret secret;
    bool echo;        /* answers with the same bytes */
    link_peer closes; /* a peer to close when a frame comes in */
    size_t frames, len;
    bool in_order; /* frames that begin with a number count up from 0 */
    uint32_t next;
    struct link_from from;
    uint8_t data[LIMIT_WIRE_BYTES];
    enum link_state state; /* of whichever peer changed last */
    size_t changes;
    bool greets; /* sends a frame as soon as a peer is up */
};

static void received(void *arg, const struct link_from *from, const uint8_t *data, size_t len)
{
    struct node *node = arg;
    uint32_t number;

    assert_true(len <= LIMIT_WIRE_BYTES);
    node->frames++;
    node->from = *from;
    node->len = len;
    memcpy(node->data, data, len);
    if (len >= sizeof number) {
        memcpy(&number, data, sizeof number);
        node->in_order &= number == node->next++;
    }
    if (node->echo)
        assert_int_equal(link_reply(node->link, from, data, len), 0);
    if (node->closes)
        link_peer_close(node->link, node->closes);
}

static void changed(void *arg, link_peer peer, enum link_state state)
{
    struct node *node = arg;

    assert_int_equal(link_peer_state(node->link, peer), state);
    node->state = state;
    node->changes++;
    if (node->greets && state == LINK_UP)
        assert_int_equal(link_send(node->link, peer, "hello", 5), 0);
}

/* LINES: the text of a secret's file, NULL for none. */
static int try_start(struct node *node, const char *lines, const char *address)
{
    char message[256] = "";
    struct link_config config = {
        .env = env_system(),
        .bind_address = address,
        .secret = lines ? &node->secret : NULL,
        .receive = received,
        .changed = changed,
        .arg = node,
    };
    int rc;

    if (lines)
        assert_int_equal(secret_parse(&node->secret, lines, strlen(lines), message, sizeof message),
                         0);
    rc = link_open(&node->link, &config, message, sizeof message);
    assert_int_equal(!rc, !message[0]);
    return rc;
}

static struct node *start(const char *lines)
{
    struct node *node = calloc(1, sizeof *node);

    assert_non_null(node);
    node->in_order = true;
    assert_int_equal(try_start(node, lines, "127.0.0.1:0"), 0);
    return node;
}

static void stop(struct node **node)
{
    assert_non_null(*node);
    if (!*node) /* for static analysis, which does not know cmocka's assertions */
        return;
    link_close(&(*node)->link);
    assert_null((*node)->link);
    free(*node);
    *node = NULL;
}

static link_peer connect_to(struct node *node, const struct node *other)
{
    link_peer peer;

    assert_int_equal(link_peer_open(node->link, link_address(other->link), &peer), 0);
    assert_true(peer != 0);
    return peer;
}

/* Poll all NODES (NULL-terminated) in turn until CONDITION, which has to come true. */
#define UNTIL(condition, ...)                                                                      \
    do {                                                                                           \
        struct node *const until_nodes[] = {__VA_ARGS__, NULL};                                    \
        uint64_t until_end = env_mono_ms(env_system()) + DEADLINE_MS;                              \
        while (!(condition)) {                                                                     \
            poll_all(until_nodes);                                                                 \
            if (env_mono_ms(env_system()) > until_end)                                             \
                fail_msg("never came true: %s", #condition);                                       \
        }                                                                                          \
    } while (0)

/* Poll them once. */
#define POLL(...)                                                                                  \
    do {                                                                                           \
        struct node *const poll_nodes[] = {__VA_ARGS__, NULL};                                     \
        poll_all(poll_nodes);                                                                      \
    } while (0)

static void poll_all(struct node *const *nodes)
{
    for (; *nodes; nodes++)
        assert_true(link_poll((*nodes)->link, 2) >= 0);
}

static struct link_stats stats(const struct node *node)
{
    struct link_stats out;

    link_stats(node->link, &out);
    return out;
}

static bool is_up(const struct node *node, link_peer peer)
{
    return link_peer_state(node->link, peer) == LINK_UP;
}

static void frames_and_answers_travel_both_ways(void **state)
{
    const char *const secrets[] = {OLD, NULL};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct node *a = start(secrets[i]), *b = start(secrets[i]);
        link_peer to_b = connect_to(a, b), to_a = connect_to(b, a);

        b->echo = true;
        UNTIL(is_up(a, to_b) && is_up(b, to_a), a, b);
        assert_int_equal(link_send(a->link, to_b, "question", 8), 0);
        UNTIL(a->frames == 1, a, b);
        assert_int_equal(b->frames, 1);
        assert_int_equal(b->len, 8);
        assert_memory_equal(b->data, "question", 8);
        assert_int_equal(b->from.peer, 0);
        assert_string_equal(b->from.ip, "127.0.0.1");
        assert_memory_equal(a->data, "question", 8);
        assert_int_equal(a->from.peer, to_b);
        /* An answer can be answered, on the same connection. */
        assert_int_equal(link_reply(a->link, &a->from, "", 0), 0);
        UNTIL(a->frames == 2, a, b);
        assert_int_equal(a->len, 0);
        /* The other way is the other connection. */
        assert_int_equal(link_send(b->link, to_a, "back", 4), 0);
        UNTIL(a->frames == 3, a, b);
        assert_int_equal(a->from.peer, 0);
        assert_int_equal(stats(a).frames_in, 3);
        assert_int_equal(stats(a).bytes_in, 12);
        assert_int_equal(stats(a).frames_out, 2);
        assert_int_equal(stats(b).bytes_out, 12);
        assert_int_equal(stats(b).accepted, 1);
        assert_int_equal(stats(a).handshake_failures + stats(b).handshake_failures, 0);
        stop(&a), stop(&b);
    }
}

static void frames_arrive_whole_and_in_order(void **state)
{
    enum { COUNT = 3000 };
    struct node *a = start(OLD), *b = start(OLD);
    link_peer to_b = connect_to(a, b);
    uint8_t *data = calloc(1, LIMIT_WIRE_BYTES);

    (void)state;
    UNTIL(is_up(a, to_b), a, b);
    for (uint32_t i = 0; i < COUNT; i++) {
        size_t len = i % 50 ? sizeof i + i % 700 : LIMIT_WIRE_BYTES;

        memset(data, (int)i, len);
        memcpy(data, &i, sizeof i);
        UNTIL(link_send(a->link, to_b, data, len) == 0, a, b);
    }
    UNTIL(b->frames == COUNT, a, b);
    assert_true(b->in_order);
    assert_int_equal(b->len, sizeof(uint32_t) + (COUNT - 1) % 700);
    for (size_t i = sizeof(uint32_t); i < b->len; i++)
        assert_int_equal(b->data[i], (uint8_t)(COUNT - 1));
    assert_int_equal(stats(b).bytes_in, stats(a).bytes_out);
    free(data);
    stop(&a), stop(&b);
}

static void a_wrong_secret_gets_nothing_in_or_out(void **state)
{
    const struct {
        const char *client, *server;
    } cases[] = {{WRONG, OLD}, {WRONG "\n" NEW, OLD}, {NULL, OLD}, {OLD, NULL}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct node *a = start(cases[i].client), *b = start(cases[i].server),
                    *c = start(cases[i].server);
        link_peer to_b = connect_to(a, b), c_to_b = connect_to(c, b);

        UNTIL(link_peer_state(a->link, to_b) == LINK_REFUSED && stats(b).handshake_failures > 1, a,
              b, c);
        assert_int_equal(link_send(a->link, to_b, "x", 1), ERR_CLOSED);
        assert_true(stats(a).gone == 1 && stats(a).connect_failures > 0);
        assert_int_equal(stats(a).connected, 0);
        /* A member of the cluster gets through meanwhile. */
        UNTIL(is_up(c, c_to_b), a, b, c);
        assert_int_equal(link_send(c->link, c_to_b, "x", 1), 0);
        UNTIL(b->frames == 1, a, b, c);
        assert_int_equal(b->len, 1);
        assert_int_equal(stats(b).accepted, 1);
        stop(&a), stop(&b), stop(&c);
    }
}

/* Somebody with the server's public key, but without the client's private one. */
static void the_public_key_alone_does_not_let_anybody_in(void **state)
{
    struct node *b = start(OLD);
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    char endpoint[128], public[41], private[41];
    int linger = 0;

    (void)state;
    assert_int_equal(zmq_curve_keypair(public, private), 0);
    (void)zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, b->secret.lines[0].server_public,
                                    SECRET_KEY_BYTES),
                     0);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, public, 41), 0);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, private, 41), 0);
    (void)snprintf(endpoint, sizeof endpoint, "tcp://%s", link_address(b->link));
    assert_int_equal(zmq_connect(socket, endpoint), 0);
    assert_int_equal(zmq_send(socket, "let me in", 9, 0), 9);
    UNTIL(stats(b).refused > 0 && stats(b).handshake_failures > 0, b);
    assert_int_equal(b->frames, 0);
    assert_int_equal(stats(b).accepted, 0);
    assert_int_equal(zmq_close(socket), 0);
    assert_int_equal(zmq_ctx_term(context), 0);
    stop(&b);
}

/* The order in cluster/secret.h: nodes of two neighbouring steps reach each other, both ways. */
static void nodes_reach_each_other_in_every_step_of_a_change_of_secret(void **state)
{
    const char *const steps[] = {OLD, OLD "\n" NEW, NEW "\n" OLD, NEW};

    (void)state;
    for (int i = 0; i < 4; i++)
        for (int j = i; j < 4 && j <= i + 1; j++) {
            struct node *a = start(steps[i]), *b = start(steps[j]);
            link_peer to_b = connect_to(a, b), to_a = connect_to(b, a);

            a->echo = true;
            UNTIL(is_up(a, to_b) && is_up(b, to_a), a, b);
            assert_int_equal(link_send(b->link, to_a, "there and back", 14), 0);
            UNTIL(b->frames == 1, a, b);
            stop(&a), stop(&b);
        }
    /* The order matters: these do not. */
    struct node *a = start(OLD), *b = start(NEW "\n" OLD);
    link_peer to_b = connect_to(a, b), to_a = connect_to(b, a);
    UNTIL(link_peer_state(a->link, to_b) == LINK_REFUSED && is_up(b, to_a), a, b);
    stop(&a), stop(&b);
}

static int knock(const struct node *node)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    at.sin_port = htons((uint16_t)atoi(strrchr(link_address(node->link), ':') + 1));
    if (connect(fd, (struct sockaddr *)&at, sizeof at))
        assert_int_equal(errno, EINPROGRESS);
    return fd;
}

/* What a stranger without ZeroMQ can do: bytes of his choice, on a fresh connection whenever the
 * old one is closed. */
static void garbage_does_no_harm(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } openings[] = {
        {"", 0},
        {"GET / HTTP/1.1\r\n\r\n", 18},
        {"\x01\x00\x06\x00hello", 9}, /* ZMTP 1.0: no security at all */
        {"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x05\0\0\0\x05hello", 21}, /* ZMTP 2.0 */
        {"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 33},
        {"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00"
         "CURVE\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
         33},
    };
    struct node *a = start(OLD), *b = start(OLD);
    link_peer to_b = connect_to(a, b);
    uint8_t garbage[65536];
    size_t sent = 0, connections = 0, before;

    (void)state;
    b->echo = true;
    srand(1);
    UNTIL(is_up(a, to_b), a, b);
    while (sent < 10 * 1024 * 1024) {
        int fd = knock(b), i = (int)(connections++ % 6);
        size_t piece = 0;

        memcpy(garbage, openings[i].bytes, openings[i].len);
        for (size_t at = openings[i].len; at < sizeof garbage; at++)
            garbage[at] = (uint8_t)rand();
        /* Until it is cut off, or has had its share. */
        for (int tries = 0; tries < 100 && piece < sizeof garbage; tries++) {
            ssize_t wrote = send(fd, garbage + piece, sizeof garbage - piece, MSG_NOSIGNAL);

            if (wrote < 0 && errno != EAGAIN && errno != ENOTCONN)
                break;
            piece += wrote > 0 ? (size_t)wrote : 0;
            POLL(a, b);
        }
        sent += piece ? piece : sizeof garbage / 16;
        assert_int_equal(close(fd), 0);
        before = a->frames;
        assert_int_equal(link_send(a->link, to_b, "still here", 10), 0);
        UNTIL(a->frames == before + 1, a, b);
    }
    UNTIL(stats(b).knocks == 1 + connections && stats(b).handshake_failures >= connections / 6, a,
          b);
    assert_int_equal(stats(b).accepted, 1);
    assert_int_equal(b->frames, a->frames);
    assert_int_equal(stats(a).disconnected, 0);
    stop(&a), stop(&b);
}

/* --- misbehaving members -----------------------------------------------------------------------
 */

struct member {
    void *context, *socket;
};

/* A DEALER with the right keys, in nobody's control. */
static void be_member(struct member *member, const struct node *node, const char *routing_id)
{
    const struct secret_keys *keys = &node->secret.lines[0];
    char endpoint[128];
    int linger = 0;

    member->context = zmq_ctx_new();
    member->socket = zmq_socket(member->context, ZMQ_DEALER);
    (void)zmq_setsockopt(member->socket, ZMQ_LINGER, &linger, sizeof linger);
    (void)zmq_setsockopt(member->socket, ZMQ_CURVE_SERVERKEY, keys->server_public, 32);
    (void)zmq_setsockopt(member->socket, ZMQ_CURVE_PUBLICKEY, keys->client_public, 32);
    (void)zmq_setsockopt(member->socket, ZMQ_CURVE_SECRETKEY, keys->client_private, 32);
    if (routing_id)
        (void)zmq_setsockopt(member->socket, ZMQ_ROUTING_ID, routing_id, strlen(routing_id));
    (void)snprintf(endpoint, sizeof endpoint, "tcp://%s", link_address(node->link));
    assert_int_equal(zmq_connect(member->socket, endpoint), 0);
}

static void end_member(struct member *member)
{
    assert_int_equal(zmq_close(member->socket), 0);
    assert_int_equal(zmq_ctx_term(member->context), 0);
}

static void messages_in_parts_are_dropped_and_counted(void **state)
{
    struct node *b = start(OLD);
    struct member member;

    (void)state;
    be_member(&member, b, NULL);
    assert_int_equal(zmq_send(member.socket, "first", 5, ZMQ_SNDMORE), 5);
    assert_int_equal(zmq_send(member.socket, "second", 6, 0), 6);
    assert_int_equal(zmq_send(member.socket, "", 0, ZMQ_SNDMORE), 0);
    assert_int_equal(zmq_send(member.socket, "", 0, ZMQ_SNDMORE), 0);
    assert_int_equal(zmq_send(member.socket, "third", 5, 0), 5);
    assert_int_equal(zmq_send(member.socket, "whole", 5, 0), 5);
    UNTIL(b->frames == 1, b);
    assert_memory_equal(b->data, "whole", 5);
    assert_int_equal(stats(b).malformed, 2);
    end_member(&member);
    stop(&b);
}

static void a_name_too_long_to_answer_is_dropped_and_counted(void **state)
{
    struct node *b = start(OLD);
    struct member member;

    (void)state;
    be_member(&member, b, "seventeen letters");
    assert_int_equal(zmq_send(member.socket, "a", 1, 0), 1);
    UNTIL(stats(b).malformed == 1, b);
    assert_int_equal(b->frames, 0);
    end_member(&member);
    be_member(&member, b, "sixteen letters!");
    b->echo = true;
    assert_int_equal(zmq_send(member.socket, "b", 1, 0), 1);
    UNTIL(b->frames == 1, b);
    end_member(&member);
    be_member(&member, b, "1");
    assert_int_equal(zmq_send(member.socket, "c", 1, 0), 1);
    UNTIL(b->frames == 2, b);
    end_member(&member);
    stop(&b);
}

static void frames_over_the_limit_are_not_read(void **state)
{
    struct node *a = start(OLD), *b = start(OLD);
    link_peer to_b = connect_to(a, b);
    uint8_t *large = calloc(1, 2 * LIMIT_WIRE_BYTES);
    struct member member;

    (void)state;
    UNTIL(is_up(a, to_b), a, b);
    assert_int_equal(link_send(a->link, to_b, large, LIMIT_WIRE_BYTES + 1), ERR_TOO_BIG);
    be_member(&member, b, NULL);
    assert_int_equal(zmq_send(member.socket, large, LIMIT_WIRE_BYTES + 1, 0), LIMIT_WIRE_BYTES + 1);
    UNTIL(stats(b).oversize == 1, a, b);
    assert_int_equal(stats(b).accepted, 2);
    /* A really large one costs the connection: the member's socket makes another one. */
    assert_int_equal(zmq_send(member.socket, large, 2 * LIMIT_WIRE_BYTES, 0), 2 * LIMIT_WIRE_BYTES);
    UNTIL(stats(b).accepted == 3, a, b);
    assert_int_equal(zmq_send(member.socket, "small", 5, 0), 5);
    UNTIL(b->frames == 1, a, b);
    assert_int_equal(b->len, 5);
    assert_int_equal(stats(b).bytes_in, 5);
    assert_true(is_up(a, to_b));
    end_member(&member);
    free(large);
    stop(&a), stop(&b);
}

static void sends_to_whoever_does_not_read_are_refused_not_queued(void **state)
{
    enum { LEN = 64 * 1024 };
    struct node *a = start(OLD), *b = start(OLD), *c = start(OLD);
    link_peer to_b = connect_to(a, b), to_c = connect_to(a, c);
    uint8_t *data = calloc(1, LEN);
    size_t sent = 0;
    int rc;

    (void)state;
    UNTIL(is_up(a, to_b) && is_up(a, to_c), a, b, c);
    /* B polls no more. What is under way to it fills: our queue, its queue, the sockets' buffers.
     */
    uint64_t end = env_mono_ms(env_system()) + DEADLINE_MS, full = 0;
    do {
        rc = link_send(a->link, to_b, data, LEN);
        sent += rc == 0 ? LEN : 0;
        full = rc ? full + 1 : 0;
        assert_true(rc == 0 || rc == ERR_FULL);
        POLL(a, c);
        assert_true(link_poll(a->link, 2) >= 0);
    } while (full < 50 && env_mono_ms(env_system()) < end);
    assert_int_equal(full, 50);
    assert_true(stats(a).full >= 50);
    /* Beyond our bound: what the sockets' buffers and B's queue hold. */
    assert_in_range(sent, LIMIT_LINK_BYTES_OUT, LIMIT_LINK_BYTES_OUT + 32 * MIB);
    /* Another peer does not notice. */
    assert_int_equal(link_send(a->link, to_c, "x", 1), 0);
    UNTIL(c->frames == 1, a, c);
    /* What was taken is there when B wakes up, and there is room again. */
    UNTIL(b->frames == sent / LEN, a, b, c);
    UNTIL(link_send(a->link, to_b, "x", 1) == 0, a, b, c);
    free(data);
    stop(&a), stop(&b), stop(&c);
}

static void answers_to_whoever_does_not_read_are_refused_not_queued(void **state)
{
    enum { LEN = 64 * 1024 };
    struct node *a = start(OLD), *b = start(OLD), *c = start(OLD);
    link_peer b_to_a = connect_to(b, a), c_to_a = connect_to(c, a);
    uint8_t *data = calloc(1, LEN);
    struct link_from from;
    size_t full = 0;
    int rc;

    (void)state;
    UNTIL(is_up(b, b_to_a) && is_up(c, c_to_a), a, b, c);
    assert_int_equal(link_send(b->link, b_to_a, "ask", 3), 0);
    UNTIL(a->frames == 1, a, b, c);
    from = a->from;
    uint64_t end = env_mono_ms(env_system()) + DEADLINE_MS;
    while (full < 50 && env_mono_ms(env_system()) < end) {
        rc = link_reply(a->link, &from, data, LEN);
        full = rc ? full + 1 : 0;
        assert_true(rc == 0 || rc == ERR_FULL);
        assert_true(link_poll(a->link, 2) >= 0);
    }
    assert_int_equal(full, 50);
    assert_in_range(stats(a).bytes_out, LIMIT_LINK_BYTES_OUT, LIMIT_LINK_BYTES_OUT + 32 * MIB);
    a->echo = true;
    assert_int_equal(link_send(c->link, c_to_a, "me", 2), 0);
    UNTIL(c->frames == 1, a, c);
    /* Answers to one that has gone are an error, not an abort. */
    stop(&b);
    UNTIL((rc = link_reply(a->link, &from, data, LEN)) == ERR_CLOSED, a, c);
    assert_true(stats(a).gone >= 1);
    free(data);
    stop(&a), stop(&c);
}

static void small_frames_are_bounded_in_number(void **state)
{
    struct node *a = start(OLD), *b = start(OLD);
    link_peer to_b = connect_to(a, b);
    int rc = 0;

    (void)state;
    UNTIL(is_up(a, to_b), a, b);
    /* The bytes come nowhere near their bound; the sockets' buffers hold some. */
    for (size_t i = 0; i < 64 * MIB && rc == 0; i++)
        rc = link_send(a->link, to_b, "", 0);
    assert_int_equal(rc, ERR_FULL);
    UNTIL(b->frames == stats(a).frames_out, a, b);
    /* Answers, too; and when they have been read, there is room again. */
    rc = 0;
    for (size_t i = 0; i < 64 * MIB && rc == 0; i++)
        rc = link_reply(b->link, &b->from, "", 0);
    assert_int_equal(rc, ERR_FULL);
    UNTIL(link_reply(b->link, &b->from, "last", 4) == 0, a, b);
    UNTIL(a->len == 4, a, b);
    assert_int_equal(a->frames, stats(b).frames_out);
    stop(&a), stop(&b);
}

/* --- comings and goings ------------------------------------------------------------------------
 */

static void a_peer_that_restarts_under_its_address_is_found_again(void **state)
{
    struct node *a = start(OLD), *b = start(OLD);
    char address[LINK_ADDRESS_BYTES];
    link_peer to_b = connect_to(a, b);

    (void)state;
    (void)snprintf(address, sizeof address, "%s", link_address(b->link));
    for (int i = 0; i < 3; i++) {
        UNTIL(is_up(a, to_b), a, b);
        assert_int_equal(link_send(a->link, to_b, "x", 1), 0);
        UNTIL(b->frames == 1, a, b);
        stop(&b);
        UNTIL(!is_up(a, to_b), a);
        assert_int_equal(a->state, LINK_DOWN);
        assert_int_equal(link_send(a->link, to_b, "x", 1), ERR_CLOSED);
        b = calloc(1, sizeof *b);
        /* It may come back with its secret changed, too. */
        assert_int_equal(try_start(b, i == 1 ? WRONG : OLD, address), 0);
        if (i == 1) {
            UNTIL(link_peer_state(a->link, to_b) == LINK_REFUSED, a, b);
            stop(&b);
            UNTIL(link_peer_state(a->link, to_b) == LINK_DOWN, a);
            b = calloc(1, sizeof *b);
            assert_int_equal(try_start(b, OLD, address), 0);
        }
    }
    UNTIL(is_up(a, to_b), a, b);
    assert_int_equal(stats(a).connected, 4);
    assert_int_equal(stats(a).disconnected, 3);
    stop(&a), stop(&b);
}

static void a_peer_may_come_after_it_was_asked_for(void **state)
{
    struct node *a = start(OLD), *b = start(OLD);
    char address[LINK_ADDRESS_BYTES];
    link_peer to_b;

    (void)state;
    (void)snprintf(address, sizeof address, "%s", link_address(b->link));
    stop(&b);
    assert_int_equal(link_peer_open(a->link, address, &to_b), 0);
    UNTIL(stats(a).connect_failures >= 3, a);
    assert_int_equal(link_peer_state(a->link, to_b), LINK_DOWN);
    assert_int_equal(a->changes, 0);
    b = calloc(1, sizeof *b);
    assert_int_equal(try_start(b, OLD, address), 0);
    UNTIL(is_up(a, to_b), a, b);
    assert_int_equal(a->changes, 1);
    stop(&a), stop(&b);
}

/* A program that accepts and says nothing, or closes at once. */
static void a_listener_that_is_no_node_is_given_up_and_tried_again(void **state)
{
    struct node *a = start(OLD);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), accepted, closed = 0;
    char address[64];
    link_peer peer;

    (void)state;
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    (void)snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(at.sin_port));
    assert_int_equal(link_peer_open(a->link, address, &peer), 0);
    while (closed < 3) {
        UNTIL((accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0, a);
        if (closed == 1) /* no ZMTP, and for libzmq a reason never to come again */
            (void)!write(accepted,
                         "\xff\0\0\0\0\0\0\0\x01\x7f\x03\0PLAIN\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                         "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                         64);
        else
            assert_int_equal(close(accepted), 0);
        closed++;
        UNTIL(stats(a).connect_failures >= (uint64_t)closed, a);
        if (closed == 2)
            assert_int_equal(close(accepted), 0);
    }
    assert_int_equal(link_peer_state(a->link, peer), LINK_REFUSED);
    assert_int_equal(close(fd), 0);
    stop(&a);
}

static size_t count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    assert_int_equal(closedir(dir), 0);
    return count;
}

static void peers_that_come_and_go_leave_nothing_behind(void **state)
{
    enum { ROUNDS = 60, FRAMES = 50 };
    size_t before = count_fds(), settled = 0;
    struct node *a = start(OLD), *b = start(OLD);
    link_peer last = 0;

    (void)state;
    for (int i = 0; i < ROUNDS; i++) {
        link_peer peer = connect_to(a, b);

        assert_true(peer != last);
        assert_int_equal(connect_to(a, b), peer);
        assert_int_equal(link_peer_state(a->link, last), LINK_DOWN);
        assert_string_equal(link_peer_address(a->link, last), "");
        assert_string_equal(link_peer_address(a->link, peer), link_address(b->link));
        if (i % 2) {
            UNTIL(is_up(a, peer), a, b);
            for (int frame = 0; frame < FRAMES; frame++)
                assert_int_equal(link_send(a->link, peer, "x", 1), 0);
        }
        link_peer_close(a->link, peer);
        link_peer_close(a->link, peer);
        assert_int_equal(link_send(a->link, peer, "x", 1), ERR_CLOSED);
        last = peer;
        if (i == 3) {
            UNTIL(b->frames == 2 * FRAMES, a, b);
            settled = count_fds();
        }
    }
    UNTIL(b->frames == ROUNDS / 2 * FRAMES, a, b); /* sent just before the close, and yet arrived */
    UNTIL(count_fds() <= settled, a, b);
    stop(&a), stop(&b);
    assert_int_equal(count_fds(), before);
}

/* Up is up: the first frame is taken in the callback that says so. */
static void a_peer_can_be_sent_to_as_soon_as_it_is_up(void **state)
{
    enum { ROUNDS = 100 };
    struct node *a = start(OLD), *b = start(OLD);

    (void)state;
    a->greets = true;
    for (size_t i = 1; i <= ROUNDS; i++) {
        link_peer peer = connect_to(a, b);

        UNTIL(b->frames == i, a, b);
        link_peer_close(a->link, peer);
    }
    stop(&a), stop(&b);
}

static void peers_are_limited(void **state)
{
    struct node *a = start(OLD);
    char address[64];
    link_peer peer, first = 0;

    (void)state;
    /* A port that nobody listens on. */
    for (unsigned i = 0; i <= LIMIT_LINK_PEERS; i++) {
        (void)snprintf(address, sizeof address, "127.0.%u.%u:1", i / 200, i % 200 + 1);
        assert_int_equal(link_peer_open(a->link, address, &peer),
                         i < LIMIT_LINK_PEERS ? 0 : ERR_FULL);
        first = i ? first : peer;
    }
    UNTIL(stats(a).connect_failures > LIMIT_LINK_PEERS, a);
    link_peer_close(a->link, first);
    assert_int_equal(link_peer_open(a->link, address, &peer), 0);
    stop(&a);
}

static void a_peer_may_be_closed_by_the_frame_that_it_sent(void **state)
{
    struct node *a = start(OLD), *b = start(OLD);
    link_peer to_b = connect_to(a, b);

    (void)state;
    b->echo = true;
    UNTIL(is_up(a, to_b), a, b);
    a->closes = to_b;
    for (int i = 0; i < 10; i++)
        assert_int_equal(link_send(a->link, to_b, "x", 1), 0);
    UNTIL(a->frames == 1 && b->frames == 10, a, b);
    for (int i = 0; i < 10; i++)
        POLL(a, b);
    assert_int_equal(link_poll(a->link, 20), 0);
    assert_int_equal(a->frames, 1);
    stop(&a), stop(&b);
}

/* --- addresses ---------------------------------------------------------------------------------
 */

static void addresses_have_one_spelling(void **state)
{
    static const struct {
        const char *text, *canonical;
        bool v6, loopback, any;
    } good[] = {
        {"127.0.0.1:1", "127.0.0.1:1", false, true, false},
        {"127.9.0.1:65535", "127.9.0.1:65535", false, true, false},
        {"128.0.0.1:80", "128.0.0.1:80", false, false, false},
        {"0.0.0.0:0", "0.0.0.0:0", false, false, true},
        {"[::]:10", "[::]:10", true, false, true},
        {"[0:0::1]:010", "[::1]:10", true, true, false},
        {"[FE80::A]:7", "[fe80::a]:7", true, false, false},
        {"[::ffff:127.0.0.1]:7", "[::ffff:127.0.0.1]:7", true, true, false},
        {"[::ffff:10.0.0.1]:7", "[::ffff:10.0.0.1]:7", true, false, false},
    };
    static const char *const bad[] = {
        "",
        ":",
        ":1",
        "[]:1",
        "[",
        "]",
        "[:",
        "1",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:-1",
        "127.0.0.1:1 ",
        "::1:1",
        "[::1]",
        "[::1]1",
        "[::1]:",
        "[::1:1",
        "[127.0.0.1]:1",
        "localhost:1",
        "*:1",
        "a.example:1",
        "127.0.0.1:1:1",
        "[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]:1",
    };
    struct link_address at;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(link_address_parse(&at, good[i].text), 0);
        assert_string_equal(at.text, good[i].canonical);
        assert_int_equal(at.v6, good[i].v6);
        assert_int_equal(at.loopback, good[i].loopback);
        assert_int_equal(at.any, good[i].any);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(link_address_parse(&at, bad[i]), ERR_INVALID);
    assert_int_equal(link_address_parse(&at, "127.0.0.1:65536"), ERR_RANGE);
    assert_true(link_ip_is_loopback("127.1.2.3") && link_ip_is_loopback("::1"));
    assert_true(link_ip_is_loopback("::ffff:127.0.0.1"));
    assert_false(link_ip_is_loopback("10.0.0.1") || link_ip_is_loopback("::ffff:10.0.0.1"));
    assert_false(link_ip_is_loopback("") || link_ip_is_loopback("localhost"));
    assert_string_equal(link_ip_plain("::ffff:10.0.0.1"), "10.0.0.1");
    assert_string_equal(link_ip_plain("::ffff:a"), "::ffff:a");
    assert_string_equal(link_ip_plain("fe80::1"), "fe80::1");
}

static void without_a_secret_all_is_loopback(void **state)
{
    struct node *a = calloc(1, sizeof *a);
    link_peer peer;

    (void)state;
    assert_int_equal(try_start(a, NULL, "192.0.2.1:0"), ERR_PERMISSION);
    assert_int_equal(try_start(a, NULL, "0.0.0.0:0"), 0);
    assert_memory_equal(link_address(a->link), "127.0.0.1:", 10);
    assert_int_equal(link_peer_open(a->link, "192.0.2.1:10998", &peer), ERR_PERMISSION);
    assert_int_equal(link_peer_open(a->link, "127.0.0.1:0", &peer), ERR_INVALID);
    assert_int_equal(link_peer_open(a->link, "0.0.0.0:1", &peer), ERR_INVALID);
    assert_int_equal(link_peer_open(a->link, "localhost:1", &peer), ERR_INVALID);
    assert_int_equal(link_peer_open(a->link, "127.0.0.1:65536", &peer), ERR_RANGE);
    stop(&a);
}

static void a_listener_that_cannot_be_says_why(void **state)
{
    struct node *a = start(OLD), *b = calloc(1, sizeof *b);

    (void)state;
    assert_int_equal(try_start(b, OLD, link_address(a->link)), ERR_IN_USE);
    assert_int_equal(try_start(b, OLD, "192.0.2.1:0"), ERR_INVALID); /* not this machine's */
    assert_int_equal(try_start(b, OLD, "localhost:0"), ERR_INVALID);
    assert_int_equal(try_start(b, OLD, "127.0.0.1:99999"), ERR_RANGE);
    assert_null(b->link);
    free(b);
    stop(&a);
}

static bool has_ipv6(void)
{
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;

    if (fd >= 0)
        (void)close(fd);
    return has;
}

static void both_families_reach_a_listener_on_all_addresses(void **state)
{
    struct node *a = start(OLD), *b = calloc(1, sizeof *b);
    const char *const hosts[] = {"127.0.0.1", "[::1]"}, *const ips[] = {"127.0.0.1", "::1"};

    (void)state;
    if (!has_ipv6()) {
        free(b);
        stop(&a);
        skip();
        return;
    }
    assert_int_equal(try_start(b, OLD, "[::]:0"), 0);
    for (int i = 0; i < 2; i++) {
        char address[64];
        link_peer peer;

        (void)snprintf(address, sizeof address, "%s%s", hosts[i],
                       strrchr(link_address(b->link), ':'));
        assert_int_equal(link_peer_open(a->link, address, &peer), 0);
        UNTIL(is_up(a, peer), a, b);
        assert_int_equal(link_send(a->link, peer, "x", 1), 0);
        UNTIL(b->frames == (size_t)i + 1, a, b);
        assert_string_equal(b->from.ip, ips[i]);
    }
    stop(&b);
    b = calloc(1, sizeof *b);
    assert_int_equal(try_start(b, NULL, "[::]:0"), 0);
    assert_memory_equal(link_address(b->link), "[::1]:", 6);
    stop(&a), stop(&b);
}

/* An address of this machine that is not loopback; false where it has none. */
static bool find_own_ip(char out[INET_ADDRSTRLEN])
{
    struct ifaddrs *all = NULL;
    bool found = false;

    if (getifaddrs(&all))
        return false;
    for (struct ifaddrs *each = all; each && !found; each = each->ifa_next)
        if (each->ifa_addr && each->ifa_addr->sa_family == AF_INET &&
            !(each->ifa_flags & IFF_LOOPBACK))
            found = inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)each->ifa_addr)->sin_addr,
                              out, INET_ADDRSTRLEN);
    freeifaddrs(all);
    return found;
}

/* Listening on loopback keeps out who is elsewhere; who is here can still come with another
 * address. */
static void without_a_secret_other_addresses_are_refused(void **state)
{
    struct node *b = start(NULL);
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    char ip[INET_ADDRSTRLEN], endpoint[128];
    int linger = 0;
    bool found = find_own_ip(ip);

    (void)state;
    (void)zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    if (found) {
        (void)snprintf(endpoint, sizeof endpoint, "tcp://%s:0;%s", ip, link_address(b->link));
        assert_int_equal(zmq_connect(socket, endpoint), 0);
        assert_int_equal(zmq_send(socket, "x", 1, 0), 1);
        UNTIL(stats(b).refused > 0, b);
        assert_int_equal(b->frames, 0);
        assert_int_equal(stats(b).accepted, 0);
    }
    assert_int_equal(zmq_close(socket), 0);
    assert_int_equal(zmq_ctx_term(context), 0);
    stop(&b);
    if (!found)
        skip();
}

/* --- waking ------------------------------------------------------------------------------------
 */

#define WAKES 2000

static _Atomic unsigned asked;

static void *wake(void *arg)
{
    for (unsigned i = 0; i < WAKES; i++) {
        asked++;
        link_wake(arg);
    }
    return NULL;
}

/* A poll that has all the time, and is woken before. */
static void is_woken(const struct node *node)
{
    uint64_t end = env_mono_ms(env_system()) + DEADLINE_MS;

    assert_int_equal(link_poll(node->link, DEADLINE_MS), 0);
    assert_true(env_mono_ms(env_system()) < end);
}

static void another_thread_wakes_a_poll(void **state)
{
    struct node *a = start(OLD);
    unsigned seen = 0;
    pthread_t thread;

    (void)state;
    /* One that came before counts, and counts once. */
    link_wake(a->link);
    link_wake(a->link);
    is_woken(a);
    uint64_t begin = env_mono_ms(env_system());
    assert_int_equal(link_poll(a->link, 20), 0);
    assert_true(env_mono_ms(env_system()) - begin >= 19);
    assert_int_equal(pthread_create(&thread, NULL, wake, a->link), 0);
    /* None is lost: after the last there is no other to end this poll. */
    while (seen < WAKES) {
        is_woken(a);
        seen = asked;
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    stop(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_and_answers_travel_both_ways),
        cmocka_unit_test(frames_arrive_whole_and_in_order),
        cmocka_unit_test(a_wrong_secret_gets_nothing_in_or_out),
        cmocka_unit_test(the_public_key_alone_does_not_let_anybody_in),
        cmocka_unit_test(nodes_reach_each_other_in_every_step_of_a_change_of_secret),
        cmocka_unit_test(garbage_does_no_harm),
        cmocka_unit_test(messages_in_parts_are_dropped_and_counted),
        cmocka_unit_test(a_name_too_long_to_answer_is_dropped_and_counted),
        cmocka_unit_test(frames_over_the_limit_are_not_read),
        cmocka_unit_test(sends_to_whoever_does_not_read_are_refused_not_queued),
        cmocka_unit_test(answers_to_whoever_does_not_read_are_refused_not_queued),
        cmocka_unit_test(small_frames_are_bounded_in_number),
        cmocka_unit_test(a_peer_that_restarts_under_its_address_is_found_again),
        cmocka_unit_test(a_peer_may_come_after_it_was_asked_for),
        cmocka_unit_test(a_listener_that_is_no_node_is_given_up_and_tried_again),
        cmocka_unit_test(peers_that_come_and_go_leave_nothing_behind),
        cmocka_unit_test(a_peer_can_be_sent_to_as_soon_as_it_is_up),
        cmocka_unit_test(peers_are_limited),
        cmocka_unit_test(a_peer_may_be_closed_by_the_frame_that_it_sent),
        cmocka_unit_test(addresses_have_one_spelling),
        cmocka_unit_test(without_a_secret_all_is_loopback),
        cmocka_unit_test(a_listener_that_cannot_be_says_why),
        cmocka_unit_test(both_families_reach_a_listener_on_all_addresses),
        cmocka_unit_test(without_a_secret_other_addresses_are_refused),
        cmocka_unit_test(another_thread_wakes_a_poll),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
