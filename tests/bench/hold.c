/*
 * Connections that do nothing, or little, for as long as this runs: what else is measured meanwhile
 * is measured beside them.
 *
 *   hold --port P [--idle N] [--slow-headers N] [--slow-readers N --path PATH]
 *
 * An idle connection has had one request answered. A slow header sends a byte each SLOW_PAUSE and
 * never ends; a slow reader asks for PATH, a large body, and takes SLOW_READ bytes each SLOW_PAUSE.
 * One that the server ends is opened again. When all stand, "ready" is printed; when stdin ends,
 * so does this, with how many of each kind the server had ended.
 *
 * Source addresses are 127.0.0.2 and up, so that there are ports for all.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORTS_EACH    10000
#define SLOW_PAUSE_MS 100
#define SLOW_READ     2048
#define SMALL_BUFFER  4096

enum kind { IDLE, SLOW_HEADER, SLOW_READER, KINDS };

struct hold {
    unsigned port;
    size_t counts[KINDS];
    const char *path;
    size_t count, opened;
    int *fds;
    size_t ended[KINDS];
};

static void die(const char *what)
{
    fprintf(stderr, "hold: %s: %s\n", what, strerror(errno));
    exit(1);
}

static enum kind kind_of(const struct hold *hold, size_t i)
{
    if (i < hold->counts[IDLE])
        return IDLE;
    return i < hold->counts[IDLE] + hold->counts[SLOW_HEADER] ? SLOW_HEADER : SLOW_READER;
}

static void send_all(int fd, const char *text)
{
    size_t len = strlen(text);

    if (send(fd, text, len, MSG_NOSIGNAL) != (ssize_t)len)
        die("send");
}

/* An idle connection is one that was used. */
static void use_once(int fd)
{
    char answer[1024];
    ssize_t n;

    send_all(fd, "GET /api/v1/ping HTTP/1.1\r\nHost: localhost\r\n\r\n");
    n = recv(fd, answer, sizeof answer, 0);
    if (n < 12 || memcmp(answer, "HTTP/1.1 200", 12) != 0)
        die("no answer");
}

static void open_one(struct hold *hold, size_t i)
{
    uint32_t source = INADDR_LOOPBACK + 1 + (uint32_t)(hold->opened++ / PORTS_EACH % 200);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr = {htonl(source)}};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)hold->port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, small = SMALL_BUFFER;
    char request[512];

    if (fd < 0)
        die("socket");
    if (kind_of(hold, i) == SLOW_READER &&
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small))
        die("SO_RCVBUF");
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) ||
        connect(fd, (struct sockaddr *)&to, sizeof to))
        die("connect");
    hold->fds[i] = fd;
    switch (kind_of(hold, i)) {
    case IDLE:
        use_once(fd);
        break;
    case SLOW_HEADER:
        send_all(fd, "GET /api/v1/ping HTTP/1.1\r\nHost: localhost\r\nX: ");
        break;
    default:
        (void)snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n",
                       hold->path);
        send_all(fd, request);
    }
}

/* The server has ended connection I. */
static void open_again(struct hold *hold, size_t i)
{
    hold->ended[kind_of(hold, i)]++;
    (void)close(hold->fds[i]);
    open_one(hold, i);
}

/* One step of the slow connection I. */
static void crawl(struct hold *hold, size_t i)
{
    char sink[SLOW_READ];
    bool reader = kind_of(hold, i) == SLOW_READER;
    ssize_t n = recv(hold->fds[i], sink, sizeof sink, MSG_DONTWAIT);

    /* What a slow header receives is its refusal. */
    if (n == 0 || (n < 0 && errno != EAGAIN) || (n > 0 && !reader))
        open_again(hold, i);
    else if (!reader && send(hold->fds[i], "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
             errno != EAGAIN)
        open_again(hold, i);
}

/* Until stdin ends, in steps that are spread over the pause. */
static void stand(struct hold *hold)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    size_t first = hold->counts[IDLE], slow = hold->count - first, at = 0;

    while (poll(&input, 1, SLOW_PAUSE_MS / 10) == 0) {
        for (size_t n = (slow + 9) / 10; n > 0; n--) {
            crawl(hold, first + at);
            at = at + 1 < slow ? at + 1 : 0;
        }
    }
    for (size_t i = 0; i < first; i++) {
        char byte;

        if (recv(hold->fds[i], &byte, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN)
            hold->ended[IDLE]++;
    }
}

static void parse(struct hold *hold, int argc, char **argv)
{
    static const struct option options[] = {
        {"port", 1, NULL, 'p'},         {"idle", 1, NULL, 'i'}, {"slow-headers", 1, NULL, 'h'},
        {"slow-readers", 1, NULL, 'r'}, {"path", 1, NULL, 'g'}, {NULL, 0, NULL, 0}};
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p':
            hold->port = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'i':
            hold->counts[IDLE] = strtoull(optarg, NULL, 10);
            break;
        case 'h':
            hold->counts[SLOW_HEADER] = strtoull(optarg, NULL, 10);
            break;
        case 'r':
            hold->counts[SLOW_READER] = strtoull(optarg, NULL, 10);
            break;
        case 'g':
            hold->path = optarg;
            break;
        default:
            exit(64);
        }
    }
    for (int kind = 0; kind < KINDS; kind++)
        hold->count += hold->counts[kind];
    if (!hold->port || !hold->count || (hold->counts[SLOW_READER] && !hold->path)) {
        fprintf(stderr, "hold: --port, and how many of each; --path for slow readers\n");
        exit(64);
    }
}

int main(int argc, char **argv)
{
    static struct hold hold;
    struct rlimit limit;

    parse(&hold, argc, argv);
    if (getrlimit(RLIMIT_NOFILE, &limit))
        die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    hold.fds = calloc(hold.count, sizeof *hold.fds);
    if (!hold.fds)
        die("memory");
    for (size_t i = 0; i < hold.count; i++)
        open_one(&hold, i);
    printf("ready\n");
    (void)fflush(stdout);
    stand(&hold);
    printf("{\"idle\": %zu, \"slow_headers\": %zu, \"slow_readers\": %zu}\n", hold.ended[IDLE],
           hold.ended[SLOW_HEADER], hold.ended[SLOW_READER]);
    return 0;
}
