/*
 * There is one terminal, so there is one progress line, and it is static. Threads add to counters;
 * whoever adds after a tenth of a second draws.
 */
#include "cmd/objctl_progress.h"

#include "cmd/objctl_http.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DRAW_EVERY_MS 100
#define WHAT_BYTES    40
#define BAR_CELLS     20

static struct {
    bool on, items;
    char what[WHAT_BYTES + 1];
    uint64_t total, begun_ms;
    _Atomic uint64_t bytes, count, drawn_ms;
} line;

static unsigned columns(void)
{
    struct winsize size;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

static void draw(uint64_t now)
{
    char text[256], done[SIZE_TEXT_BYTES], rate[SIZE_TEXT_BYTES], middle[96] = "";
    uint64_t bytes = atomic_load(&line.bytes), count = atomic_load(&line.count);
    uint64_t taken_ms = now - line.begun_ms;
    uint64_t per_second = taken_ms ? bytes * 1000 / taken_ms : 0;

    ctl_size(done, bytes);
    ctl_size(rate, per_second);
    if (line.items) {
        (void)snprintf(middle, sizeof middle, "%llu files, ", (unsigned long long)count);
    } else if (line.total) {
        unsigned percent =
            (unsigned)(bytes >= line.total ? 100 : 100.0 * (double)bytes / (double)line.total);
        unsigned cells = percent * BAR_CELLS / 100;
        uint64_t left = bytes < line.total ? line.total - bytes : 0;
        int at = snprintf(middle, sizeof middle, "[%.*s%*s] %3u%%  ", (int)cells,
                          "====================", (int)(BAR_CELLS - cells), "", percent);

        if (per_second && left && at > 0 && (size_t)at < sizeof middle)
            (void)snprintf(middle + at, sizeof middle - (size_t)at, "%u s left  ",
                           (unsigned)(left / per_second) + 1);
    }
    int len = snprintf(text, sizeof text, "%s  %s%s, %s/s", line.what, middle, done, rate);
    unsigned width = columns() - 1;
    if (len < 0)
        return;
    if ((unsigned)len > width)
        len = (int)width;
    char out[288];
    len = snprintf(out, sizeof out, "\r%.*s\033[K", len, text);
    if (len > 0)
        (void)!write(STDERR_FILENO, out, (size_t)len);
}

void progress_begin(const struct ctl *ctl, const char *what, uint64_t total_bytes, bool items)
{
    line.on = !ctl->quiet && isatty(STDERR_FILENO);
    line.items = items;
    line.total = total_bytes;
    line.begun_ms = ctl_now_ms();
    (void)snprintf(line.what, sizeof line.what, "%s", what);
    for (char *c = line.what; *c; c++) { /* a name must not steer the terminal */
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    }
    atomic_store(&line.bytes, 0);
    atomic_store(&line.count, 0);
    atomic_store(&line.drawn_ms, line.begun_ms);
}

void progress_add(uint64_t bytes, uint64_t items)
{
    atomic_fetch_add(&line.bytes, bytes);
    atomic_fetch_add(&line.count, items);
    if (!line.on)
        return;
    uint64_t now = ctl_now_ms(), drawn = atomic_load(&line.drawn_ms);
    if (now - drawn >= DRAW_EVERY_MS && atomic_compare_exchange_strong(&line.drawn_ms, &drawn, now))
        draw(now);
}

void progress_reset(void)
{
    atomic_store(&line.bytes, 0);
}

void progress_end(void)
{
    if (line.on)
        (void)!write(STDERR_FILENO, "\r\033[K", 4);
    line.on = false;
}
