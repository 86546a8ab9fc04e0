/*
 * What the parts of the log share: the set of segments (log.c), the writer (log_write.c), upkeep
 * (log_prepare.c) and recovery (log_recover.c) over the walk along a segment (log_scan.c). Nobody
 * else includes this.
 */
#ifndef STORAGE_LOG_INTERNAL_H
#define STORAGE_LOG_INTERNAL_H

#include "base/io.h"
#include "storage/log.h"

#include <pthread.h>
#include <stdatomic.h>

/* Read descriptors kept open at most; beyond it the one that was idle longest is closed. */
#define LOG_OPEN_FILES 512
/* Largest body that the writer copies beside its header instead of pointing at it. */
#define LOG_COPY_BYTES 4096

/* One file of the log. */
struct segment {
    uint32_t volume, disk;
    lsn_t base;
    /* Changed with the log's mutex held; read so by other threads than the changing one. */
    uint64_t end;    /* where the next batch would go; of a sealed one: where its batches end */
    uint64_t filled; /* the file reaches up to here, with zeros behind END */
    bool sealed;     /* never written again */
    bool exact;      /* END of this sealed one is known for sure, not just an upper bound */
    bool removed;
    unsigned readers; /* who uses it now; gone and closed when 0 and removed */
    uint64_t used_at; /* log->clock when last taken, for the choice of what to close */
    int fd;           /* -1: not open; only reading until it is written to */
    bool header_known;
    bool read_only; /* it has a feature that this build can only read */
    uint64_t salt;  /* once header_known, as read_only */
};

/* A body that goes to the disk from where the caller has it. */
struct log_piece {
    size_t at; /* it follows this many bytes of the arena */
    const void *data;
    uint32_t len;
};

/* The batch that is being built, the committer's alone. */
struct log_batch {
    bool open;
    uint64_t hlc;
    uint64_t offset; /* in the active segment */
    uint64_t length;
    uint32_t records;
    uint8_t *arena; /* headers, sums, events, small bodies, padding, in order */
    size_t used, cap;
    struct log_piece *pieces;
    uint32_t piece_count;
    struct iovec *iov;
    uint64_t *checks;
};

struct scan;

struct log {
    struct env *env;
    struct io *io;
    char *dir; /* FILES/log */
    struct id128 store;
    uint64_t segment_bytes; /* a segment is left when it would grow beyond */
    uint64_t limit_bytes;   /* and never is larger: room for one largest record at least */
    uint64_t batch_bytes;   /* a batch's bound, unless it is one large record */
    bool sync, skip_unreadable;

    pthread_mutex_t mutex; /* the set, and the fields of segments as said there */
    pthread_cond_t fill_done;
    struct segment **segments; /* ascending; NEXT is not among them */
    size_t count, cap;
    size_t open_files;
    uint64_t clock;
    struct segment *active; /* changed by the committer alone, mutex held */
    struct segment *next;   /* prepared; may be NULL */
    uint32_t next_volume;
    lsn_t next_base;
    bool refused; /* a recovery or scan ended because the disk did not read here */
    uint32_t refused_volume;
    uint64_t refused_offset;

    /* Zero filling: see log_prepare.c. Mutex held. */
    uint32_t trim_volume;    /* sealed with much unused zeros behind it; 0: none */
    struct segment *filling; /* a range of zeros is being written to it, [fill_from, fill_to) */
    uint64_t fill_from, fill_to;
    uint64_t ahead;      /* how far the zeros shall be ahead of the writer */
    uint64_t batch_mean; /* bytes of the last batches: the latest counts an eighth */
    /* The janitor's own. */
    int fill_fd; /* its own descriptor: an error of the disk is told once for each */
    uint32_t fill_volume;
    lsn_t fill_seen;   /* the log's end at its last look */
    lsn_t fill_mark;   /* the log's end when `ahead` last was enough, or was changed */
    bool fill_refused; /* a warning was written; say it once */

    pthread_mutex_t create_mutex; /* held while a segment file is made */
    pthread_mutex_t sync_mutex;   /* held during a sync of what the writer wrote */

    _Atomic lsn_t end, synced;
    _Atomic lsn_t durable; /* really on disk: what a batch header may claim; <= synced */
    _Atomic bool poisoned;
    bool ready;        /* recovery is over */
    uint64_t previous; /* checksum of the last batch in the active segment, 0 where unknown */
    struct log_batch batch;
};

