/*
 * The server: its listeners, the sharing out of connections, draining, and the sums of statistics.
 *
 * Loop 0 accepts, and mails each connection to the loop that has fewest (SO_REUSEPORT's hash would
 * leave loops idle while others have two). When the process has no file descriptor left, a spare
 * one is closed to accept and drop the waiting client, who would otherwise keep the listener
 * readable for ever; without even that the listeners rest for a moment.
 */
#include "api/http/http_internal.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ACCEPT_REST_MS 100

const uint32_t http_latency_bounds_us[HTTP_LATENCY_BUCKETS - 1] = {
    50,    100,   250,    500,    1000,   2500,    5000,   10000,
    25000, 50000, 100000, 250000, 500000, 1000000, 5000000};

/* ---- Accepting ---- */

static bool is_loopback(const struct sockaddr_storage *peer)
{
    if (peer->ss_family == AF_UNIX)
        return true;
    if (peer->ss_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)peer)->sin_addr.s_addr) >> 24 == 127;
    if (peer->ss_family == AF_INET6) {
        const struct in6_addr *addr = &((const struct sockaddr_in6 *)peer)->sin6_addr;

        return IN6_IS_ADDR_LOOPBACK(addr) ||
               (IN6_IS_ADDR_V4MAPPED(addr) && addr->s6_addr[12] == 127);
    }
    return false;
}

/* The loop with fewest connections; *TOTAL of all. */
static struct loop *least_loaded(struct http_server *server, unsigned *total)
{
    struct loop *least = NULL;
    unsigned fewest = UINT32_MAX;

    *total = 0;
    for (unsigned i = 0; i < server->workers; i++) {
        unsigned n = atomic_load_explicit(&server->loops[i].connections, memory_order_relaxed);

        *total += n;
        if (n < fewest) {
            fewest = n;
            least = &server->loops[i];
        }
    }
    assert(least);
    return least;
}

/* Hand the accepted socket FD to a loop. */
static void admit(struct listener *listener, struct http_server *server, int fd, bool loopback)
{
    struct loop_stats *stats = &server->loops[0].stats;
    struct conn *conn;
    unsigned total;
    struct loop *loop = least_loaded(server, &total);
    bool full = total >= server->config.max_connections;

    if (full)
        stat_add(&stats->refused, 1);
    else
        stat_add(&stats->accepted, 1);
    conn = full && total >= server->config.max_connections + MAX_POLITE_REFUSALS
               ? NULL
               : calloc(1, sizeof *conn);
    if (!conn) {
        answer_too_many(fd);
        close(fd);
        return;
    }
    conn->watch = WATCH_CONNECTION;
    conn->fd = fd;
    conn->loop = loop;
    conn->handler = listener->handler;
    conn->loopback = loopback;
    conn->refuse = full;
    conn->mail.deliver = conn_adopt;
    atomic_fetch_add(&loop->connections, 1);
    if (loop->index == 0)
        conn_adopt(&conn->mail);
    else
        loop_mail(loop, &conn->mail);
}

static void watch_listener(struct http_server *server, struct listener *listener, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = listener};

    if (epoll_ctl(server->loops[0].epoll_fd, EPOLL_CTL_MOD, listener->fd, &event))
        log_error("http: cannot watch a listener: %s", strerror(errno));
}

/* No fd is left: drop the client that waits. */
static void drop_one(struct http_server *server, struct listener *listener)
{
    int fd;

    if (server->spare_fd >= 0) {
        close(server->spare_fd);
        fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            answer_too_many(fd);
            close(fd);
            stat_add(&server->loops[0].stats.refused, 1);
        }
    }
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (server->spare_fd >= 0)
        return;
    for (unsigned i = 0; i < server->listener_count; i++)
        watch_listener(server, &server->listeners[i], 0);
    server->accept_again_ms = server->loops[0].now_ms + ACCEPT_REST_MS;
}

void server_accept_again(struct http_server *server)
{
    if (!server->accept_again_ms || server->loops[0].now_ms < server->accept_again_ms)
        return;
    server->accept_again_ms = 0;
    for (unsigned i = 0; i < server->listener_count; i++)
        if (server->listeners[i].fd >= 0)
            watch_listener(server, &server->listeners[i], EPOLLIN);
}

