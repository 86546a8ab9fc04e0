/*
 * An object's row: all facts about one id merged, and where this node's copy of the body lies. Rows
 * are immutable once made: a change makes a new one. Pure.
 */
#ifndef JOURNAL_OBJECT_H
#define JOURNAL_OBJECT_H

#include "base/hash.h"
#include "journal/event.h"
#include "storage/place.h"

/* Last-writer-wins register: who wrote it last. stamp 0: nobody. */
struct reg {
    hlc_time stamp;
    struct id128 origin;
};

/* A row without PUT and DELETED is partial: facts that arrived before their put. Readers do not see
 * it (object_is_partial). */
enum object_flags {
    OBJECT_PUT = 1,      /* a put is known: sha256, size, level … are valid */
    OBJECT_DELETED = 2,  /* for ever; then nothing but id, deleted_at and flags is set */
    OBJECT_CLOUD = 4,    /* some cloud event is known */
    OBJECT_UPLOADED = 8, /* the cloud holds these bytes: uploaded_sha256 is sha256 */
    OBJECT_PLAIN = 16,   /* the put event in the record at `place` says all that this row says */
};

struct object {
    struct id128 id;
    uint32_t flags;
    uint8_t level;
    struct reg put_at; /* decides between different bytes; its wall time is Last-Modified */
    uint8_t sha256[SHA256_BYTES];
    uint64_t size;
    struct reg name_at, user_meta_at, expires_at;
    uint64_t expires_ms; /* 0: never */
    /* The last cloud event that says what the cloud holds: its stamp, and the sha256 uploaded
     * (zero: purged). A register of its own, as it may arrive before the put that it is about. */
    struct reg uploaded_at;
    uint8_t uploaded_sha256[SHA256_BYTES];
    hlc_time deleted_at;
    struct place place;    /* this node's copy of exactly these bytes */
    uint32_t record_bytes; /* of the record at place; 0 for large files */
    uint32_t name_len, type_len, user_meta_len;
    char text[]; /* name, type, user meta, one after the other */
};

static inline struct text object_name(const struct object *object)
{
    return (struct text){object->text, object->name_len};
}

static inline struct text object_type(const struct object *object)
{
    return (struct text){object->text + object->name_len, object->type_len};
}

static inline struct text object_user_meta(const struct object *object)
{
    return (struct text){object->text + object->name_len + object->type_len, object->user_meta_len};
}

/* A fresh row with the fixed members of LIKE (NULL: all zero) and these texts. NULL: no memory. */
struct object *object_create(const struct object *like, struct text name, struct text type,
                             struct text user_meta) MUST_CHECK;
struct object *object_copy(const struct object *object) MUST_CHECK;
void object_destroy(struct object **object);

/* Bytes of memory a row takes. */
size_t object_bytes(const struct object *object);

/* The highest stamp of any fact in the row (what a new write replaces); 0 for NULL. */
hlc_time object_stamp(const struct object *object);

/* This row's contribution to the state digest: a hash over its facts alone (not over place or flags
 * that are this node's own matter); zero for NULL and for a row that says nothing. Schema version
 * DIGEST_SCHEMA. */
#define DIGEST_SCHEMA 1
struct hash128 object_digest(const struct object *object);

/* Neither put nor deleted as far as this node knows: to readers there is no such object. */
static inline bool object_is_partial(const struct object *object)
{
    return (object->flags & (OBJECT_PUT | OBJECT_DELETED)) == 0;
}

/* Seconds of Last-Modified: when the bytes were put. */
static inline uint64_t object_modified_s(const struct object *object)
{
    return hlc_wall_ms(object->put_at.stamp) / 1000;
}

/* The cloud is owed an upload of it: put, level >= 1, not deleted, not uploaded. */
bool object_owes_upload(const struct object *object);
/* … and this node has the bytes, so that it is in its outbox. */
bool object_owed_here(const struct object *object);
/* This node wants a copy of it: put, not deleted, for every node (level 2), and no copy is here. */
bool object_wanted_here(const struct object *object);

#endif
