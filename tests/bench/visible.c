/*
 * How long after a put was answered by one node another one knows of it.
 *
 *   visible --put-port P --see-port P [--seconds S] [--per-second N]
 *
 * One put of 1 KiB after the other, on one connection; once it is answered its meta document is
 * asked of the other node, again and again with POLL_NS between an answer and the next question,
 * until that is 200. The time from the put's answer to the last byte of that one counts, so it
 * includes a request to the other node and half a pause. What else keeps the nodes busy meanwhile
 * is another program's business.
 *
 * One line of JSON goes to stdout; one not seen within ten seconds ends the run.
 */
#include "histogram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND       1000000000ull
#define POLL_NS      100000
#define SIZE         1024
#define ID_CHARS     26
#define ANSWER_BYTES 16384
#define PATIENCE_NS  (10 * SECOND)

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
    struct timespec at = {(time_t)(ns / SECOND), (long)(ns % SECOND)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "visible: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int connect_to(unsigned port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to))
        die("connect");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* Send LEN bytes, read the answer into ANSWER, terminated: its status. */
static int ask(int fd, const char *request, size_t len, char answer[ANSWER_BYTES])
{
    size_t got = 0;

    if (send(fd, request, len, MSG_NOSIGNAL) != (ssize_t)len)
        die("send");
    for (;;) {
        ssize_t n = recv(fd, answer + got, ANSWER_BYTES - 1 - got, 0);

        if (n <= 0)
            die("recv");
        got += (size_t)n;
        answer[got] = 0;
        const char *end = strstr(answer, "\r\n\r\n");
        const char *length = strcasestr(answer, "\ncontent-length:");
        uint64_t body = length ? strtoull(length + 16, NULL, 10) : 0;

        if (end && (size_t)(end + 4 - answer) + body <= got)
            return atoi(answer + 9);
        if (got == ANSWER_BYTES - 1) {
            fprintf(stderr, "visible: an endless answer\n");
            exit(1);
        }
    }
}

/* Put, then look until it is there: nanoseconds. */
static uint64_t once(int put_fd, int see_fd, char *put, size_t put_len, uint64_t *polls)
{
    char answer[ANSWER_BYTES], see[256];

    memcpy(put + put_len - 8, &(uint64_t){now_ns()}, 8);
    int status = ask(put_fd, put, put_len, answer);
    uint64_t put_ns = now_ns();
    const char *id = strstr(answer, "\"id\":");

    if (status / 100 != 2 || !id || !(id = strchr(id + 5, '"'))) {
        fprintf(stderr, "visible: a put was answered %d\n", status);
        exit(1);
    }
    int len = snprintf(see, sizeof see, "GET /api/v1/meta/%.*s HTTP/1.1\r\nHost: localhost\r\n\r\n",
                       ID_CHARS, id + 1);
    for (;;) {
        status = ask(see_fd, see, (size_t)len, answer);
        ++*polls;
        uint64_t now = now_ns();

        if (status == 200)
            return now - put_ns;
        if (now - put_ns > PATIENCE_NS) {
            fprintf(stderr, "visible: not seen in ten seconds: %d\n", status);
            exit(2);
        }
        sleep_until(now + POLL_NS);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"put-port", 1, NULL, 'p'},
                                            {"see-port", 1, NULL, 'g'},
                                            {"seconds", 1, NULL, 's'},
                                            {"per-second", 1, NULL, 'n'},
                                            {NULL, 0, NULL, 0}};
    static struct histogram latency;
    static char put[256 + SIZE];
    unsigned put_port = 0, see_port = 0;
    double seconds = 4, per_second = 200;
    uint64_t polls = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'p')
            put_port = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'g')
            see_port = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 's')
            seconds = strtod(optarg, NULL);
        else if (option == 'n')
            per_second = strtod(optarg, NULL);
        else
            exit(64);
    }
    if (!put_port || !see_port || per_second <= 0)
        exit(64);
    int put_fd = connect_to(put_port), see_fd = connect_to(see_port);
    size_t put_len = (size_t)snprintf(
        put, 256, "PUT /api/v1/put HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n",
        SIZE);

    memset(put + put_len, 'x', SIZE);
    put_len += SIZE;
    (void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    uint64_t begun = now_ns(), due = begun;

    while (due < begun + (uint64_t)(seconds * (double)SECOND)) {
        sleep_until(due);
        histogram_add(&latency, once(put_fd, see_fd, put, put_len, &polls));
        due += (uint64_t)((double)SECOND / per_second);
        due = due > now_ns() ? due : now_ns(); /* none to make up for: it is no load */
    }
    printf("{\"requests\": %llu, \"errors\": 0, \"seconds\": %.6f, \"bytes\": 0, \"polls\": %llu, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f}\n",
           (unsigned long long)latency.count, (double)(now_ns() - begun) / (double)SECOND,
           (unsigned long long)polls, (double)histogram_at(&latency, 0.5) / 1000,
           (double)histogram_at(&latency, 0.99) / 1000,
           (double)histogram_at(&latency, 0.999) / 1000, (double)latency.largest / 1000);
    return 0;
}
