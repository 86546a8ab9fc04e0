/*
 * A load generator for what wrk cannot do: puts whose ids are kept, gets of given ids, bodies of
 * any size, and an open loop.
 *
 *   load put --port P --size BYTES [--random-ids] [--write-ids FILE] [--full]
 *   load get --port P --read-ids FILE [--hot N | --each]
 *        [--connections N] [--seconds S] [--count N] [--rate PER_SECOND]
 *
 * --full: at level 2, not waited for. One thread, one epoll, one request in flight on each
 * connection. Without --rate a connection sends its next request when it has its answer. With it,
 * request number i is due at i / rate after the start whatever became of those before, and its
 * latency counts from then, not from when a connection was free for it: so a server that stalls is
 * charged for all who had to wait
 * ("coordinated omission").
 *
 * One line of JSON goes to stdout. An answer that is not a 2xx and a connection that breaks are
 * counted as errors; too many of them, or a server that says nothing for ten seconds, end the run.
 */
#include "histogram.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SECOND          1000000000ull
#define ID_CHARS        26
#define HEAD_BYTES      512
#define ANSWER_BYTES    (64 * 1024)
#define MAX_CONNECTIONS 4096
#define MAX_ERRORS      100
#define SILENCE_NS      (10 * SECOND)

struct connection {
    int fd;
    bool busy;
    uint64_t due_ns;
    char head[HEAD_BYTES];
    size_t head_len, sent, total;
    char answer[ANSWER_BYTES]; /* header, and the body's beginning */
    size_t answer_len;
    bool header_done, ok;
    uint64_t body_left;
};

struct load {
    bool put, random_ids;
    unsigned port;
    bool each, full;
    uint64_t size, count, hot, connections;
    double rate, seconds;

    int epoll;
    struct connection *all;
    struct connection **idle;
    size_t idle_count;
    char *body;
    char *ids; /* ID_CHARS + 1 each */
    uint64_t id_count;
    FILE *write_ids;
    uint64_t random;

    uint64_t start_ns, end_ns, heard_ns;
    uint64_t issued, done, errors, bytes;
    struct histogram latency;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* xorshift64*: good enough to choose ids. */
static uint64_t draw(struct load *load)
{
    load->random ^= load->random >> 12;
    load->random ^= load->random << 25;
    load->random ^= load->random >> 27;
    return load->random * UINT64_C(0x2545F4914F6CDD1D);
}

/* ---- Ids ---- */

/* A ULID of any time from 2010 to 2099: what a client's random ids do to a B-tree. */
static void random_id(struct load *load, char *out)
{
    static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    uint64_t time_ms = UINT64_C(1262304000000) + draw(load) % UINT64_C(2800000000000);

    for (int i = 9; i >= 0; i--, time_ms >>= 5)
        out[i] = digits[time_ms & 31];
    uint64_t high = draw(load), low = draw(load);

    for (int i = 0; i < 8; i++, high >>= 5, low >>= 5) {
        out[10 + i] = digits[high & 31];
        out[18 + i] = digits[low & 31];
    }
}

static void read_ids(struct load *load, const char *path)
{
    FILE *file = fopen(path, "r");

    if (!file || fseek(file, 0, SEEK_END))
        die(path);
    long len = ftell(file);

    rewind(file);
    load->ids = malloc((size_t)len + 1);
    if (!load->ids || fread(load->ids, 1, (size_t)len, file) != (size_t)len)
        die(path);
    (void)fclose(file);
    load->id_count = (uint64_t)len / (ID_CHARS + 1);
    if (load->id_count == 0) {
        fprintf(stderr, "load: %s holds no ids\n", path);
        exit(1);
    }
}

/* Any id; with --hot one of N that are spread evenly over the file; with --each one after the
 * other.
 */
static const char *choose_id(struct load *load)
{
    if (load->each)
        return load->ids + load->issued % load->id_count * (ID_CHARS + 1);
    uint64_t hot = load->hot && load->hot < load->id_count ? load->hot : load->id_count;
    uint64_t at = draw(load) % hot * (load->id_count / hot);

    return load->ids + at * (ID_CHARS + 1);
}

static void keep_id(struct load *load, struct connection *c, size_t header_bytes)
{
    c->answer[c->answer_len] = 0;
    const char *id = strstr(c->answer + header_bytes, "\"id\":");

    if (!id || !(id = strchr(id + 5, '"')) || strlen(id) < ID_CHARS + 1) {
        fprintf(stderr, "load: an answer without an id\n");
        exit(1);
    }
    fprintf(load->write_ids, "%.*s\n", ID_CHARS, id + 1);
}

/* ---- One request ---- */

static void open_connection(struct load *load, struct connection *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)load->port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to))
        die("connect");
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &event))
        die("epoll_ctl");
}

