/*
 * What clients have put, deleted and been told, in a form that can be compared with any node's
 * rows: for each id, which bytes may stand there, and on which disks what was acknowledged lies.
 */
#ifndef TESTS_CLUSTER_SIM_KEYS_H
#define TESTS_CLUSTER_SIM_KEYS_H

#include "journal/journal.h"

#define VARIANTS   3 /* bodies that an id may be put with */
#define BODY_BYTES (700 * 1024)

/* Masks have a bit for each node: what is on the disk that the node has now. */
struct key {
    struct id128 id;
    uint8_t submitted;         /* variants that somebody tried to put: a bit each */
    bool delete_submitted;     /* … that somebody tried to delete it … */
    bool purge_submitted;      /* … from the cloud, too */
    bool planted;              /* it lies in the cloud since before the cluster */
    uint8_t level_submitted;   /* the highest */
    uint8_t put_on;            /* nodes that were ever asked to */
    uint8_t exists_on;         /* an acknowledged put, of whatever bytes */
    uint8_t body_on[VARIANTS]; /* these bytes */
    uint8_t level_on[3];       /* at least this level, acknowledged */
    uint8_t deleted_on;        /* an acknowledged delete */
    struct reg put_at[8];      /* what decided when that node acknowledged a put last */
    uint8_t backup[5];         /* of the nodes' last backups: exists, bodies, deleted */
    uint8_t backup_level[3];
    uint64_t random; /* what its bodies are drawn from */
    uint32_t size[VARIANTS];
    uint8_t sha256[VARIANTS][SHA256_BYTES];
};

struct key *key_new(void);
/* LEN bytes of VARIANT's body from OFFSET on. */
void key_body(const struct key *key, unsigned variant, uint64_t offset, void *out, size_t len);
/* The variant that has this SHA-256; VARIANTS: none. */
unsigned key_variant(const struct key *key, const uint8_t sha256[SHA256_BYTES]);

/* Acknowledged at node N; a put with the row after it. */
void key_put(struct key *key, unsigned n, unsigned variant, unsigned level,
             const struct object *row);
/* Whether node N, which has ROW of these bytes, has to have the bytes. Others under the same id may
 * have taken their place for a while: then who put what won has them. */
bool key_owes_body(const struct key *key, unsigned n, unsigned variant, const struct object *row);
void key_level(struct key *key, unsigned n, unsigned level);
void key_deleted(struct key *key, unsigned n);
/* Node N has this row (NULL: none). */
void key_seen(struct key *key, unsigned n, const struct object *row);
/* Node N (NODES: none) has said that it has a copy of ROW's bytes. */
void key_held(struct key *key, unsigned n, const struct object *row);
/* N's disk is gone, or replaced by the backup. */
void keys_wipe(unsigned n);
void keys_backup(unsigned n);
void keys_restore(unsigned n);
/* N's disk is a copy of FROM's now. */
void keys_clone(unsigned n, unsigned from);

#endif
