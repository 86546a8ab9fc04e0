/*
 * One connection to a node, kept open between calls. Not thread-safe: one client per thread. Every
 * call blocks until its answer is complete.
 */
#ifndef CMD_OBJCTL_HTTP_H
#define CMD_OBJCTL_HTTP_H

#include "base/buf.h"
#include "base/err.h"
#include "cmd/objctl.h"

#include <curl/curl.h>
#include <sys/types.h>

#define ANSWER_MAX_BYTES (16u << 20) /* of an answer that is kept in memory */
#define ETAG_TEXT_BYTES  80

struct client {
    CURL *curl;
    char base[336];              /* "http://host:port" */
    char where[320];             /* how messages call the node */
    char error[CURL_ERROR_SIZE]; /* why the last call failed */
    bool reached;                /* it has answered at least once */
    bool patient;                /* an answer may take any time */
};

/* A request and its answer. Zero it, fill in the first part; release it with call_release. */
struct call {
    const char *method, *path;
    struct curl_slist *headers; /* owned */
    bool no_memory;             /* a header could not be added: the call fails */

    /* The body sent: in memory, or where READ is set a source of `length` bytes (-1: unknown). READ
     * gives up to CAP bytes, 0 at the end, negative to give up; REWIND makes it begin anew. */
    const void *body;
    int64_t length;
    ssize_t (*read)(void *arg, char *out, size_t cap);
    int (*rewind)(void *arg);
    /* Where the body of a 2xx answer goes; NULL: into `text`. Non-zero: give up. */
    int (*sink)(struct call *call, const char *data, size_t len);
    void *arg;

    long status;
    struct buf text;            /* the answer's body, or the error's */
    char etag[ETAG_TEXT_BYTES]; /* without quotes */
    int64_t answer_length;      /* -1: not said */
    unsigned retry_after_s;
};

/* ADDR as the user gave it. CTL_OK, or an exit code after saying why. */
int client_open(struct client *client, const char *addr);
/* The node whose control socket is STATE_DIR/control.sock. */
int client_open_control(struct client *client, const char *state_dir);
void client_close(struct client *client);

void call_header(struct call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));
void call_release(struct call *call);

/* 0: an answer came, whatever its status. ERR_CLOSED: nobody listens there; ERR_TIMEOUT; ERR_IO:
 * the connection broke, or what was received is no HTTP; ERR_INVALID: the source or sink gave up.
 */
int client_call(struct client *client, struct call *call) MUST_CHECK;

/* How patient a command is with a node that is busy (503), restarting or gone. */
struct patience {
    uint64_t until_ms; /* monotonic; 0: begins with the first failure */
    uint64_t limit_ms;
    unsigned tries;
};
/* After a call ended with RC: whether to make it again. Waits before it says so. A node that never
 * answered is not waited for. */
bool patience_left(struct patience *patience, const struct client *client, const struct call *call,
                   int rc);

/* What commands on the directories return where no node runs in them, with nothing said. Only a
 * socket that cannot be connected tells that: a node that ends in the middle is another matter. */
#define CTL_NO_NODE (-1)

/* Say what went wrong with WHAT and give the exit code for it; CTL_OK for a 2xx answer. */
int client_complain(const struct client *client, const struct call *call, int rc, const char *what);

/* Monotonic milliseconds. */
uint64_t ctl_now_ms(void);

#endif
