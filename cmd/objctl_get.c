/*
 * get: one object to standard output, or to a file that appears under its name only when all of it
 * is there and its SHA-256 is the one that the node promised in the ETag. A connection that breaks
 * is taken up where it broke, with If-Match, so that the rest is of the same bytes.
 */
#include "base/env.h"
#include "base/hash.h"
#include "base/text.h"
#include "cmd/objctl_http.h"
#include "cmd/objctl_progress.h"
#include "journal/ulid.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RETRY_MS 30000

enum { OPT_FETCH = CTL_OPT_FIRST };

static const struct option options[] = {
    {"output", required_argument, NULL, 'o'},
    {"fetch", no_argument, NULL, OPT_FETCH},
    CTL_NODE_OPTIONS,
};

struct download {
    struct ctl *ctl;
    const char *id, *output;
    char *temporary; /* NULL: to standard output */
    bool fetch;
    int fd;
    struct digest *digest;
    uint64_t received;
    char etag[ETAG_TEXT_BYTES]; /* of the first answer */
    bool begun;                 /* its first byte is here */
    bool resumed;               /* this answer goes on where another broke */
    const char *why;            /* it cannot be written, or is not what it should be */
    int why_code;
};

/* The unfinished file. A signal that ends us removes it first. */
static char *volatile unfinished;

static void on_end(int number)
{
    const char *path = unfinished;

    if (path)
        (void)unlink(path);
    (void)raise(number); /* once more, with its default */
}

static void clean_up_on_signals(void)
{
    static const int numbers[] = {SIGHUP, SIGINT, SIGTERM};
    struct sigaction before, ours = {.sa_handler = on_end, .sa_flags = (int)SA_RESETHAND};

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            (void)sigaction(numbers[i], &ours, NULL);
    }
}

static int stop(struct download *download, int code, const char *why)
{
    download->why = why;
    download->why_code = code;
    return ERR_INVALID;
}

static int take(struct call *call, const char *data, size_t len)
{
    struct download *download = call->arg;

    if (!download->begun) {
        uint64_t total = call->answer_length > 0 ? (uint64_t)call->answer_length : 0;

        download->begun = true;
        (void)snprintf(download->etag, sizeof download->etag, "%s", call->etag);
        progress_begin(download->ctl, download->id, total, false);
    } else if (download->resumed && call->status != 206) {
        return stop(download, CTL_REFUSED, "the node cannot go on where the connection broke");
    }
    for (size_t done = 0; done < len;) {
        ssize_t wrote = write(download->fd, data + done, len - done);

        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return stop(download, CTL_IO, strerror(errno));
        done += (size_t)wrote;
    }
    digest_update(download->digest, data, len);
    download->received += len;
    progress_add(len, 0);
    return 0;
}

static int receive(struct download *download, struct client *client)
{
    struct patience patience = {.limit_ms = RETRY_MS};
    struct call call = {.method = "GET", .sink = take, .arg = download};
    char path[64];
    uint64_t before;
    int rc;

    (void)snprintf(path, sizeof path, "/api/v1/get/%s", download->id);
    do {
        call_release(&call);
        call.path = path;
        if (download->fetch)
            call_header(&call, "X-Meta-Fetch: 1");
        download->resumed = download->received > 0;
        if (download->resumed) {
            call_header(&call, "Range: bytes=%llu-", (unsigned long long)download->received);
            call_header(&call, "If-Match: \"%s\"", download->etag);
        }
        before = download->received;
        rc = client_call(client, &call);
        if (download->received > before) { /* it lives: begin to be patient anew */
            patience = (struct patience){.limit_ms = RETRY_MS};
            client->reached = true;
        }
        if (rc == 0 && call.status == 200 && !download->begun) /* an empty body */
            (void)snprintf(download->etag, sizeof download->etag, "%s", call.etag);
    } while (!download->why && patience_left(&patience, client, &call, rc));
    progress_end();

    int code = CTL_OK;
    if (download->why)
        code = ctl_fail(download->why_code, "%s: %s",
                        download->why_code == CTL_IO && download->output ? download->output
                                                                         : download->id,
                        download->why);
    else
        code = client_complain(client, &call, rc, download->id);
    call_release(&call);
    return code;
}