/* False: nobody waits any more. */
static bool accept_some(struct listener *listener)
{
    struct http_server *server = listener->server;

    for (int i = 0; i < MAX_ACCEPTS && listener->fd >= 0; i++) {
        struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
        socklen_t len = sizeof peer;
        int fd =
            accept4(listener->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            admit(listener, server, fd, is_loopback(&peer));
        } else if (errno == EMFILE || errno == ENFILE) {
            drop_one(server, listener);
            return false;
        } else if (errno != ECONNABORTED && errno != EINTR && errno != EPROTO) {
            return false; /* EAGAIN: that was all; anything else comes again, or passes */
        }
    }
    return listener->fd >= 0;
}

void server_accept(struct listener *listener)
{
    (void)accept_some(listener);
}

/* ---- Listening ---- */

/* Split "host:port", "[v6]:port", ":port". HOST has room for 256 bytes. */
static int split_address(const char *address, char *host, const char **port)
{
    const char *colon = strrchr(address, ':');
    size_t len;

    if (!colon || !colon[1])
        return ERR_INVALID;
    *port = colon + 1;
    if (strspn(*port, "0123456789") != strlen(*port) || strlen(*port) > 5 || atol(*port) > 65535)
        return ERR_INVALID;
    if (address[0] == '[') {
        if (colon == address || colon[-1] != ']')
            return ERR_INVALID;
        address++;
        len = (size_t)(colon - address) - 1;
    } else {
        len = (size_t)(colon - address);
        if (memchr(address, ':', len))
            return ERR_INVALID; /* an IPv6 address needs its brackets */
    }
    if (len > 255)
        return ERR_INVALID;
    memcpy(host, address, len);
    host[len] = 0;
    return 0;
}

static int open_one(const struct addrinfo *at)
{
    int on = 1, off = 0, rc;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return err_from_errno(errno);
    /* Connections inherit TCP_NODELAY from their listener. The options are best effort. */
    (void)!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    (void)!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (at->ai_family == AF_INET6)
        (void)!setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (!bind(fd, at->ai_addr, at->ai_addrlen) && !listen(fd, BACKLOG))
        return fd;
    rc = errno == EADDRINUSE                         ? ERR_IN_USE
         : errno == EACCES                           ? ERR_PERMISSION
         : errno == EADDRNOTAVAIL || errno == EINVAL ? ERR_INVALID
                                                     : err_from_errno(errno);
    close(fd);
    return rc;
}

/* An fd, or an error. */
static int open_tcp(const char *address)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char host[256];
    const char *port;
    int rc = split_address(address, host, &port);

    if (rc)
        return rc;
    if (!host[0]) { /* both families where there are both */
        hints.ai_flags |= AI_NUMERICHOST;
        if (getaddrinfo("::", port, &hints, &found))
            return ERR_INVALID;
        rc = open_one(found);
        freeaddrinfo(found);
        if (rc >= 0 || rc == ERR_IN_USE || rc == ERR_PERMISSION)
            return rc;
        memcpy(host, "0.0.0.0", 8);
    }
    if (getaddrinfo(host, port, &hints, &found))
        return ERR_INVALID;
    rc = ERR_INVALID;
    for (struct addrinfo *at = found; at; at = at->ai_next) {
        rc = open_one(at);
        if (rc >= 0)
            break;
    }
    freeaddrinfo(found);
    return rc;
}

/* Whether nobody answers at the socket file ADDR any more. */
static bool is_dead_socket(const struct sockaddr_un *addr)
{
    struct stat status;
    int fd, refused;

    if (lstat(addr->sun_path, &status) || !S_ISSOCK(status.st_mode))
        return false;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    refused = connect(fd, (const struct sockaddr *)addr, sizeof *addr) && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static int open_unix(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd, rc;

    if (!*path || strlen(path) >= sizeof addr.sun_path)
        return ERR_INVALID;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_from_errno(errno);
    rc = bind(fd, (const struct sockaddr *)&addr, sizeof addr);
    if (rc && errno == EADDRINUSE && is_dead_socket(&addr)) {
        unlink(path);
        rc = bind(fd, (const struct sockaddr *)&addr, sizeof addr);
    }
    if (rc) {
        rc = errno == EADDRINUSE ? ERR_IN_USE : err_from_errno(errno);
        close(fd);
        return rc;
    }
    /* Before listen nobody can connect, so there is no moment with another mode. */
    if (chmod(path, 0600) || listen(fd, BACKLOG)) {
        rc = err_from_errno(errno);
        close(fd);
        unlink(path);
        return rc;
    }
    return fd;
}

static unsigned port_of(int fd)
{
    struct sockaddr_storage addr = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof addr;

    if (getsockname(fd, (struct sockaddr *)&addr, &len))
        return 0;
    if (addr.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)&addr)->sin_port);
    return addr.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&addr)->sin6_port) : 0;
}

