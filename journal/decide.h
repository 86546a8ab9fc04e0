/*
 * What a client's change means for an object: the committer's rules without its threads and files.
 * Pure.
 */
#ifndef JOURNAL_DECIDE_H
#define JOURNAL_DECIDE_H

#include "journal/condition.h"

enum change_kind {
    CHANGE_PUT,  /* bytes that the caller has, in memory or in a finished large file */
    CHANGE_META, /* name, user meta, level, expiry: those present */
    CHANGE_DELETE,
    CHANGE_DROP,     /* our copy at `checked` is damaged: forget it */
    CHANGE_HOLD,     /* bytes that came from a peer or the cloud: a copy of what the row names,
                        where there is none, or instead of the damaged one at `checked` */
    CHANGE_MOVE,     /* cleaning: a record goes to a new place */
    CHANGE_SNAPSHOT, /* a chunk of a snapshot, new or on its way to a new place: never decided */
    CHANGE_PEER,     /* events of other nodes: never decided */
    CHANGE_MERGE,    /* chunks of a merge with a peer: never decided */
    CHANGE_FACT,     /* an event of ours that concerns no object: never decided */
    CHANGE_REPUT,    /* bytes that lost under another id, put under this one (conflict.h) */
    CHANGE_RESTATE,  /* an event of ours of a frozen run, once more: never decided */
    CHANGE_CLOUD,    /* what became of the copy in the cloud: cloud_state, place, sha256 */
    CHANGE_ADOPT,    /* an object that lies in the cloud and not here: a put without its body */
};

/* What is asked; `fields` (EVENT_HAS_…) tells which members are present. */
struct request {
    enum change_kind kind;
    struct id128 id;
    uint32_t fields;
    uint8_t sha256[SHA256_BYTES];
    uint64_t size;
    struct text name, type, user_meta;
    uint64_t expires_ms;
    uint8_t level;
    uint8_t needs_level; /* META: what it has to have afterwards at least, or nothing is changed */
    uint8_t reason;
    bool purge;
    /* PUT: the copy of the same bytes that the caller has read and found good (verified) or bad
     * (damaged) a moment ago; HOLD, DROP: the bad one. */
    bool verified, damaged;
    struct place checked;
    hlc_time stamp; /* REPUT: that of the put that lost; PUT from_cloud, ADOPT: that of the put, as
                       the cloud's object says; 0: from now */
    /* PUT: the bytes were read back from the cloud: where this id is unknown a level 0 becomes 1;
     * where it is known they are a copy of what the row names, as with HOLD. */
    bool from_cloud;
    /* CLOUD, ADOPT, PUT from_cloud: where the cloud has it (EVENT_HAS_CLOUD in fields). Lent. */
    uint8_t cloud_state; /* CLOUD: enum cloud_state */
    struct text backend, bucket, key, etag;
    /* CLOUD, purged: object_removes() of the row before the cloud was asked. stamp 0: all uploads
     * that are known when this is decided. */
    struct reg removed;
    /* PUT, META, DELETE: what must hold; NULL: nothing. Lent, as the texts are. */
    const struct condition *condition;
};

enum verdict {
    VERDICT_COMMIT,    /* write *EVENT; with the body where `store_body` */
    VERDICT_UNCHANGED, /* nothing to write: the answer is the row as it stands */
};

struct decision {
    enum verdict verdict;
    bool store_body;
    struct event event;     /* kind, id and payload; origin, seq, prev are the committer's, and so
                               is a stamp of 0 */
    struct event_item item; /* HOLD, DROP: what event.items points to, so do not copy a decision */
};

/*
 * Decide REQUEST against ROW (NULL: unknown id). 0, or the refusal:
 *   ERR_CONFLICT   put, hold: other bytes are there; meta: a level would be lowered
 *   ERR_DELETED    put, meta, hold: a tombstone stands there
 *   ERR_NOT_FOUND  meta, hold, drop of an unknown id
 *   ERR_RANGE      meta: the level would stay below needs_level
 *   ERR_PRECONDITION put, meta, delete: the condition does not hold. Refusals that need no look at
 * a put's bytes come first (ERR_NOT_FOUND, ERR_DELETED, a lowered level: RFC 9110 §13.2.1), those
 * that do come after it.
 *   ERR_UNVERIFIED put of the same bytes, where our copy at row->place has been neither verified
 * nor found damaged: the caller reads it, and asks again with `checked` set Put of the same bytes:
 * with a verified copy it becomes a meta event of what differs (the type does not count: it belongs
 * to the put that brought the bytes), or UNCHANGED; without one (no place, or damaged) a put event
 * with the body, which keeps the row's type unless REQUEST names another. A put never lowers the
 * level. A partial row counts as unknown. Delete of anything, known or not, commits once; for the
 * reason DELETE_EXPIRED only where a live row still expires, and at REQUEST's expires_ms where that
 * is present: whoever prolonged it meanwhile keeps it. Drop commits where row->place is still
 * `checked`, else UNCHANGED. Move likewise; it has no event of its own (kind 0), the record's is
 * written again. Reput of an unknown id is a put event with the stamp that was given; where the
 * same bytes are known and not here it is a hold, where they are here UNCHANGED. Texts in the
 * decision are REQUEST's or ROW's.
 *
 * Cloud: of a partial row, too; ERR_NOT_FOUND where nothing is known of the id. Started (sha256
 * says of what): ERR_DELETED, ERR_CONFLICT where the row names other bytes, UNCHANGED where the
 * cloud has them: then nothing is to be uploaded. Uploaded, purged: commit, whatever the row says,
 * as they are so; purged of what is not deleted: the copy was not there, so it is owed again.
 * Marked: UNCHANGED the second time, ERR_CONFLICT of what is not deleted.
 *
 * Adopt: of an unknown id a put event without a body, level at
 * least 1; of a known one as hold refuses, or UNCHANGED. Both it and a put from_cloud, with
 * EVENT_HAS_CLOUD, first journal an uploaded event where the row does not say so already
 * (decide_uploaded), and ADOPT that this node has no copy; all in one batch.
 */
int decide(struct decision *out, const struct object *row,
           const struct request *request) MUST_CHECK;

/* The uploaded event that REQUEST (ADOPT, PUT from_cloud) says first, into OUT: false where it says
 * none, is going to be refused, or ROW says it already. */
bool decide_uploaded(struct decision *out, const struct object *row, const struct request *request);

/* What is known of a put before its bytes: ERR_DELETED, ERR_PRECONDITION, or 0. As decide() would
 * say for ROW; it is asked all the same, since the row may change. Of REQUEST only the condition
 * counts. */
int decide_early(const struct object *row, const struct request *request) MUST_CHECK;

#endif