static inline uint64_t log_align(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* ---- log.c ---- */

/* FILES/log/%08x.seg in a fresh string, or NULL. */
char *log_path(const struct log *log, uint32_t volume) MUST_CHECK;

/* Find segment VOLUME and hold it: ERR_NOT_FOUND where it is gone. Opens nothing. */
int log_take(struct log *log, uint32_t volume, struct segment **out) MUST_CHECK;
/* Give back what log_take or log_hold gave. */
void log_give(struct log *log, struct segment *segment);
/* Hold a segment that is known to be alive; the mutex is held. */
void log_hold(struct log *log, struct segment *segment);
/* See to it that a held segment has its file open and its header known. */
int log_need_file(struct log *log, struct segment *segment) MUST_CHECK;

/* Take the descriptor of the file that was idle longest away from it, where the bound on open files
 * is reached, to be closed by the caller once the mutex, which is held, is free; otherwise -1. */
int log_idle_file(struct log *log);

/* Append SEGMENT to the set, which owns it from then on. The mutex is held. */
int log_insert(struct log *log, struct segment *segment) MUST_CHECK;
/* A segment without a file yet; NULL where memory is short. */
struct segment *segment_new(uint32_t volume, lsn_t base) MUST_CHECK;
/* Close its file and free it; NULL-safe. */
void segment_free(struct log *log, struct segment **segment);

/* What the disk refused to give to SCAN of SEGMENT may be whole another time: 0 where there is
 * nothing such, or it is to be skipped; else ERR_IO, and log_unreadable knows. */
int log_refuse_gap(struct log *log, const struct segment *segment,
                   const struct scan *scan) MUST_CHECK;

/* ---- log_write.c ---- */

/* Write the file of the next segment, durably; it becomes log->next. create_mutex is held. */
int log_create_next(struct log *log) MUST_CHECK;
int log_batch_init(struct log_batch *batch) MUST_CHECK;
void log_batch_release(struct log_batch *batch);

/* ---- log_prepare.c ---- */

/* Announce that the writer is about to write [from, to) of SEGMENT. Waits only where zeros are
 * being written right there. */
void log_fill_yield(struct log *log, struct segment *segment, uint64_t from, uint64_t to);
void log_fill_close(struct log *log);

/* ---- log_scan.c: walking along one segment ---- */

/* A window on a file, read forward with large reads. */
struct window {
    struct io *io;
    int fd;
    uint8_t *data;
    size_t cap, len, step;
    uint64_t at;
    uint64_t size;       /* of what may be read: the file's, or less */
    uint64_t needed;     /* what lies below is not asked for: it may be unreadable */
    uint64_t unreadable; /* the lowest offset that the disk refused to give; UINT64_MAX: none */
};

struct scan {
    struct window window;
    lsn_t base;
    uint64_t salt;
    uint64_t offset;   /* where scan_next looks */
    uint64_t previous; /* checksum of the batch before */
    bool chained;      /* previous is known */
    bool trust_zeros;  /* zeros where a batch would be end the segment: do not look beyond */
    lsn_t durable;     /* zeros below are not trusted: a batch is known to have been there */
    uint64_t *checks;  /* LIMIT_BATCH_RECORDS of them */
};

enum scan_kind {
    SCAN_BATCH,  /* a batch whose checksum is right, at [from, to) with its padding */
    SCAN_DAMAGE, /* [from, to) is no batch; one begins at TO */
    SCAN_TAIL,   /* no batch begins at or after FROM; TO: after the last sector that is not zero,
                    FROM where all are */
};

struct scan_item {
    enum scan_kind kind;
    uint64_t from, to;
    struct batch_header header; /* of a SCAN_BATCH; else what FROM claims to be, zero if nothing */
    bool chain_broken;          /* it names another batch before it than the one that is there */
};

/* Prepare to walk a file (FD is lent) of SIZE bytes from OFFSET (a multiple of 512, not inside the
 * segment header). */
int scan_init(struct scan *scan, struct io *io, int fd, uint64_t size, lsn_t base, uint64_t salt,
              uint64_t offset) MUST_CHECK;
void scan_release(struct scan *scan);

/* What comes next. After SCAN_TAIL there is nothing more. Errors: ERR_NO_MEMORY, or what the disk
 * said other than ERR_IO, which counts as damage (window.unreadable). */
int scan_next(struct scan *scan, struct scan_item *out) MUST_CHECK;

/* Move to the start of the batch that contains or ends at OFFSET, or to OFFSET itself where there
 * is none to be found in reach. */
int scan_seek(struct scan *scan, uint64_t offset) MUST_CHECK;

/* Walk over the records of a SCAN_BATCH: *AT begins as item.from + BATCH_HEADER_BYTES; true with
 * *RC and *OUT set for each record, false at the end. *RC: 0, ERR_CORRUPT for a rotten record, or
 * another error, which ends the walk. *OUT is valid until the scan is used otherwise. */
bool scan_record(struct scan *scan, const struct scan_item *item, uint64_t *at,
                 struct record_view *out, int *rc);

/* Find the next whole record at or after *AT in damage that ends at TO: 1 with *OUT set and *AT
 * after it, 0 where there is none, or an error. */
int scan_salvage(struct scan *scan, uint64_t *at, uint64_t to, struct record_view *out) MUST_CHECK;

#endif
