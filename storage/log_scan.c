/*
 * Walking along one segment, for recovery and cleaning. Nothing here trusts a byte of the file.
 *
 * The file is read through a window: forward in growing steps, at most one batch and a step in
 * memory at a time. scan_next names what stands at the present offset. A batch counts when its
 * header bears its own LSN, the heads of its records lead exactly to its end, and the checksum over
 * all of that is right; whether each record's event is whole is told record by record. Where no
 * such batch stands, every multiple of 512 behind is tried, up to the end of the file: so damage
 * never hides what comes after it. Whether damage is rot or a torn tail is the caller's to judge;
 * inside rot, scan_salvage finds the records that are still whole by trying every multiple of 8.
 *
 * A part of the file that the disk cannot read (ERR_IO), also when asked again, is treated as
 * damage, 4096 bytes at a time, and remembered in window.unreadable, so that nobody takes it for
 * rot or a torn tail and passes over what another day might read.
 */
#include "storage/log_internal.h"

#include <assert.h>
#include <stdlib.h>

#define FIRST_STEP   (64 * KIB)
#define LARGEST_STEP (1 * MIB)
#define RETRY_BYTES  4096
#define READ_TRIES   3
/* How far before an offset the batch that contains it can begin. */
#define REACH LIMIT_BATCH_BYTES

static bool all_zero(const uint8_t *data, size_t len)
{
    return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

static int read_again(struct window *window, uint8_t *buf, size_t len, uint64_t offset)
{
    int rc = ERR_IO;

    for (int i = 0; rc == ERR_IO && i < READ_TRIES; i++)
        rc = io_read(window->io, window->fd, buf, len, offset, false);
    return rc;
}

/* Read [offset, offset + len) of the file to BUF piece by piece; what cannot be read becomes 0xff,
 * which is neither zero fill nor any header of ours. */
static int read_pieces(struct window *window, uint8_t *buf, size_t len, uint64_t offset)
{
    while (len > 0) {
        size_t step = RETRY_BYTES - offset % RETRY_BYTES;

        if (step > len)
            step = len;
        int rc = read_again(window, buf, step, offset);
        if (rc == ERR_IO) {
            memset(buf, 0xff, step);
            if (offset < window->unreadable && offset + step > window->needed)
                window->unreadable = offset;
        } else if (rc) {
            return rc;
        }
        buf += step;
        offset += step;
        len -= step;
    }
    return 0;
}

/* *OUT: LEN bytes of the file at OFFSET, valid until the next call. All of it is below the size. */
static int window_get(struct window *window, uint64_t offset, size_t len, const uint8_t **out)
{
    assert(offset <= window->size && len <= window->size - offset);
    assert(len <= LIMIT_BATCH_BYTES + BATCH_ALIGN);

    uint64_t have_end = window->at + window->len;
    if (offset >= window->at && offset + len <= have_end) {
        *out = window->data + (offset - window->at);
        return 0;
    }
    size_t kept = offset >= window->at && offset < have_end ? (size_t)(have_end - offset) : 0;
    size_t want = len > window->step ? len : window->step;
    if (want > window->size - offset)
        want = (size_t)(window->size - offset);
    if (kept > 0)
        memmove(window->data, window->data + (offset - window->at), kept);
    window->at = offset;
    window->len = kept;
    if (want > window->cap) {
        uint8_t *grown = realloc(window->data, want);
        if (!grown)
            return ERR_NO_MEMORY;
        window->data = grown;
        window->cap = want;
    }
    int rc =
        io_read(window->io, window->fd, window->data + kept, want - kept, offset + kept, false);
    if (rc == ERR_IO)
        rc = read_pieces(window, window->data + kept, want - kept, offset + kept);
    if (rc)
        return rc;
    window->len = want;
    if (window->step < LARGEST_STEP)
        window->step *= 2;
    *out = window->data;
    return 0;
}

int scan_init(struct scan *scan, struct io *io, int fd, uint64_t size, lsn_t base, uint64_t salt,
              uint64_t offset)
{
    assert(offset % BATCH_ALIGN == 0 && offset >= SEGMENT_HEADER_BYTES);
    *scan = (struct scan){
        .window = {.io = io,
                   .fd = fd,
                   .step = FIRST_STEP,
                   .size = size > offset ? size : offset,
                   .unreadable = UINT64_MAX},
        .base = base,
        .salt = salt,
        .offset = offset,
        .checks = malloc(LIMIT_BATCH_RECORDS * sizeof(uint64_t)),
    };
    return scan->checks ? 0 : ERR_NO_MEMORY;
}

void scan_release(struct scan *scan)
{
    free(scan->window.data);
    free(scan->checks);
    scan->window.data = NULL;
    scan->checks = NULL;
}

/* Whether the record that IN begins with is one of ours at LSN and ends within LEFT bytes. */
static bool record_head(const struct scan *scan, const uint8_t *in, lsn_t lsn, uint64_t left,
                        struct record_header *out)
{
    return left >= RECORD_HEADER_BYTES && record_header_decode(out, in) == 0 &&
           record_header_check(in, scan->salt, lsn) && record_bytes(out) <= left;
}

/* 1 where a whole batch stands at OFFSET, 0 where not, or an error. *HEADER: what stands there,
 * zero where it is not even plausible. */
static int batch_at(struct scan *scan, uint64_t offset, struct batch_header *header)
{
    const uint8_t *in;
    uint64_t left = scan->window.size - offset;

    *header = (struct batch_header){0};
    if (left < BATCH_HEADER_BYTES)
        return 0;
    int rc = window_get(&scan->window, offset, BATCH_HEADER_BYTES, &in);
    if (rc)
        return rc;
    if (batch_header_decode(header, in, scan->base + offset) || header->length_bytes > left) {
        *header = (struct batch_header){0};
        return 0;
    }

    uint64_t at = BATCH_HEADER_BYTES, length = header->length_bytes;
    struct record_header record;
    if (header->records > 0) {
        /* A body may hold what looks like a batch's header, on purpose; nobody outside can forge a
         * record's head. So look at one before reading all that the header claims. */
        rc = window_get(&scan->window, offset, BATCH_HEADER_BYTES + RECORD_HEADER_BYTES, &in);
        if (rc)
            return rc;
        if (!record_head(scan, in + at, scan->base + offset + at, length - at, &record))
            return 0;
    } else if (length != BATCH_HEADER_BYTES) {
        return 0;
    }
    rc = window_get(&scan->window, offset, (size_t)length, &in);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < header->records; i++) {
        if (!record_head(scan, in + at, scan->base + offset + at, length - at, &record))
            return 0;
        scan->checks[i] = record.check;
        at += record_bytes(&record);
    }
    return at == length &&
           batch_checksum(in, scan->salt, scan->checks, header->records) == header->checksum;
}