static void close_listener(struct listener *listener)
{
    if (listener->fd >= 0)
        close(listener->fd);
    listener->fd = -1;
    if (listener->unix_path)
        unlink(listener->unix_path);
    free(listener->unix_path);
    listener->unix_path = NULL;
}

void server_end_listeners(struct http_server *server)
{
    for (unsigned i = 0; i < server->listener_count; i++) {
        /* Who has connected already would be reset by the close. */
        for (int n = 0; n < BACKLOG / MAX_ACCEPTS && accept_some(&server->listeners[i]); n++)
            ;
        close_listener(&server->listeners[i]);
    }
}

void server_close_listeners(struct http_server *server)
{
    for (unsigned i = 0; i < server->listener_count; i++)
        close_listener(&server->listeners[i]);
}

int http_server_listen(struct http_server *server, const char *address,
                       const struct http_handler *handler)
{
    bool is_unix = !strncmp(address, "unix:", 5);
    struct listener *listener = &server->listeners[server->listener_count];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = listener};
    int fd;

    assert(server->listener_count < MAX_LISTENERS && !server->drained);
    assert(handler->on_request && handler->on_body && handler->on_body_end && handler->on_done);
    fd = is_unix ? open_unix(address + 5) : open_tcp(address);
    if (fd < 0)
        return fd;
    listener->watch = WATCH_LISTENER;
    listener->server = server;
    listener->fd = fd;
    listener->handler = handler;
    listener->port = is_unix ? 0 : port_of(fd);
    listener->unix_path = is_unix ? strdup(address + 5) : NULL;
    if ((is_unix && !listener->unix_path) ||
        epoll_ctl(server->loops[0].epoll_fd, EPOLL_CTL_ADD, fd, &event)) {
        if (is_unix)
            unlink(address + 5);
        close_listener(listener);
        return ERR_NO_MEMORY;
    }
    server->listener_count++;
    return 0;
}

unsigned http_server_port(const struct http_server *server, unsigned index)
{
    assert(index < server->listener_count);
    return server->listeners[index].port;
}

/* ---- Life ---- */

static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit); /* what cannot be raised is met by the spare fd */
}

