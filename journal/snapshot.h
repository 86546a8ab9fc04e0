/*
 * Snapshots as bytes: everything this node knows, in chunks that are log records of their own, so
 * that the events below need not be kept. docs/JOURNAL.md has the format. Pure.
 *
 * A chunk is one msgpack array [2, snapshot bin16, index, kind, [item, …]]; the kinds say what the
 * items are (a snapshot of version 1 has no holders and members). Chunks are numbered from 0
 * without gaps; the end chunk names their count and a hash over all of them, and a snapshot that
 * lacks one of them does not count. The order in which they are met says nothing, since cleaning
 * may have moved some.
 */
#ifndef JOURNAL_SNAPSHOT_H
#define JOURNAL_SNAPSHOT_H

#include "base/buf.h"
#include "journal/object.h"
#include "journal/unpack.h"
#include "storage/segment.h"

/* A chunk travels as a record's event. */
#define SNAPSHOT_CHUNK_BYTES LIMIT_EVENT_BYTES

enum snapshot_kind {
    SNAPSHOT_BEGIN = 0,   /* one struct snapshot_begin */
    SNAPSHOT_ORIGINS = 1, /* struct snapshot_origin: the vector */
    SNAPSHOT_ROWS = 2,    /* struct object */
    SNAPSHOT_OUTBOX = 3,  /* struct snapshot_owed */
    SNAPSHOT_GARBAGE = 4, /* struct snapshot_garbage */
    SNAPSHOT_HOLDERS = 5, /* struct snapshot_holder */
    SNAPSHOT_MEMBERS = 6, /* struct snapshot_member */
    SNAPSHOT_FEATURE = 7, /* the cluster's feature level */
    SNAPSHOT_LOSERS = 8,  /* struct object: bytes that lost under their id and are kept */
    SNAPSHOT_BEGUN = 9,   /* struct snapshot_owed: uploads that this node began (OUTBOX_BEGUN) */
    SNAPSHOT_END = 255,   /* one struct snapshot_end */
};

/* What was true in the moment that the snapshot covers. Counters and digest are for information:
 * the rows, which were read later, may be ahead of them. */
struct snapshot_begin {
    lsn_t position; /* covered: every record below is in the rows */
    hlc_time hlc;
    struct id128 node, last_origin;
    uint64_t events, objects, deleted, bytes, made_ms; /* made_ms: Unix time */
    struct hash128 digest;
};

/* A run: its events up to SEQ are covered. */
struct snapshot_origin {
    struct id128 origin, node;
    uint64_t seq;
    uint8_t hash[SHA256_BYTES]; /* of event SEQ */
    bool ended;
};

struct snapshot_owed { /* an upload, owed or begun, as the chunk's kind says */
    struct id128 id;
    uint64_t since_ms;
};

struct snapshot_garbage { /* a large file to be unlinked */
    lsn_t freed_at;
    uint64_t file;
};

/* What NODE said last about its copy of (id, sha256). */
struct snapshot_holder {
    struct id128 id, node;
    uint8_t sha256[SHA256_BYTES];
    bool held;
    struct reg at;
};

struct snapshot_member {
    struct id128 node;
    enum member_state state;
    struct reg at;
    struct text address; /* reading: inside the chunk */
};

struct snapshot_end {
    lsn_t position; /* as begin's */
    lsn_t previous; /* of the complete snapshot before; 0: there was none. What only that one covers
                       may leave the log now. */
    uint32_t chunks;            /* this one included */
    uint8_t hash[SHA256_BYTES]; /* SHA-256 over the SHA-256 of each chunk before, in order */
};

/* ---- Writing ---- */

/* A chunk in the making. */
struct snapshot_writer {
    enum snapshot_kind kind;
    struct buf items;
    uint32_t count;
};

void snapshot_writer_init(struct snapshot_writer *writer);
void snapshot_writer_release(struct snapshot_writer *writer);
/* Begin a chunk of KIND; what was in it is forgotten. */
void snapshot_begin_chunk(struct snapshot_writer *writer, enum snapshot_kind kind);
/* Add one item of the chunk's kind. ERR_FULL: it belongs into the next chunk; ERR_NO_MEMORY. */
int snapshot_add_begin(struct snapshot_writer *writer,
                       const struct snapshot_begin *begin) MUST_CHECK;
int snapshot_add_origin(struct snapshot_writer *writer,
                        const struct snapshot_origin *origin) MUST_CHECK;
int snapshot_add_row(struct snapshot_writer *writer, const struct object *object) MUST_CHECK;
int snapshot_add_loser(struct snapshot_writer *writer, const struct object *loser) MUST_CHECK;
/* To a chunk of either kind. */
int snapshot_add_owed(struct snapshot_writer *writer, const struct snapshot_owed *owed) MUST_CHECK;
int snapshot_add_garbage(struct snapshot_writer *writer,
                         const struct snapshot_garbage *garbage) MUST_CHECK;
int snapshot_add_holder(struct snapshot_writer *writer,
                        const struct snapshot_holder *holder) MUST_CHECK;
int snapshot_add_member(struct snapshot_writer *writer,
                        const struct snapshot_member *member) MUST_CHECK;
int snapshot_add_feature(struct snapshot_writer *writer, uint32_t feature) MUST_CHECK;
int snapshot_add_end(struct snapshot_writer *writer, const struct snapshot_end *end) MUST_CHECK;
/* Append the finished chunk to OUT: at most SNAPSHOT_CHUNK_BYTES; OUT's error is sticky. */
void snapshot_end_chunk(struct snapshot_writer *writer, const struct id128 *snapshot,
                        uint32_t index, struct buf *out);

/* ---- Reading: bytes that nobody trusts ---- */

struct snapshot_reader {
    struct unpack in;
    struct id128 snapshot;
    uint32_t version, index, kind;
    uint32_t left; /* items still to come */
};

/* Read the head of a chunk; DATA must outlive the reader. ERR_INVALID: not a chunk; ERR_FORMAT: of
 * a newer version. Kinds that this build does not know are for the caller to refuse. */
int snapshot_open(struct snapshot_reader *reader, const void *data, size_t len) MUST_CHECK;
/* The next item, of the chunk's kind: 1; 0: there was no more, and the chunk was whole;
 * ERR_INVALID, ERR_FORMAT (a row with members that this build does not know), ERR_NO_MEMORY. */
int snapshot_next_begin(struct snapshot_reader *reader, struct snapshot_begin *out) MUST_CHECK;
int snapshot_next_origin(struct snapshot_reader *reader, struct snapshot_origin *out) MUST_CHECK;
/* The caller destroys *OUT. */
int snapshot_next_row(struct snapshot_reader *reader, struct object **out) MUST_CHECK;
/* Likewise; a loser without a place or a put is ERR_INVALID. */
int snapshot_next_loser(struct snapshot_reader *reader, struct object **out) MUST_CHECK;
int snapshot_next_owed(struct snapshot_reader *reader, struct snapshot_owed *out) MUST_CHECK;
int snapshot_next_garbage(struct snapshot_reader *reader, struct snapshot_garbage *out) MUST_CHECK;
int snapshot_next_holder(struct snapshot_reader *reader, struct snapshot_holder *out) MUST_CHECK;
int snapshot_next_member(struct snapshot_reader *reader, struct snapshot_member *out) MUST_CHECK;
int snapshot_next_feature(struct snapshot_reader *reader, uint32_t *out) MUST_CHECK;
int snapshot_next_end(struct snapshot_reader *reader, struct snapshot_end *out) MUST_CHECK;

#endif
