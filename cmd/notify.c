/*
 * The service manager's protocol is a datagram of NAME=VALUE lines. A manager that does not listen
 * is no reason to stop: failures are dropped, systemd's own timeouts notice.
 *
 * The watchdog is fed only after a request went through an event loop and back, so that a node
 * whose loops hang is restarted, although this thread runs.
 */
#include "cmd/notify.h"

#include "base/text.h"

#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* The address of the socket at PATH ('@' begins an abstract one); its length, 0 if too long. */
static socklen_t unix_address(struct sockaddr_un *out, const char *path)
{
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof out->sun_path)
        return 0;
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(out->sun_path, path, len);
    if (path[0] == '@')
        out->sun_path[0] = 0;
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] == '@' ? 0 : 1));
}

void notify_send(const char *text)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address;
    socklen_t len = path ? unix_address(&address, path) : 0;

    if (len == 0)
        return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address, len);
    (void)close(fd);
}

uint64_t notify_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    uint64_t value;

    if (!usec || parse_u64(&value, usec, strlen(usec), UINT64_MAX) || value < 2000)
        return 0;
    uint64_t wanted = value / 2000;
    if (pid && (parse_u64(&value, pid, strlen(pid), UINT64_MAX) || value != (uint64_t)getpid()))
        return 0;
    return wanted;
}

bool notify_alive(const char *path, unsigned timeout_ms)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
                                  "Connection: close\r\n\r\n";
    const struct timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    struct sockaddr_un address;
    socklen_t len = unix_address(&address, path);
    char answer[9];
    bool alive = false;

    int fd = len ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0)
        return false;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
        connect(fd, (struct sockaddr *)&address, len) == 0 &&
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == (ssize_t)(sizeof request - 1) &&
        recv(fd, answer, sizeof answer, MSG_WAITALL) == (ssize_t)sizeof answer)
        alive = memcmp(answer, "HTTP/1.1 ", 9) == 0;
    (void)close(fd);
    return alive;
}
