/*
 * One line per event on stderr.
 *
 * A message is printed into a buffer on the stack, then copied into the line with everything that
 * could end or forge a line escaped: \n, \r, \t, \xNN in text, \u00NN in JSON; bytes that are not
 * UTF-8 become \xNN in text and U+FFFD in JSON. The line goes out in one write(2), so that lines of
 * several threads never mix. A log that cannot be written is no reason to stop serving: errors of
 * that write are dropped.
 */
#include "base/log.h"

#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 2048
#define TAIL_BYTES 8  /* room kept for "...", the end of a JSON object and the newline */
#define TIME_BYTES 40 /* "2026-01-31T12:34:56.789Z", and years beyond 9999 */

static enum log_level max_level = LOG_INFO;
static enum log_format line_format = LOG_TEXT;

struct line {
    char text[LINE_BYTES];
    size_t len;
    bool cut;
};

void log_configure(enum log_level level, enum log_format format)
{
    __atomic_store_n(&max_level, level, __ATOMIC_RELAXED);
    __atomic_store_n(&line_format, format, __ATOMIC_RELAXED);
}

bool log_enabled(enum log_level level)
{
    return level <= __atomic_load_n(&max_level, __ATOMIC_RELAXED);
}

static void add(struct line *line, const char *text, size_t len)
{
    if (line->cut || len > sizeof line->text - TAIL_BYTES - line->len) {
        line->cut = true;
        return;
    }
    memcpy(line->text + line->len, text, len);
    line->len += len;
}

/* The end of a line always fits: ADD leaves room for it. */
static void add_tail(struct line *line, const char *text)
{
    size_t len = strlen(text);

    assert(len <= sizeof line->text - line->len);
    memcpy(line->text + line->len, text, len);
    line->len += len;
}

/* Add what begins at TEXT, one character or one bad byte; its length. */
static size_t add_escaped(struct line *line, const char *text, size_t len, enum log_format format)
{
    size_t step = utf8_char(text, len);
    unsigned char c = (unsigned char)*text;
    bool json = format == LOG_JSON;
    char escape[8];

    if (step == 0 && json) {
        add(line, "\xef\xbf\xbd", 3);
    } else if (c == '\n') {
        add(line, "\\n", 2);
    } else if (c == '\r') {
        add(line, "\\r", 2);
    } else if (c == '\t') {
        add(line, "\\t", 2);
    } else if (step == 2 && text_has_control(text, 2)) {
        /* A C1 control, U+0080 to U+009F: its second byte is its number. */
        unsigned char code = (unsigned char)text[1];
        add(line, escape, (size_t)snprintf(escape, sizeof escape, "\\u00%02x", code));
    } else if (step == 0 || c < 0x20 || c == 0x7f) {
        add(line, escape,
            (size_t)snprintf(escape, sizeof escape, json ? "\\u00%02x" : "\\x%02x", c));
    } else if (json && (c == '"' || c == '\\')) {
        add(line, (const char[]){'\\', (char)c}, 2);
    } else {
        add(line, text, step);
    }
    return step ? step : 1;
}

static void print_time(char out[TIME_BYTES])
{
    struct timespec now = {0};
    struct tm utc = {0};

    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    size_t len = strftime(out, TIME_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(out + len, TIME_BYTES - len, ".%03dZ", (int)(now.tv_nsec / 1000000 % 1000));
}

static void add_head(struct line *line, enum log_level level, enum log_format format)
{
    static const char *const names[] = {"ERROR", "WARN", "INFO", "DEBUG"};
    static const char *const json_names[] = {"error", "warn", "info", "debug"};
    char time[TIME_BYTES], head[TIME_BYTES + 64];
    int len;

    assert(level >= LOG_ERROR && level <= LOG_DEBUG);
    print_time(time);
    if (format == LOG_JSON)
        len = snprintf(head, sizeof head, "{\"time\":\"%s\",\"level\":\"%s\",\"message\":\"", time,
                       json_names[level]);
    else
        len = snprintf(head, sizeof head, "%s %-5s ", time, names[level]);
    assert(len > 0 && (size_t)len < sizeof head);
    add(line, head, (size_t)len);
}

void log_line(enum log_level level, const char *format, ...)
{
    if (!log_enabled(level))
        return;
    int errno_before = errno;
    enum log_format kind = __atomic_load_n(&line_format, __ATOMIC_RELAXED);
    struct line line = {.len = 0};
    char message[LINE_BYTES];
    va_list args;

    va_start(args, format);
    int printed = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    size_t len = printed < 0 ? 0 : (size_t)printed;
    if (len >= sizeof message)
        len = sizeof message - 1; /* never fits the line, which is cut below */

    add_head(&line, level, kind);
    for (size_t i = 0; i < len && !line.cut;)
        i += add_escaped(&line, message + i, len - i, kind);
    if (line.cut)
        add_tail(&line, "...");
    add_tail(&line, kind == LOG_JSON ? "\"}\n" : "\n");

    for (size_t done = 0; done < line.len;) {
        ssize_t wrote = write(STDERR_FILENO, line.text + done, line.len - done);

        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            break;
        done += (size_t)wrote;
    }
    errno = errno_before;
}