static unsigned cpu_count(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

static void fill_in(struct http_config *config)
{
    if (!config->workers)
        config->workers = cpu_count();
    if (config->workers > MAX_WORKERS)
        config->workers = MAX_WORKERS;
    if (!config->max_connections)
        config->max_connections = LIMIT_HTTP_CONNECTIONS;
    if (!config->header_timeout_ms)
        config->header_timeout_ms = HTTP_HEADER_TIMEOUT_MS;
    if (!config->idle_timeout_ms)
        config->idle_timeout_ms = HTTP_IDLE_TIMEOUT_MS;
    if (!config->body_grace_ms)
        config->body_grace_ms = HTTP_BODY_GRACE_MS;
    if (!config->write_stall_ms)
        config->write_stall_ms = HTTP_WRITE_STALL_MS;
    if (!config->body_rate_bytes_s)
        config->body_rate_bytes_s = HTTP_BODY_RATE_BYTES_S;
}

int http_server_create(struct http_server **out, const struct http_config *config)
{
    struct http_server *server = calloc(1, sizeof *server);
    pthread_condattr_t attr;
    int rc;

    *out = NULL;
    if (!server)
        return ERR_NO_MEMORY;
    server->config = *config;
    fill_in(&server->config);
    assert(config->operation_count <= HTTP_MAX_OPERATIONS);
    raise_file_limit();
    pthread_mutex_init(&server->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &attr);
    pthread_condattr_destroy(&attr);
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    server->loops = calloc(server->config.workers, sizeof *server->loops);
    if (!server->loops) {
        rc = ERR_NO_MEMORY;
        goto out;
    }
    rc = server->spare_fd < 0 ? err_from_errno(errno) : 0;
    for (; !rc && server->workers < server->config.workers; server->workers++) {
        struct loop *loop = &server->loops[server->workers];

        rc = loop_init(loop, server, server->workers);
        if (rc)
            loop_release(loop);
        if (rc)
            break;
    }
    for (unsigned i = 0; !rc && i < server->workers; i++)
        rc = loop_start(&server->loops[i]);
out:
    if (rc)
        http_server_destroy(&server);
    *out = server;
    return rc;
}

void server_ack(struct http_server *server, unsigned orders, unsigned cut)
{
    pthread_mutex_lock(&server->lock);
    if (orders & LOOP_DRAIN)
        server->drain_acks++;
    if (orders & LOOP_CUT)
        server->cut_acks++;
    server->cut += cut;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
}

static unsigned connections(const struct http_server *server)
{
    unsigned n = 0;

    for (unsigned i = 0; i < server->workers; i++)
        n += atomic_load(&server->loops[i].connections);
    return n;
}

static void order_all(struct http_server *server, unsigned orders)
{
    assert(server->loops || !server->workers);
    for (unsigned i = 0; i < server->workers; i++)
        if (server->loops[i].started)
            loop_order(&server->loops[i], orders);
}

unsigned http_server_drain(struct http_server *server, uint32_t timeout_ms)
{
    struct timespec until;
    unsigned cut;
    int rc = 0;

    assert(!server->drained);
    server->drained = true;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L)
        until.tv_sec++, until.tv_nsec -= 1000000000L;
    order_all(server, LOOP_DRAIN);
    pthread_mutex_lock(&server->lock);
    while (server->drain_acks < server->workers)
        pthread_cond_wait(&server->changed, &server->lock);
    while (connections(server) && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&server->changed, &server->lock, &until);
    if (connections(server)) {
        order_all(server, LOOP_CUT);
        while (server->cut_acks < server->workers)
            pthread_cond_wait(&server->changed, &server->lock);
    }
    cut = server->cut;
    pthread_mutex_unlock(&server->lock);
    return cut;
}

void http_server_destroy(struct http_server **server_ptr)
{
    struct http_server *server = *server_ptr;

    if (!server)
        return;
    *server_ptr = NULL;
    assert(server->loops || !server->workers);
    if (!server->drained && server->workers && server->loops[server->workers - 1].started)
        http_server_drain(server, 0);
    order_all(server, LOOP_STOP);
    for (unsigned i = 0; i < server->workers; i++) {
        if (server->loops[i].started)
            pthread_join(server->loops[i].thread, NULL);
    }
    for (unsigned i = 0; i < server->workers; i++)
        loop_release(&server->loops[i]);
    server_close_listeners(server);
    if (server->spare_fd >= 0)
        close(server->spare_fd);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->lock);
    free(server->loops);
    free(server);
}

/* ---- Statistics ---- */

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)counter, memory_order_relaxed);
}

void http_server_stats(const struct http_server *server, struct http_stats *out)
{
    memset(out, 0, sizeof *out);
    out->connections = connections(server);
    for (unsigned i = 0; i < server->workers; i++) {
        const struct loop_stats *stats = &server->loops[i].stats;

        for (int class = 0; class < 6; class ++)
            out->requests[class] += get(&stats->requests[class]);
        out->accepted += get(&stats->accepted);
        out->refused += get(&stats->refused);
        out->in_flight += get(&stats->in_flight);
        out->bytes_in += get(&stats->bytes_in);
        out->bytes_out += get(&stats->bytes_out);
        for (int op = 0; op < HTTP_MAX_OPERATIONS; op++) {
            out->operations[op].count += get(&stats->operations[op].count);
            out->operations[op].sum_us += get(&stats->operations[op].sum_us);
            for (int b = 0; b < HTTP_LATENCY_BUCKETS; b++)
                out->operations[op].buckets[b] += get(&stats->operations[op].buckets[b]);
        }
    }
}