/* Look for the next batch after FROM, where none is: *FOUND is its offset, or the window's size.
 * *USED: the end of the last sector before it that is not zero, FROM where all are. */
static int probe(struct scan *scan, uint64_t from, uint64_t *found, uint64_t *used)
{
    struct batch_header header;
    uint64_t size = scan->window.size;

    *found = size;
    *used = from;
    for (uint64_t at = from; at < size; at += BATCH_ALIGN) {
        const uint8_t *in;
        size_t len = size - at < BATCH_ALIGN ? (size_t)(size - at) : BATCH_ALIGN;
        int rc = window_get(&scan->window, at, len, &in);

        if (rc)
            return rc;
        if (all_zero(in, len))
            continue;
        rc = at > from ? batch_at(scan, at, &header) : 0;
        if (rc < 0)
            return rc;
        if (rc == 1) {
            *found = at;
            return 0;
        }
        *used = at + len;
    }
    return 0;
}

/* Whether the sector at the present offset is all zero, or beyond the file. */
static int at_zeros(struct scan *scan, bool *out)
{
    const uint8_t *in;
    uint64_t left = scan->window.size - scan->offset;
    size_t len = left < BATCH_ALIGN ? (size_t)left : BATCH_ALIGN;
    int rc = window_get(&scan->window, scan->offset, len, &in);

    *out = !rc && all_zero(in, len);
    return rc;
}

