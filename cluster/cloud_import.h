/*
 * Adopting what lies in a bucket: objects whose keys are ULIDs come back as they were, with name,
 * level and user meta; others get an id of their own, with the key as the name. Nothing is copied:
 * each becomes a row that says where the cloud has it, and its bytes are read when somebody wants
 * them. Only what does not say which SHA-256 it has is read once, to know that.
 *
 * Whatever was deleted (here, or by .deleted/ULID beside it) stays so. The id of a key that is no
 * ULID follows from the key, its time and its etag; so an import that is interrupted is just begun
 * again, on this node or another one, and adopts nothing twice.
 */
#ifndef CLUSTER_CLOUD_IMPORT_H
#define CLUSTER_CLOUD_IMPORT_H

#include "cluster/cloud_meta.h"
#include "journal/journal.h"

#define CLOUD_IMPORT_AT_ONCE   8
#define CLOUD_IMPORT_TRIES     8 /* of one request to a cloud that does not answer */
#define CLOUD_IMPORT_SAY_BYTES 256

struct cloud_import;

enum cloud_import_phase {
    IMPORT_NONE,
    IMPORT_RUNNING,
    IMPORT_DONE,
    IMPORT_FAILED,
    IMPORT_CANCELLED
};

struct cloud_import_status {
    enum cloud_import_phase phase;
    bool dry_run; /* then `adopted` and `read` are what would be */
    uint64_t listed;
    uint64_t adopted, adopted_bytes;
    uint64_t known;   /* had been adopted, or never been lost */
    uint64_t deleted; /* … here, or marked so in the cloud */
    uint64_t others;  /* sidecars, marks, folders: no objects */
    uint64_t refused; /* what contradicts itself, or other bytes that are known under its id */
    uint64_t read, read_bytes;            /* to know their SHA-256 */
    char key[LIMIT_CLOUD_KEY_BYTES + 1];  /* the last one listed */
    char refusal[CLOUD_IMPORT_SAY_BYTES]; /* the first */
    char message[CLOUD_IMPORT_SAY_BYTES]; /* IMPORT_FAILED: why */
};

/* All lent until cloud_import_destroy. */
int cloud_import_create(struct cloud_import **out, struct journal *journal, struct cloud *cloud,
                        struct env *env) MUST_CHECK;
/* Ends one that runs. Before journal_stop. */
void cloud_import_stop(struct cloud_import *import);
void cloud_import_destroy(struct cloud_import **import);

/* Begin with all keys that begin with PREFIX. ERR_EXISTS: one runs; ERR_TOO_BIG: PREFIX. */
int cloud_import_begin(struct cloud_import *import, const char *prefix, bool dry_run) MUST_CHECK;
void cloud_import_cancel(struct cloud_import *import);
void cloud_import_status(struct cloud_import *import, struct cloud_import_status *out);

/* "none", "running", "done", "failed", "cancelled". */
const char *cloud_import_phase_name(enum cloud_import_phase phase);

/* ---- Pure ---- */

enum import_kind { IMPORT_OBJECT, IMPORT_OTHER, IMPORT_MARK, IMPORT_SIDECAR, IMPORT_FOLDER };
/* What KEY, with SIZE bytes, is; *ID of an object, a mark or a sidecar; *FOLDER: how many of KEY's
 * bytes are the folder (up to its '/') that an object's mark would be beside. */
enum import_kind cloud_import_kind(struct id128 *id, size_t *folder, struct text key,
                                   uint64_t size);
/* The id of an object under a KEY that is no ULID. */
struct id128 cloud_import_id(struct text key, struct text etag, int64_t modified_s);

#endif