static void watch(struct load *load, struct connection *c, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};

    if (epoll_ctl(load->epoll, EPOLL_CTL_MOD, c->fd, &event))
        die("epoll_ctl");
}

static void finish(struct load *load, struct connection *c, uint64_t now)
{
    if (c->ok) {
        histogram_add(&load->latency, now - c->due_ns);
        load->bytes += load->put ? load->size : 0;
    } else {
        load->errors++;
    }
    load->done++;
    load->heard_ns = now;
    c->busy = false;
    load->idle[load->idle_count++] = c;
}

/* The server closed it: an error where a request was under way, and in any case a new one. */
static void broken(struct load *load, struct connection *c)
{
    if (load->errors >= MAX_ERRORS) {
        fprintf(stderr, "load: too many errors\n");
        exit(2);
    }
    (void)close(c->fd);
    open_connection(load, c);
    if (c->busy) {
        c->ok = false;
        finish(load, c, now_ns());
    }
}

static void send_more(struct load *load, struct connection *c)
{
    bool waited = c->sent > 0;

    while (c->sent < c->total) {
        struct iovec iov[2];
        int parts = 0;

        if (c->sent < c->head_len)
            iov[parts++] = (struct iovec){c->head + c->sent, c->head_len - c->sent};
        size_t body_sent = c->sent > c->head_len ? c->sent - c->head_len : 0;
        if (c->total > c->head_len)
            iov[parts++] = (struct iovec){load->body + body_sent, load->size - body_sent};
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)parts};
        ssize_t n = sendmsg(c->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            if (!waited)
                watch(load, c, EPOLLIN | EPOLLOUT);
            return;
        }
        if (n < 0) {
            broken(load, c);
            return;
        }
        c->sent += (size_t)n;
        if (waited)
            load->heard_ns = now_ns(); /* it takes a large body, if slowly */
    }
    if (waited)
        watch(load, c, EPOLLIN);
}

static void start_request(struct load *load, struct connection *c, uint64_t due_ns)
{
    int len;

    if (load->put && load->random_ids) {
        char id[ID_CHARS];

        random_id(load, id);
        len = snprintf(c->head, HEAD_BYTES,
                       "PUT /api/v1/put HTTP/1.1\r\nHost: localhost\r\nX-Meta-ID: %.*s\r\n"
                       "Content-Length: %llu\r\n\r\n",
                       ID_CHARS, id, (unsigned long long)load->size);
    } else if (load->put) {
        len = snprintf(c->head, HEAD_BYTES,
                       "PUT /api/v1/put HTTP/1.1\r\nHost: localhost\r\n%s"
                       "Content-Length: %llu\r\n\r\n",
                       load->full ? "X-Meta-ConsistencyLevel: 2\r\nX-Meta-Ack: local\r\n" : "",
                       (unsigned long long)load->size);
    } else {
        len = snprintf(c->head, HEAD_BYTES,
                       "GET /api/v1/get/%.*s HTTP/1.1\r\nHost: localhost\r\n\r\n", ID_CHARS,
                       choose_id(load));
    }
    c->head_len = (size_t)len;
    c->total = c->head_len + (load->put ? load->size : 0);
    c->sent = c->answer_len = 0;
    c->header_done = false;
    c->busy = true;
    c->due_ns = due_ns;
    load->issued++;
    send_more(load, c);
}

