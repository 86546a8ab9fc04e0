/*
 * Word to the service manager (sd_notify(3), without its library): one datagram to $NOTIFY_SOCKET.
 * Where that is not set all of this does nothing.
 */
#ifndef CMD_NOTIFY_H
#define CMD_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* Send "READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=…", several separated by newlines. */
void notify_send(const char *text);

/* How often the manager wants to hear WATCHDOG=1, in milliseconds, halved as it advises; 0: never.
 */
uint64_t notify_watchdog_ms(void);

/* Whether the HTTP server behind Unix socket PATH answers /healthz at all within TIMEOUT_MS: what
 * WATCHDOG=1 stands for. */
bool notify_alive(const char *path, unsigned timeout_ms);

#endif