static int check_sum(struct download *download)
{
    uint8_t sum[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];

    digest_final(download->digest, sum);
    hex_encode(hex, sum, sizeof sum);
    if (strcmp(hex, download->etag) == 0)
        return CTL_OK;
    return ctl_fail(CTL_REFUSED, "%s: what arrived has SHA-256 %s, not %s as the node said",
                    download->id, hex, *download->etag ? download->etag : "(none)");
}

static int open_output(struct download *download)
{
    struct stat stat;
    const char *output = download->output;

    download->fd = STDOUT_FILENO;
    if (!output || strcmp(output, "-") == 0) {
        download->output = NULL;
        return CTL_OK;
    }
    /* A device or a pipe is written as it is; a rename would replace it. */
    if (lstat(output, &stat) == 0 && S_ISDIR(stat.st_mode))
        return ctl_fail(CTL_USAGE, "%s: is a directory", output);
    bool replaces = lstat(output, &stat) != 0 || S_ISREG(stat.st_mode);
    if (!replaces) {
        download->fd = open(output, O_WRONLY | O_TRUNC | O_CLOEXEC);
    } else if (asprintf(&download->temporary, "%s.XXXXXX", output) < 0) {
        download->temporary = NULL;
        return ctl_fail(CTL_IO, "out of memory");
    } else {
        clean_up_on_signals();
        download->fd = mkostemp(download->temporary, O_CLOEXEC);
        if (download->fd >= 0)
            unfinished = download->temporary;
    }
    if (download->fd < 0) {
        int failed = errno;

        free(download->temporary);
        download->temporary = NULL;
        return ctl_fail(failed == EACCES ? CTL_PERMISSION : CTL_IO, "%s: %s", output,
                        strerror(failed));
    }
    return CTL_OK;
}

/* Give the file its name, or remove what there is of it. */
static int close_output(struct download *download, int code)
{
    mode_t mask = umask(0);

    (void)umask(mask);
    if (!download->output)
        return code;
    if (code == CTL_OK && download->temporary &&
        (fchmod(download->fd, 0666 & ~mask) != 0 || fsync(download->fd) != 0))
        code = ctl_fail(CTL_IO, "%s: %s", download->output, strerror(errno));
    if (close(download->fd) != 0 && code == CTL_OK)
        code = ctl_fail(CTL_IO, "%s: %s", download->output, strerror(errno));
    if (code == CTL_OK && download->temporary && rename(download->temporary, download->output) != 0)
        code = ctl_fail(CTL_IO, "%s: %s", download->output, strerror(errno));
    if (code && download->temporary)
        (void)unlink(download->temporary);
    unfinished = NULL;
    free(download->temporary);
    return code;
}

static int fetch(struct download *download)
{
    struct client client;

    int code = client_open(&client, download->ctl->addr);
    if (code == CTL_OK && digest_create(&download->digest, DIGEST_SHA256))
        code = ctl_fail(CTL_IO, "out of memory");
    if (code == CTL_OK) {
        digest_reset(download->digest);
        code = open_output(download);
        if (code == CTL_OK) {
            code = receive(download, &client);
            if (code == CTL_OK)
                code = check_sum(download);
            code = close_output(download, code);
        }
    }
    digest_destroy(&download->digest);
    client_close(&client);
    return code;
}

int ctl_get(struct ctl *ctl, int argc, char **argv)
{
    struct download download = {.ctl = ctl, .fd = -1};
    struct id128 id;
    int key, code = CTL_OK;

    while ((key = ctl_option(ctl, argc, argv, "o:", options, &code)) != -1) {
        if (key == 'o')
            download.output = optarg;
        else if (key == OPT_FETCH)
            download.fetch = true;
        else
            return code;
    }
    if (argc - optind != 1)
        return ctl_fail(CTL_USAGE, "get wants one id");
    download.id = argv[optind];
    if (ulid_parse(&id, download.id, strlen(download.id)))
        return ctl_fail(CTL_USAGE, "'%s' is not an id (26 letters and digits)", download.id);
    return fetch(&download);
}
