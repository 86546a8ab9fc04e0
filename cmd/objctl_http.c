/*
 * libcurl's easy interface with what all commands want of it: one connection that is used again,
 * deadlines, answers in bounded memory, errors as a node tells them.
 *
 * Failure: a call that broke can be made again by the caller, who knows whether that is safe.
 */
#include "cmd/objctl_http.h"

#include "base/env.h"
#include "base/limits.h"
#include "cmd/common_addr.h"
#include "cmd/common_socket.h"

#include <assert.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define DEFAULT_PORT       10999
#define CONNECT_TIMEOUT_MS 5000L
#define STALL_SECONDS      60L
#define HEADER_BYTES       (16 * KIB)
#define FIRST_WAIT_MS      100u
#define LONGEST_WAIT_MS    2000u
#define STREAM_BUFFER      (512L * 1024)

uint64_t ctl_now_ms(void)
{
    return env_mono_ms(env_system());
}

static void wait_ms(uint64_t ms)
{
    struct timespec rest = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};

    while (nanosleep(&rest, &rest) != 0)
        ;
}

/* ---- The client ---- */

static int open_curl(struct client *client)
{
    client->curl = curl_easy_init();
    return client->curl ? CTL_OK : ctl_fail(CTL_IO, "cannot set up libcurl");
}

int client_open(struct client *client, const char *addr)
{
    const char *text = strncmp(addr, "http://", 7) == 0 ? addr + 7 : addr;
    char trimmed[ADDR_HOST_BYTES + 16];
    struct addr parsed;
    size_t len = strlen(text);

    *client = (struct client){.curl = NULL};
    while (len > 0 && text[len - 1] == '/')
        len--;
    if (len >= sizeof trimmed)
        return ctl_fail(CTL_USAGE, "the node's address is too long");
    memcpy(trimmed, text, len);
    trimmed[len] = 0;
    if (addr_parse(&parsed, trimmed, DEFAULT_PORT))
        return ctl_fail(CTL_USAGE, "'%s' is not an address: HOST, HOST:PORT or [V6]:PORT", addr);
    if (!*parsed.host)
        (void)snprintf(parsed.host, sizeof parsed.host, "127.0.0.1");
    addr_format(client->where, sizeof client->where, &parsed);
    (void)snprintf(client->base, sizeof client->base, "http://%s", client->where);
    return open_curl(client);
}

int client_open_control(struct client *client, const char *state_dir)
{
    char path[SOCKET_PATH_BYTES];
    int fd;

    *client = (struct client){.curl = NULL};
    int rc = control_socket_path(path, state_dir, &fd); /* the descriptor stays: we end soon */
    if (rc)
        return ctl_fail(ctl_exit_of(rc), "%s: %s", state_dir, err_text(rc));
    (void)snprintf(client->where, sizeof client->where, "of %s", state_dir);
    (void)snprintf(client->base, sizeof client->base, "http://localhost");
    if (open_curl(client))
        return CTL_IO;
    if (curl_easy_setopt(client->curl, CURLOPT_UNIX_SOCKET_PATH, path) != CURLE_OK)
        return ctl_fail(CTL_IO, "this libcurl cannot use %s", path);
    return CTL_OK;
}

void client_close(struct client *client)
{
    curl_easy_cleanup(client->curl);
    client->curl = NULL;
}

/* ---- Calls ---- */

void call_header(struct call *call, const char *format, ...)
{
    char line[HEADER_BYTES];
    va_list args;

    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    struct curl_slist *longer =
        len > 0 && (size_t)len < sizeof line ? curl_slist_append(call->headers, line) : NULL;
    if (longer)
        call->headers = longer;
    else
        call->no_memory = true;
}

void call_release(struct call *call)
{
    curl_slist_free_all(call->headers);
    call->headers = NULL;
    buf_release(&call->text);
}

static size_t take_header(char *line, size_t size, size_t count, void *arg)
{
    struct call *call = arg;
    size_t len = size * count;

    if (len > 12 && strncmp(line, "HTTP/", 5) == 0) { /* after a 100 there is another */
        call->etag[0] = 0;
        call->answer_length = -1;
        call->retry_after_s = 0;
        call->status = strtol(line + 9, NULL, 10);
    } else if (len > 5 && strncasecmp(line, "ETag:", 5) == 0) {
        const char *begin = memchr(line, '"', len);
        const char *end = begin ? memchr(begin + 1, '"', len - (size_t)(begin + 1 - line)) : NULL;

        if (end && (size_t)(end - begin) <= sizeof call->etag)
            (void)snprintf(call->etag, sizeof call->etag, "%.*s", (int)(end - begin - 1),
                           begin + 1);
    } else if (len > 15 && strncasecmp(line, "Content-Length:", 15) == 0) {
        call->answer_length = strtoll(line + 15, NULL, 10);
    } else if (len > 12 && strncasecmp(line, "Retry-After:", 12) == 0) {
        call->retry_after_s = (unsigned)strtoul(line + 12, NULL, 10);
    }
    return len;
}

static size_t take_body(char *data, size_t size, size_t count, void *arg)
{
    struct call *call = arg;
    size_t len = size * count;

    if (call->sink && call->status >= 200 && call->status < 300)
        return call->sink(call, data, len) == 0 ? len : 0;
    buf_add(&call->text, data, len);
    return buf_check(&call->text) == 0 ? len : 0;
}

static size_t give_body(char *out, size_t size, size_t count, void *arg)
{
    struct call *call = arg;
    ssize_t len = call->read(call->arg, out, size * count);

    return len < 0 ? CURL_READFUNC_ABORT : (size_t)len;
}

