/*
 * What the cloud is told of an object, and what is read back from there. Pure.
 *
 *   key        [prefix/]ULID; [prefix/].deleted/ULID marks a deleted one, KEY.usermeta is a sidecar
 *   type       Content-Type
 *   metadata   id, size, timestamp (ns), consistency, name: the ancestor's; sha256 (hex), stamp
 *              (decimal), expires (ms, unless never), type (only where Content-Type cannot say it)
 *   user meta  the first of these that can take all of it:
 *              usermeta = tags        a tag usermeta-KEY for each
 *              usermeta-KEY           metadata, as the ancestor's
 *              usermeta = {"KEY":…}   its JSON in one
 *              usermeta = sidecar     {"name":…,"user_meta":{…}} as the body of KEY.usermeta
 *
 * A name that is too long for metadata goes into the sidecar as well. Values are printable ASCII;
 * what is not, is empty, or has blanks at an end is written UTF-8''percent-encoded (RFC 8187).
 *
 * Everything read back may have been written by others: what makes no sense is as if it were not
 * there, as are the parts that the ancestor did not write.
 */
#ifndef CLUSTER_CLOUD_META_H
#define CLUSTER_CLOUD_META_H

#include "journal/object.h"
#include "storage/cloud.h"

#define CLOUD_META_TEXT_BYTES     6144
#define LIMIT_CLOUD_SIDECAR_BYTES (32 * KIB)

/* ---- Keys ---- */

struct cloud_key {
    char text[LIMIT_CLOUD_KEY_BYTES + 1]; /* terminated */
    uint32_t len;
};

/* PREFIX may be NULL, empty, or end in '/' or not; 256 bytes at most. */
void cloud_key_object(struct cloud_key *out, const char *prefix, const struct id128 *id);
void cloud_key_deleted(struct cloud_key *out, const char *prefix, const struct id128 *id);
/* ERR_TOO_BIG: KEY leaves no room for it. */
int cloud_key_sidecar(struct cloud_key *out, struct text key) MUST_CHECK;

enum cloud_key_kind {
    CLOUD_KEY_OBJECT,  /* *ID under the prefix, as cloud_key_object writes it */
    CLOUD_KEY_DELETED, /* *ID's mark */
    CLOUD_KEY_SIDECAR, /* belongs to the key before it; *ID, where that is ours */
    CLOUD_KEY_OTHER,   /* somebody else's */
};
/* What KEY is. Only ids that clients may choose count, written in capitals. */
enum cloud_key_kind cloud_key_read(struct id128 *id, const char *prefix, const char *key,
                                   size_t len);

/* ---- To the cloud ---- */

/* What a PUT of an object's body says. Pairs point into it, and into the row that it was made of:
 * it is not copied, and the row lives as long. */
struct cloud_meta {
    struct cloud_text type;
    struct cloud_pair pairs[LIMIT_CLOUD_PAIRS], tags[LIMIT_CLOUD_TAGS];
    size_t pair_count, tag_count;
    /* The body of the sidecar, which has to be there before the object; NULL: it needs none. */
    char *sidecar;
    size_t sidecar_len;
    /* Its own. */
    size_t used, pair_bytes;
    char texts[CLOUD_META_TEXT_BYTES];
};

/* Of OBJECT, which was put. ERR_NO_MEMORY. */
int cloud_meta_write(struct cloud_meta *out, const struct object *object) MUST_CHECK;
void cloud_meta_release(struct cloud_meta *meta);

/* ---- And back ---- */

enum cloud_facts_fields {
    CLOUD_FACTS_ID = 1,
    CLOUD_FACTS_SIZE = 2,
    CLOUD_FACTS_SHA256 = 4,
    CLOUD_FACTS_STAMP = 8, /* the put's own stamp; else `stamp` is made of the time */
    CLOUD_FACTS_NAME = 16,
};

struct cloud_facts {
    uint32_t fields;
    struct id128 id;
    uint64_t size; /* as the metadata say; the head's is the body's */
    uint8_t sha256[SHA256_BYTES];
    hlc_time stamp; /* never 0 */
    uint64_t expires_ms;
    uint8_t level; /* 1 or 2: what lies in the cloud has at least 1 */
    struct text name, type;
    struct text user_meta; /* canonical JSON; empty: none */
    bool in_tags;          /* … it stands in tags: ask for them, cloud_facts_tags */
    bool in_sidecar;       /* … or in the sidecar, maybe the name, too: cloud_facts_sidecar */
    char *texts[3];        /* owned: name, type, user meta */
};

/* What HEAD says. Release OUT in every case. ERR_NO_MEMORY. */
int cloud_facts_read(struct cloud_facts *out, const struct cloud_head *head) MUST_CHECK;
/* Add what TAGS (of a CLOUD_TAGS) say. */
int cloud_facts_tags(struct cloud_facts *facts, const struct cloud_head *tags) MUST_CHECK;
/* Add what the sidecar's body says. ERR_CORRUPT: it is none; FACTS is then as before. */
int cloud_facts_sidecar(struct cloud_facts *facts, const char *body, size_t len) MUST_CHECK;
void cloud_facts_release(struct cloud_facts *facts);

#endif
