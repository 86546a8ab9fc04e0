/*
 * An object's row: all facts about one id merged, and where this node's copy of the body lies. Rows
 * are immutable once made: a change makes a new one. Pure.
 */
#ifndef JOURNAL_OBJECT_H
#define JOURNAL_OBJECT_H

#include "base/hash.h"
#include "journal/event.h"
#include "storage/place.h"

/* A row without PUT and DELETED is partial: facts that arrived before their put. Readers do not see
 * it (object_is_partial). */
enum object_flags {
    OBJECT_PUT = 1,      /* a put is known: sha256, size, level … are valid */
    OBJECT_DELETED = 2,  /* for ever; then nothing but id, deleted_at, flags and what is known of
                            the cloud is set */
    OBJECT_CLOUD = 4,    /* some cloud event is known */
    OBJECT_UPLOADED = 8, /* the cloud holds these bytes: uploaded_sha256 is sha256 */
    OBJECT_PLAIN = 16,   /* the put event in the record at `place` says all that this row says */
    OBJECT_PURGE = 32,   /* deleted: one of the deletes asked that the cloud's copy go, too */
    OBJECT_MARKED = 64,  /* the cloud has the mark that the object is deleted */
    OBJECT_PURGED = 128, /* the cloud's copy was removed, and none that is known came after it */
};

struct object {
    struct id128 id;
    uint32_t flags;
    uint8_t level;
    uint16_t cloud_len; /* of the last of the texts below */
    struct reg put_at;  /* decides between different bytes; its wall time is Last-Modified */
    uint8_t sha256[SHA256_BYTES];
    uint64_t size;
    struct reg name_at, user_meta_at, expires_at;
    uint64_t expires_ms; /* 0: never */
    /* The last upload: who said so, the sha256 uploaded, and (object_cloud_place) where to. A
     * register of its own, as it may arrive before the put that it is about, or after the delete.
     */
    struct reg uploaded_at;
    uint8_t uploaded_sha256[SHA256_BYTES];
    /* The last upload that was removed from the cloud; stamp 0: none, OBJECT_NO_UPLOAD: it was
     * removed when no upload was known. */
    struct reg purged_of;
    hlc_time deleted_at;
    struct place place;    /* this node's copy of exactly these bytes */
    uint32_t record_bytes; /* of the record at place; 0 for large files */
    uint32_t name_len, type_len, user_meta_len;
    char text[]; /* name, type, user meta, place in the cloud, one after the other */
};

#define OBJECT_NO_UPLOAD 1 /* a stamp below all that there are */

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

/* Where the cloud got the bytes of uploaded_sha256: backend NUL bucket NUL key NUL etag; empty
 * where no upload is known. Whether they are (still) the object's, and there, the flags say. */
static inline struct text object_cloud_place(const struct object *object)
{
    return (struct text){object->text + object->name_len + object->type_len + object->user_meta_len,
                         object->cloud_len};
}

/* The same taken apart. Bucket and etag may be empty. */
struct cloud_place {
    struct text backend, bucket, key, etag;
};
/* Into OUT, inside OBJECT; false: no upload is known. */
bool object_cloud(const struct object *object, struct cloud_place *out);

/* The longest text of a place. */
#define LIMIT_CLOUD_PLACE_BYTES                                                                    \
    (LIMIT_EVENT_BACKEND_BYTES + LIMIT_EVENT_BUCKET_BYTES + LIMIT_EVENT_KEY_BYTES +                \
     LIMIT_EVENT_ETAG_BYTES + 3)
/* PLACE as that text into OUT; its length. The parts are as event_says_ok wants them. */
uint32_t cloud_place_write(char out[LIMIT_CLOUD_PLACE_BYTES], const struct cloud_place *place);
/* TEXT as a place; false: it is none that an event could have brought. */
bool cloud_place_read(struct cloud_place *out, struct text text);

/* A fresh row with the fixed members of LIKE (NULL: all zero) and these texts; where it is in the
 * cloud is not among them, object_create_placed says that, too. NULL: no memory. */
struct object *object_create(const struct object *like, struct text name, struct text type,
                             struct text user_meta) MUST_CHECK;
struct object *object_create_placed(const struct object *like, struct text name, struct text type,
                                    struct text user_meta, struct text cloud) MUST_CHECK;
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
/* The cloud is owed the mark that it is deleted: it is, the cloud has or may have a copy, and there
 * is no mark. Every node knows so, as with the next. */
bool object_owes_mark(const struct object *object);
/* … that its copy be removed: a delete has asked for that. */
bool object_owes_purge(const struct object *object);
/* For a request to remove the copy (request.removed): what is known, now, of the uploads that it
 * removes. To be asked before the cloud is: whatever is uploaded meanwhile is not among them. */
struct reg object_removes(const struct object *object);
/* This node wants a copy of it: put, not deleted, for every node (level 2), and no copy is here. */
bool object_wanted_here(const struct object *object);

#endif