static int rewind_body(void *arg, curl_off_t offset, int origin)
{
    struct call *call = arg;

    if (offset != 0 || origin != SEEK_SET || !call->rewind)
        return CURL_SEEKFUNC_CANTSEEK;
    return call->rewind(call->arg) == 0 ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL;
}

static void set_body(CURL *curl, struct call *call)
{
    if (strcmp(call->method, "GET") == 0) {
        (void)curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
        return;
    }
    assert(strcmp(call->method, "POST") == 0);
    (void)curl_easy_setopt(curl, CURLOPT_POST, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->length);
    if (call->read) {
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, NULL);
        (void)curl_easy_setopt(curl, CURLOPT_READFUNCTION, give_body);
        (void)curl_easy_setopt(curl, CURLOPT_READDATA, call);
        (void)curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, rewind_body);
        (void)curl_easy_setopt(curl, CURLOPT_SEEKDATA, call);
        (void)curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, STREAM_BUFFER);
        if (call->length < 0)
            call_header(call, "Transfer-Encoding: chunked");
    } else {
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, call->body ? call->body : "");
        call_header(call, "Expect:");
    }
}

static int rc_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return 0;
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
        return ERR_CLOSED;
    case CURLE_OPERATION_TIMEDOUT:
        return ERR_TIMEOUT;
    case CURLE_ABORTED_BY_CALLBACK:
    case CURLE_WRITE_ERROR:
        return ERR_INVALID;
    case CURLE_OUT_OF_MEMORY:
        return ERR_NO_MEMORY;
    default:
        return ERR_IO;
    }
}

int client_call(struct client *client, struct call *call)
{
    CURL *curl = client->curl;
    char url[2048];

    if ((size_t)snprintf(url, sizeof url, "%s%s", client->base, call->path) >= sizeof url)
        return ERR_TOO_BIG;
    call->text.limit = ANSWER_MAX_BYTES;
    buf_reset(&call->text);
    call->status = 0;
    *client->error = 0;
    set_body(curl, call);
    if (call->no_memory)
        return ERR_NO_MEMORY;
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, call->headers);
    (void)curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
    (void)curl_easy_setopt(curl, CURLOPT_HEADERDATA, call);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, call);
    (void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, client->error);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_USERAGENT, "objctl/" OBJSTORE_VERSION);
    (void)curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L * 1024);
    (void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    (void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, client->patient ? 0L : STALL_SECONDS);

    CURLcode code = curl_easy_perform(curl);
    /* The header list and the error text belong to others from here on. */
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, NULL);
    if (code != CURLE_OK && !*client->error)
        (void)snprintf(client->error, sizeof client->error, "%s", curl_easy_strerror(code));
    if (code == CURLE_OK)
        client->reached = true;
    return rc_of(code);
}

/* ---- Going on, or not ---- */

static bool is_transient(const struct call *call, int rc)
{
    if (rc)
        return rc == ERR_CLOSED || rc == ERR_TIMEOUT || rc == ERR_IO;
    return call->status == 429 || (call->status >= 502 && call->status <= 504);
}

bool patience_left(struct patience *patience, const struct client *client, const struct call *call,
                   int rc)
{
    uint64_t now = ctl_now_ms();

    if (!is_transient(call, rc) || !client->reached)
        return false;
    if (!patience->until_ms)
        patience->until_ms = now + patience->limit_ms;
    if (now >= patience->until_ms)
        return false;
    uint64_t rest = FIRST_WAIT_MS << (patience->tries < 5 ? patience->tries : 5);
    if (rest > LONGEST_WAIT_MS)
        rest = LONGEST_WAIT_MS;
    rest = rest / 2 + (uint64_t)random() % (rest / 2 + 1); /* not all uploads at once */
    if (rc == 0 && call->retry_after_s && rest < call->retry_after_s * 500u)
        rest = call->retry_after_s * 500u;
    if (now + rest > patience->until_ms)
        rest = patience->until_ms - now;
    patience->tries++;
    wait_ms(rest);
    return true;
}

static int exit_of_status(long status)
{
    switch (status) {
    case 400:
        return CTL_USAGE;
    case 401:
    case 403:
        return CTL_PERMISSION;
    case 404:
    case 410:
        return CTL_NOT_FOUND;
    case 429:
    case 503:
        return CTL_UNREACHABLE;
    default:
        return CTL_REFUSED;
    }
}

int client_complain(const struct client *client, const struct call *call, int rc, const char *what)
{
    if (rc == ERR_NO_MEMORY)
        return ctl_fail(CTL_IO, "%s: out of memory", what);
    if (rc)
        return ctl_fail(rc == ERR_INVALID ? CTL_REFUSED : CTL_UNREACHABLE, "%s: node %s: %s", what,
                        client->where, *client->error ? client->error : err_text(rc));
    if (call->status >= 200 && call->status < 300)
        return CTL_OK;

    json_t *json = call->text.len ? json_loadb(call->text.data, call->text.len, 0, NULL) : NULL;
    json_t *error = json_object_get(json, "error");
    const char *code = json_string_value(json_object_get(error, "code"));
    const char *message = json_string_value(json_object_get(error, "message"));

    if (message)
        (void)ctl_fail(0, "%s: %s (%ld %s)", what, message, call->status, code ? code : "");
    else
        (void)ctl_fail(0, "%s: the node answers %ld", what, call->status);
    json_decref(json);
    return exit_of_status(call->status);
}