/* The answer's header is whole up to HEADER_BYTES: status and length. */
static void read_header(struct connection *c, size_t header_bytes)
{
    c->answer[header_bytes - 1] = 0;
    const char *length = strcasestr(c->answer, "\ncontent-length:");

    c->answer[header_bytes - 1] = '\n';
    c->ok = strncmp(c->answer, "HTTP/1.1 2", 10) == 0;
    c->body_left = length ? strtoull(length + 16, NULL, 10) : 0;
    c->header_done = true;
}

static void receive(struct load *load, struct connection *c)
{
    static char sink[256 * 1024];

    for (;;) {
        /* The rest of a large body, which nobody looks at. */
        bool more = c->header_done && !load->write_ids;
        size_t room = more ? sizeof sink : ANSWER_BYTES - 1 - c->answer_len;
        ssize_t n = recv(c->fd, more ? sink : c->answer + c->answer_len, room, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0 || !c->busy) {
            broken(load, c);
            return;
        }
        load->bytes += load->put ? 0 : (uint64_t)n;
        if (!more) {
            c->answer_len += (size_t)n;
            const char *end = memmem(c->answer, c->answer_len, "\r\n\r\n", 4);

            if (!end && c->answer_len < ANSWER_BYTES - 1)
                continue;
            if (!end) {
                broken(load, c);
                return;
            }
            size_t header_bytes = (size_t)(end - c->answer) + 4;
            uint64_t here = c->answer_len - header_bytes;

            read_header(c, header_bytes);
            if (here > c->body_left) {
                broken(load, c);
                return;
            }
            c->body_left -= here;
            if (load->put && load->write_ids && c->ok && c->body_left == 0)
                keep_id(load, c, header_bytes);
        } else {
            c->body_left -= (uint64_t)n < c->body_left ? (uint64_t)n : c->body_left;
            load->heard_ns = now_ns();
        }
        if (c->body_left == 0) {
            finish(load, c, now_ns());
            return;
        }
    }
}

/* ---- The run ---- */

static bool may_issue(const struct load *load, uint64_t now)
{
    return (load->count == 0 || load->issued < load->count) &&
           (load->seconds <= 0 || now < load->end_ns);
}

/* Give requests that are due to idle connections; when the next one is due. */
static uint64_t issue(struct load *load)
{
    uint64_t now = now_ns();

    while (load->idle_count > 0 && may_issue(load, now)) {
        uint64_t due = now;

        if (load->rate > 0) {
            due = load->start_ns + (uint64_t)((double)load->issued / load->rate * (double)SECOND);
            if (due > now)
                return due;
        }
        start_request(load, load->idle[--load->idle_count], due);
        now = now_ns();
    }
    return now + SECOND / 10;
}

static bool is_over(const struct load *load, uint64_t now)
{
    return !may_issue(load, now) && load->idle_count == load->connections;
}

static void run(struct load *load)
{
    struct epoll_event events[256];

    assert(load->all && load->idle);
    load->start_ns = load->heard_ns = now_ns();
    load->end_ns = load->start_ns + (uint64_t)(load->seconds * (double)SECOND);
    for (;;) {
        uint64_t next = issue(load), now = now_ns();

        if (is_over(load, now))
            break;
        if (load->idle_count < load->connections && now - load->heard_ns > SILENCE_NS) {
            fprintf(stderr, "load: no answer for ten seconds\n");
            exit(2);
        }
        uint64_t wait = next > now ? next - now : 0;
        struct timespec timeout = {(time_t)(wait / SECOND), (long)(wait % SECOND)};
        int count = epoll_pwait2(load->epoll, events, 256, &timeout, NULL);

        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;

            if (events[i].events & EPOLLOUT && c->busy)
                send_more(load, c);
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                receive(load, c);
        }
    }
    load->end_ns = now_ns();
}

