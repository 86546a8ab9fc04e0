/*
 * One thing that this node does for the cloud: an object's body on its way there, the mark of a
 * delete, the removal of a copy, or a look at what a crash left in doubt.
 *
 *   body    STARTED journaled ─► [HEAD: is it there?] ─► PUT ─► UPLOADED journaled
 *                                                         └─ purged meanwhile: as purge
 *   mark    PUT of an empty .deleted/ULID ─► MARKED
 *   purge   DELETE ─► PURGED
 *   doubt   HEAD ─► UPLOADED, or PURGED (as purge, where a delete asked for that)
 *
 * It belongs to one thread, which takes its steps; what it waits for (the committer, the cloud)
 * calls `woken`. Requests are made one after the other, each when the owner has a place for one.
 */
#ifndef CLUSTER_UPLOAD_H
#define CLUSTER_UPLOAD_H

#include "cluster/owed.h"
#include "journal/journal.h"
#include "storage/cloud.h"

struct upload;

struct upload_host {
    struct journal *journal;
    struct cloud *cloud; /* a guard: cluster/cloud_guard.h */
    const char *prefix;  /* of keys, before a '/'; NULL: none */
    struct env *env;
    struct db_reader *reader; /* the owner's thread's */
    /* What UPLOAD waited for has come: its next step is due. Any thread; must not block. */
    void (*woken)(void *arg, struct upload *upload);
    /* Bytes of ID's body have left, or it begins. Any thread, not more often than each
     * UPLOAD_PROGRESS_MS; must not block. */
    void (*moved)(void *arg, const struct id128 *id);
    /* CHANGE is to be submitted to the journal, soon; its `done` is called in any case. From
     * upload_step. */
    void (*submit)(void *arg, struct change *change);
    void *arg;
};

#define UPLOAD_PROGRESS_MS 250

/* Of KIND, for OBJECT, which is copied. STARTED: this run has journaled that it did. HOST outlives
 * it. */
int upload_create(struct upload **out, const struct upload_host *host, enum outbox_kind kind,
                  const struct object *object, bool started) MUST_CHECK;
void upload_destroy(struct upload **upload);

enum upload_need {
    UPLOAD_WAITS, /* `woken` follows */
    UPLOAD_ASKS,  /* it has something to ask the cloud: upload_ask, sooner or later */
    UPLOAD_OVER,  /* upload_result */
};
/* Go on, as far as it goes. After the creation, and when it was woken. May block on the disk, as
 * the next. */
enum upload_need upload_step(struct upload *upload);
enum upload_asked {
    UPLOAD_ASKED,   /* `woken` follows */
    UPLOAD_REFUSED, /* the cloud is left alone for now (ERR_CLOUD): to be asked again later */
    UPLOAD_FAILED,  /* upload_step says how it goes on */
};
/* Ask the cloud what it has to. */
enum upload_asked upload_ask(struct upload *upload);
/* Stop early: `woken` follows soon, if it was not called yet. After it, upload_step ends it. */
void upload_cancel(struct upload *upload);

struct upload_result {
    enum outbox_kind kind;
    struct id128 id;
    enum owed_outcome outcome;
    int rc;              /* why; 0 for OWED_DONE */
    bool started;        /* this run has journaled that it did */
    bool sent;           /* a body; else it was there already */
    uint64_t bytes;      /* … of so many bytes */
    uint32_t retry_ms;   /* the cloud asked to be left alone for so long */
    const char *message; /* of the cloud; lent */
};
/* After UPLOAD_OVER. */
void upload_result(const struct upload *upload, struct upload_result *out);
const struct id128 *upload_id(const struct upload *upload);
bool upload_is_large(const struct upload *upload);

#endif