int scan_next(struct scan *scan, struct scan_item *out)
{
    uint64_t from = scan->offset, size = scan->window.size;

    *out = (struct scan_item){.kind = SCAN_TAIL, .from = from, .to = from};
    if (from >= size)
        return 0;
    int rc = batch_at(scan, from, &out->header);
    if (rc < 0)
        return rc;
    if (rc == 1) {
        out->kind = SCAN_BATCH;
        out->to = from + log_align(out->header.length_bytes, BATCH_ALIGN);
        /* A writer that continues a segment after a restart begins a chain anew. */
        out->chain_broken =
            scan->chained && out->header.previous != 0 && out->header.previous != scan->previous;
        scan->previous = out->header.checksum;
        scan->chained = true;
        scan->offset = out->to;
        return 0;
    }
    if (scan->trust_zeros && scan->base + from >= scan->durable) {
        bool zeros;

        rc = at_zeros(scan, &zeros);
        if (rc || zeros)
            return rc;
    }
    uint64_t found, used;
    rc = probe(scan, from, &found, &used);
    if (rc)
        return rc;
    scan->offset = found;
    scan->chained = false;
    if (found < size) {
        out->kind = SCAN_DAMAGE;
        out->to = found;
    } else {
        out->to = used;
    }
    return 0;
}

int scan_seek(struct scan *scan, uint64_t offset)
{
    uint64_t top = offset < scan->window.size ? offset : scan->window.size;
    struct batch_header header;

    top -= top % BATCH_ALIGN;
    if (top < SEGMENT_HEADER_BYTES)
        top = SEGMENT_HEADER_BYTES;
    uint64_t bottom = top > REACH + SEGMENT_HEADER_BYTES ? top - REACH : SEGMENT_HEADER_BYTES;

    /* Backwards in windows that double, so that a small batch costs a small read. */
    scan->offset = top;
    scan->chained = false;
    uint64_t at = top + BATCH_ALIGN;
    for (uint64_t reach = FIRST_STEP; at > bottom; reach *= 2) {
        uint64_t low = at > bottom + reach ? at - reach : bottom;
        const uint8_t *in;

        if (low < scan->window.size) {
            size_t len = (size_t)((at < scan->window.size ? at : scan->window.size) - low);
            int rc = window_get(&scan->window, low, len, &in);
            if (rc)
                return rc;
        }
        while (at > low) {
            at -= BATCH_ALIGN;
            int rc = at < scan->window.size ? batch_at(scan, at, &header) : 0;
            if (rc < 0)
                return rc;
            if (rc == 1) {
                scan->offset = at;
                return 0;
            }
        }
    }
    return 0;
}

bool scan_record(struct scan *scan, const struct scan_item *item, uint64_t *at,
                 struct record_view *out, int *rc)
{
    uint64_t end = item->from + item->header.length_bytes;
    struct record_header header;
    const uint8_t *in;

    assert(item->kind == SCAN_BATCH && *at >= item->from + BATCH_HEADER_BYTES);
    if (*at >= end)
        return false;
    *rc = window_get(&scan->window, item->from, (size_t)item->header.length_bytes, &in);
    if (*rc)
        return true;
    in += *at - item->from;
    /* The heads were checked with the batch; only a disk that answers differently twice gets here
     * with another one. */
    if (!record_head(scan, in, scan->base + *at, end - *at, &header)) {
        *rc = ERR_IO;
        return true;
    }
    *rc = record_decode(out, in, (size_t)record_bytes(&header), scan->salt, scan->base + *at);
    *at += record_bytes(&header);
    return true;
}

int scan_salvage(struct scan *scan, uint64_t *at, uint64_t to, struct record_view *out)
{
    if (to > scan->window.size)
        to = scan->window.size;
    for (; to >= RECORD_HEADER_BYTES && *at <= to - RECORD_HEADER_BYTES; *at += 8) {
        struct record_header header;
        const uint8_t *in;
        int rc = window_get(&scan->window, *at, RECORD_HEADER_BYTES, &in);

        if (rc)
            return rc;
        if (!record_head(scan, in, scan->base + *at, to - *at, &header))
            continue;
        size_t len = (size_t)record_bytes(&header);
        rc = window_get(&scan->window, *at, len, &in);
        if (rc)
            return rc;
        if (record_decode(out, in, len, scan->salt, scan->base + *at))
            continue;
        *at += len;
        return 1;
    }
    return 0;
}