static void report(const struct load *load)
{
    double seconds = (double)(load->end_ns - load->start_ns) / (double)SECOND;
    const struct histogram *h = &load->latency;

    printf("{\"requests\": %llu, \"errors\": %llu, \"seconds\": %.6f, \"bytes\": %llu, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
           (unsigned long long)load->done, (unsigned long long)load->errors, seconds,
           (unsigned long long)load->bytes, (double)histogram_at(h, 0.5) / 1000,
           (double)histogram_at(h, 0.99) / 1000, (double)histogram_at(h, 0.999) / 1000,
           (double)h->largest / 1000);
}

/* A short slice: on busy processors whoever wakes up with one is let in at once (Linux 6.12;
 * before, this does nothing); with a rate, when it is not this one that keeps them busy, also
 * before all others, where that is allowed. What is measured is the server's waiting and not our
 * own. */
static void run_when_due(const struct load *load)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = sizeof attributes, .runtime = 100000};

    (void)syscall(SYS_sched_setattr, 0, &attributes, 0);
    attributes.nice = load->rate > 0 ? -20 : 0;
    (void)syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static void prepare(struct load *load)
{
    if (load->connections == 0 || load->connections > MAX_CONNECTIONS || load->port == 0 ||
        (load->count == 0 && load->seconds <= 0) || (!load->put && !load->ids)) {
        fprintf(stderr, "load: put|get, --port, --seconds or --count, --read-ids for get\n");
        exit(64);
    }
    load->random = now_ns() | 1;
    load->epoll = epoll_create1(0);
    load->all = calloc(load->connections, sizeof *load->all);
    load->idle = calloc(load->connections, sizeof(struct connection *));
    load->body = malloc(load->size + 8);
    if (load->epoll < 0 || !load->all || !load->idle || !load->body)
        die("setup");
    for (uint64_t i = 0; i < load->size; i += 8) {
        uint64_t noise = draw(load);

        memcpy(load->body + i, &noise, 8);
    }
    for (uint64_t i = 0; i < load->connections; i++) {
        open_connection(load, &load->all[i]);
        load->idle[load->idle_count++] = &load->all[i];
    }
    (void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* else due requests leave 50 µs late */
    run_when_due(load);
}

static void parse(struct load *load, int argc, char **argv)
{
    static const struct option options[] = {{"port", 1, NULL, 'p'},
                                            {"connections", 1, NULL, 'c'},
                                            {"seconds", 1, NULL, 's'},
                                            {"count", 1, NULL, 'n'},
                                            {"rate", 1, NULL, 'r'},
                                            {"size", 1, NULL, 'b'},
                                            {"random-ids", 0, NULL, 'R'},
                                            {"write-ids", 1, NULL, 'w'},
                                            {"read-ids", 1, NULL, 'i'},
                                            {"hot", 1, NULL, 'h'},
                                            {"each", 0, NULL, 'e'},
                                            {"full", 0, NULL, 'f'},
                                            {NULL, 0, NULL, 0}};
    int option;

    load->put = argc > 1 && strcmp(argv[1], "put") == 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p':
            load->port = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'c':
            load->connections = strtoull(optarg, NULL, 10);
            break;
        case 's':
            load->seconds = strtod(optarg, NULL);
            break;
        case 'n':
            load->count = strtoull(optarg, NULL, 10);
            break;
        case 'r':
            load->rate = strtod(optarg, NULL);
            break;
        case 'b':
            load->size = strtoull(optarg, NULL, 10);
            break;
        case 'R':
            load->random_ids = true;
            break;
        case 'w':
            load->write_ids = fopen(optarg, "a");
            if (!load->write_ids)
                die(optarg);
            break;
        case 'i':
            read_ids(load, optarg);
            break;
        case 'h':
            load->hot = strtoull(optarg, NULL, 10);
            break;
        case 'e':
            load->each = true;
            break;
        case 'f':
            load->full = true;
            break;
        default:
            exit(64);
        }
    }
}

int main(int argc, char **argv)
{
    static struct load load = {.connections = 64, .size = 1024};

    parse(&load, argc, argv);
    prepare(&load);
    run(&load);
    report(&load);
    if (load.write_ids && fclose(load.write_ids))
        die("ids");
    return 0;
}
