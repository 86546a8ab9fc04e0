/*
 * Events as bytes.
 *
 * One msgpack array of nine: [version=1, origin bin16, seq, node bin16, stamp, kind, id bin16,
 * prev bin32, payload map]. The payload's keys; a key that its kind does not list below is unknown
 * there, and skipped:
 *
 *   key     in kinds      value     meaning (* = the kind needs it)
 *   sha256  put*, cloud   bin32     of the body; cloud needs it where state is uploaded
 *   size    put*          uint      bytes of the body
 *   level   put*, meta    uint      0 local, 1 s3, 2 full
 *   name    put, meta     str       UTF-8 without control characters
 *   type    put           str       content type, printable ASCII
 *   meta    put, meta     str       user meta: canonical JSON (journal/usermeta.h), or empty
 *   exp     put, meta     uint      expires at this Unix time in ms; 0: never
 *   sums    put           map       further digests by name; not looked into
 *   why     delete        uint      enum delete_reason
 *   purge   delete        bool      the cloud's copy goes, too
 *   items   hold*, drop*  bin 48*n  n times id (16 bytes), sha256 (32)
 *   cloud   cloud*        map       state*: enum cloud_state, backend*, key*, bucket, etag: str;
 *                                   of: [stamp, origin bin16], the last upload that a purge removed
 *   bucket  bind*, unbind*  str
 *   key     bind*, unbind*  str     UTF-8
 *   addr    member*       str       printable ASCII
 *   state   member*       uint      enum member_state
 *   who     member*, freeze*  bin16 the node; the origin
 *   feature feature*      uint      the cluster's feature level from now on, at least 1
 *   follows all, freeze*  array     [origin bin16, seq, hash bin32]: the run before; where it broke
 *   of      freeze        bin16     the node whose run the frozen one is
 *   after   freeze        array     as follows of other kinds: the run before
 *
 * Writing is journal/pack's, reading journal/unpack's. Both ends share the rules in event_error, so
 * this node never journals what its peers, or itself after a restart, would refuse. Failure: one
 * code, and no partial event.
 */
#include "journal/event.h"

#include "base/text.h"
#include "journal/pack.h"
#include "journal/unpack.h"

#include <assert.h>
#include <stdalign.h>
#include <string.h>

#define VERSION     1
#define EVENT_ARRAY 9
#define LARGEST     ((uint64_t)INT64_MAX) /* SQLite's integers */
#define ADDRESS_MAX 255
#define SUMS_MAX    1024
#ifdef OBJSTORE_FEATURE_BUILD
#define KINDS (EVENT_SAMPLE + 1)
#else
#define KINDS (EVENT_FEATURE + 1)
#endif
#define ITEM_BYTES 48

/* Items lie in the bytes as they do in memory. */
_Static_assert(sizeof(struct event_item) == ITEM_BYTES && alignof(struct event_item) == 1,
               "struct event_item is the format");

static const struct {
    const char *name;
    uint32_t needed, allowed; /* fields */
} kinds[KINDS] = {
    [EVENT_PUT] = {"put", EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL,
                   EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL | EVENT_HAS_NAME |
                       EVENT_HAS_TYPE | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES | EVENT_HAS_SUMS |
                       EVENT_HAS_FOLLOWS},
    [EVENT_META] = {"meta", 0,
                    EVENT_HAS_LEVEL | EVENT_HAS_NAME | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES |
                        EVENT_HAS_FOLLOWS},
    [EVENT_DELETE] = {"delete", 0, EVENT_HAS_REASON | EVENT_HAS_PURGE | EVENT_HAS_FOLLOWS},
    [EVENT_HOLD] = {"hold", EVENT_HAS_ITEMS, EVENT_HAS_ITEMS | EVENT_HAS_FOLLOWS},
    [EVENT_DROP] = {"drop", EVENT_HAS_ITEMS, EVENT_HAS_ITEMS | EVENT_HAS_FOLLOWS},
    [EVENT_CLOUD] = {"cloud", EVENT_HAS_CLOUD,
                     EVENT_HAS_CLOUD | EVENT_HAS_SHA256 | EVENT_HAS_FOLLOWS},
    [EVENT_BIND] = {"bind", EVENT_HAS_BIND, EVENT_HAS_BIND | EVENT_HAS_FOLLOWS},
    [EVENT_UNBIND] = {"unbind", EVENT_HAS_BIND, EVENT_HAS_BIND | EVENT_HAS_FOLLOWS},
    [EVENT_MEMBER] = {"member", EVENT_HAS_MEMBER, EVENT_HAS_MEMBER | EVENT_HAS_FOLLOWS},
    [EVENT_FREEZE] = {"freeze", EVENT_HAS_FREEZE | EVENT_HAS_FOLLOWS,
                      EVENT_HAS_FREEZE | EVENT_HAS_FOLLOWS | EVENT_HAS_RUN_NODE | EVENT_HAS_AFTER},
    [EVENT_FEATURE] = {"feature", EVENT_HAS_FEATURE, EVENT_HAS_FEATURE | EVENT_HAS_FOLLOWS},
#ifdef OBJSTORE_FEATURE_BUILD
    [EVENT_SAMPLE] = {"sample", EVENT_HAS_NAME, EVENT_HAS_NAME | EVENT_HAS_FOLLOWS},
#endif
};

static bool is_known(uint32_t kind)
{
    return kind < KINDS && kinds[kind].name;
}

const char *event_kind_name(uint32_t kind)
{
    return is_known(kind) ? kinds[kind].name : "unknown";
}

uint32_t event_feature(uint32_t kind)
{
    if (!is_known(kind))
        return UINT32_MAX;
    return kind <= EVENT_FEATURE ? 1 : 2;
}

/* ---- The rules that both ends keep ---- */

static bool is_printable(struct text text)
{
    unsigned bad = 0;

    for (uint32_t i = 0; i < text.len; i++)
        bad |= (uint8_t)text.ptr[i] < 0x20 || (uint8_t)text.ptr[i] > 0x7e;
    return !bad;
}

static bool name_ok(struct text text)
{
    return text.len <= LIMIT_NAME_BYTES &&
           (is_printable(text) ||
            (utf8_valid(text.ptr, text.len) && !text_has_control(text.ptr, text.len)));
}

static bool printable_ok(struct text text, uint32_t max)
{
    return text.len <= max && is_printable(text);
}

static bool utf8_ok(struct text text, uint32_t max)
{
    return text.len <= max && (is_printable(text) || utf8_valid(text.ptr, text.len));
}

static bool user_meta_ok(struct text text)
{
    return printable_ok(text, LIMIT_USER_META_BYTES) &&
           (text.len == 0 || (text.ptr[0] == '{' && text.ptr[text.len - 1] == '}'));
}

/* No part has the byte that separates them in a row (object_cloud_place). */
static bool has_no_nul(struct text text)
{
    return text.len == 0 || !memchr(text.ptr, 0, text.len);
}

static bool cloud_ok(const struct event *event)
{
    return event->cloud_state >= CLOUD_STARTED && event->cloud_state <= CLOUD_MARKED &&
           event->removed.stamp < HLC_LIMIT && has_no_nul(event->bucket) &&
           has_no_nul(event->key) && event->backend.len > 0 &&
           printable_ok(event->backend, LIMIT_EVENT_BACKEND_BYTES) &&
           utf8_ok(event->bucket, LIMIT_EVENT_BUCKET_BYTES) && event->key.len > 0 &&
           utf8_ok(event->key, LIMIT_EVENT_KEY_BYTES) &&
           printable_ok(event->etag, LIMIT_EVENT_ETAG_BYTES) &&
           (event->cloud_state != CLOUD_UPLOADED || event->fields & EVENT_HAS_SHA256);
}

static bool bind_ok(const struct event *event)
{
    return event->bucket.len > 0 && utf8_ok(event->bucket, LIMIT_EVENT_BUCKET_BYTES) &&
           event->key.len > 0 && utf8_ok(event->key, LIMIT_EVENT_KEY_BYTES);
}

static bool member_ok(const struct event *event)
{
    return event->member_state >= MEMBER_JOINED && event->member_state <= MEMBER_FORGOTTEN &&
           printable_ok(event->address, ADDRESS_MAX);
}

bool event_address_ok(struct text address)
{
    return printable_ok(address, ADDRESS_MAX);
}

bool event_seq_ok(uint64_t seq)
{
    return seq > 0 && seq <= LARGEST;
}

/* The members that are present have values they may have. */
bool event_says_ok(const struct event *event)
{
    uint32_t has = event->fields;

    return (!(has & EVENT_HAS_SIZE) || event->size <= LARGEST) &&
           (!(has & EVENT_HAS_LEVEL) || event->level <= 2) &&
           (!(has & EVENT_HAS_NAME) || name_ok(event->name)) &&
           (!(has & EVENT_HAS_TYPE) || printable_ok(event->type, LIMIT_CONTENT_TYPE_BYTES)) &&
           (!(has & EVENT_HAS_USER_META) || user_meta_ok(event->user_meta)) &&
           (!(has & EVENT_HAS_EXPIRES) || event->expires_ms <= LARGEST) &&
           (!(has & EVENT_HAS_REASON) || event->reason <= DELETE_EXPIRED) &&
           (!(has & EVENT_HAS_FOLLOWS) ||
            (event->follows.seq > 0 && event->follows.seq <= LARGEST)) &&
           (!(has & EVENT_HAS_AFTER) || (event->after.seq > 0 && event->after.seq <= LARGEST)) &&
           (!(has & EVENT_HAS_FREEZE) || !id_is_zero(&event->subject)) &&
           (!(has & EVENT_HAS_ITEMS) ||
            (event->item_count > 0 && event->item_count <= LIMIT_EVENT_LIST_ITEMS)) &&
           (!(has & EVENT_HAS_CLOUD) || cloud_ok(event)) &&
           (!(has & EVENT_HAS_BIND) || bind_ok(event)) &&
           (!(has & EVENT_HAS_MEMBER) || member_ok(event)) &&
           (!(has & EVENT_HAS_FEATURE) || event->feature >= 1) &&
           (!(has & EVENT_HAS_SUMS) || event->sums.len <= SUMS_MAX);
}

static bool is_about_an_object(uint32_t kind)
{
    return kind == EVENT_PUT || kind == EVENT_META || kind == EVENT_DELETE || kind == EVENT_CLOUD ||
           kind == EVENT_BIND;
}

static bool head_ok(const struct event *event)
{
    static const uint8_t none[SHA256_BYTES];

    return event->seq > 0 && event->seq <= LARGEST && event->stamp > 0 &&
           event->stamp < HLC_LIMIT && !id_is_zero(&event->origin) && !id_is_zero(&event->node) &&
           (event->seq > 1 || memcmp(event->prev, none, sizeof none) == 0);
}

/* 0 or ERR_INVALID. */
static int event_error(const struct event *event)
{
    if (!head_ok(event))
        return ERR_INVALID;
    if (!is_known(event->kind))
        return 0;
    uint32_t needed = kinds[event->kind].needed;
    if ((event->fields & needed) != needed)
        return ERR_INVALID;
    if (is_about_an_object(event->kind) && id_is_zero(&event->id))
        return ERR_INVALID;
    return event_says_ok(event) ? 0 : ERR_INVALID;
}

/* ---- Writing ---- */

static void pack_text(struct buf *out, struct text text)
{
    pack_str(out, text.ptr, text.len);
}

static void pack_key(struct buf *out, const char *key)
{
    pack_str(out, key, strlen(key));
}

static void pack_key_text(struct buf *out, const char *key, struct text text)
{
    pack_key(out, key);
    pack_text(out, text);
}

static void pack_key_uint(struct buf *out, const char *key, uint64_t value)
{
    pack_key(out, key);
    pack_uint(out, value);
}

static void pack_key_bin(struct buf *out, const char *key, const void *data, size_t len)
{
    pack_key(out, key);
    pack_bin(out, data, len);
}

static void pack_ref(struct buf *out, const char *key, const struct event_ref *follows)
{
    pack_key(out, key);
    pack_array(out, 3);
    pack_bin(out, follows->origin.bytes, sizeof follows->origin.bytes);
    pack_uint(out, follows->seq);
    pack_bin(out, follows->hash, sizeof follows->hash);
}

static void pack_cloud(struct buf *out, const struct event *event)
{
    bool of = event->removed.stamp > 0;

    pack_key(out, "cloud");
    pack_map(out, 3u + (event->bucket.len > 0) + (event->etag.len > 0) + of);
    pack_key_uint(out, "state", event->cloud_state);
    pack_key_text(out, "backend", event->backend);
    pack_key_text(out, "key", event->key);
    if (event->bucket.len > 0)
        pack_key_text(out, "bucket", event->bucket);
    if (event->etag.len > 0)
        pack_key_text(out, "etag", event->etag);
    if (of) {
        pack_key(out, "of");
        pack_array(out, 2);
        pack_uint(out, event->removed.stamp);
        pack_bin(out, event->removed.origin.bytes, sizeof event->removed.origin.bytes);
    }
}

/* Keys of the payload: one for each field, but for the groups that lie flat in it. */
static uint32_t payload_keys(uint32_t fields)
{
    return (uint32_t)__builtin_popcount(fields) + (fields & EVENT_HAS_BIND ? 1 : 0) +
           (fields & EVENT_HAS_MEMBER ? 2 : 0);
}

/* What puts and metas are made of: the hot ones come first. */
static void pack_object_fields(struct buf *out, const struct event *event)
{
    uint32_t has = event->fields;

    if (has & EVENT_HAS_SHA256)
        pack_key_bin(out, "sha256", event->sha256, SHA256_BYTES);
    if (has & EVENT_HAS_SIZE)
        pack_key_uint(out, "size", event->size);
    if (has & EVENT_HAS_LEVEL)
        pack_key_uint(out, "level", event->level);
    if (has & EVENT_HAS_NAME)
        pack_key_text(out, "name", event->name);
    if (has & EVENT_HAS_TYPE)
        pack_key_text(out, "type", event->type);
    if (has & EVENT_HAS_USER_META)
        pack_key_text(out, "meta", event->user_meta);
    if (has & EVENT_HAS_EXPIRES)
        pack_key_uint(out, "exp", event->expires_ms);
    if (has & EVENT_HAS_SUMS) {
        pack_key(out, "sums");
        buf_add(out, event->sums.ptr, event->sums.len);
    }
}

static void pack_other_fields(struct buf *out, const struct event *event)
{
    uint32_t has = event->fields;

    if (has & EVENT_HAS_REASON)
        pack_key_uint(out, "why", event->reason);
    if (has & EVENT_HAS_PURGE) {
        pack_key(out, "purge");
        pack_bool(out, event->purge);
    }
    if (has & EVENT_HAS_ITEMS)
        pack_key_bin(out, "items", event->items, (size_t)event->item_count * ITEM_BYTES);
    if (has & EVENT_HAS_CLOUD)
        pack_cloud(out, event);
    if (has & EVENT_HAS_BIND) {
        pack_key_text(out, "bucket", event->bucket);
        pack_key_text(out, "key", event->key);
    }
    if (has & EVENT_HAS_MEMBER) {
        pack_key_text(out, "addr", event->address);
        pack_key_uint(out, "state", event->member_state);
    }
    if (has & (EVENT_HAS_MEMBER | EVENT_HAS_FREEZE))
        pack_key_bin(out, "who", event->subject.bytes, sizeof event->subject.bytes);
    if (has & EVENT_HAS_FEATURE)
        pack_key_uint(out, "feature", event->feature);
    if (has & EVENT_HAS_FOLLOWS)
        pack_ref(out, "follows", &event->follows);
    if (has & EVENT_HAS_RUN_NODE)
        pack_key_bin(out, "of", event->run_node.bytes, sizeof event->run_node.bytes);
    if (has & EVENT_HAS_AFTER)
        pack_ref(out, "after", &event->after);
}

static bool sums_are_a_map(struct text sums)
{
    struct unpack unpack;

    unpack_init(&unpack, sums.ptr, sums.len);
    (void)unpack_map(&unpack);
    bool map = !unpack.failed;
    unpack_init(&unpack, sums.ptr, sums.len);
    unpack_skip(&unpack);
    return map && unpack_done(&unpack) == 0;
}

void event_encode(struct buf *out, const struct event *event)
{
    size_t before = out->len;

    assert(is_known(event->kind));
    assert((event->fields & ~kinds[event->kind].allowed) == 0);
    if (out->rc)
        return;
    if (event_error(event) || (event->fields & EVENT_HAS_SUMS && !sums_are_a_map(event->sums))) {
        out->rc = ERR_INVALID;
        return;
    }
    pack_array(out, EVENT_ARRAY);
    pack_uint(out, VERSION);
    pack_bin(out, event->origin.bytes, sizeof event->origin.bytes);
    pack_uint(out, event->seq);
    pack_bin(out, event->node.bytes, sizeof event->node.bytes);
    pack_uint(out, event->stamp);
    pack_uint(out, event->kind);
    pack_bin(out, event->id.bytes, sizeof event->id.bytes);
    pack_bin(out, event->prev, sizeof event->prev);
    pack_map(out, payload_keys(event->fields));
    pack_object_fields(out, event);
    pack_other_fields(out, event);
    if (!out->rc && out->len - before > LIMIT_EVENT_BYTES)
        out->rc = ERR_TOO_BIG;
    if (out->rc)
        out->len = before;
}

/* ---- Reading ---- */

enum key {
    KEY_SHA256,
    KEY_SIZE,
    KEY_LEVEL,
    KEY_NAME,
    KEY_TYPE,
    KEY_META,
    KEY_EXP,
    KEY_SUMS,
    KEY_WHY,
    KEY_PURGE,
    KEY_ITEMS,
    KEY_CLOUD,
    KEY_BUCKET,
    KEY_KEY,
    KEY_ADDR,
    KEY_STATE,
    KEY_WHO,
    KEY_FOLLOWS,
    KEY_OF,
    KEY_AFTER,
    KEY_BACKEND,
    KEY_ETAG,
    KEY_FEATURE,
    KEYS,
};

/* A key counts where its kind allows one of its fields; that it was there sets them. The fields of
 * several keys are set by the last of them, see groups_complete. */
static const struct {
    char text[8];
    uint8_t len;
    uint32_t fields;
} keys[KEYS] = {
    [KEY_SHA256] = {"sha256", 6, EVENT_HAS_SHA256},
    [KEY_SIZE] = {"size", 4, EVENT_HAS_SIZE},
    [KEY_LEVEL] = {"level", 5, EVENT_HAS_LEVEL},
    [KEY_NAME] = {"name", 4, EVENT_HAS_NAME},
    [KEY_TYPE] = {"type", 4, EVENT_HAS_TYPE},
    [KEY_META] = {"meta", 4, EVENT_HAS_USER_META},
    [KEY_EXP] = {"exp", 3, EVENT_HAS_EXPIRES},
    [KEY_SUMS] = {"sums", 4, EVENT_HAS_SUMS},
    [KEY_WHY] = {"why", 3, EVENT_HAS_REASON},
    [KEY_PURGE] = {"purge", 5, EVENT_HAS_PURGE},
    [KEY_ITEMS] = {"items", 5, EVENT_HAS_ITEMS},
    [KEY_CLOUD] = {"cloud", 5, EVENT_HAS_CLOUD},
    [KEY_BUCKET] = {"bucket", 6, EVENT_HAS_BIND},
    [KEY_KEY] = {"key", 3, EVENT_HAS_BIND},
    [KEY_ADDR] = {"addr", 4, EVENT_HAS_MEMBER},
    [KEY_STATE] = {"state", 5, EVENT_HAS_MEMBER},
    [KEY_WHO] = {"who", 3, EVENT_HAS_MEMBER | EVENT_HAS_FREEZE},
    [KEY_FOLLOWS] = {"follows", 7, EVENT_HAS_FOLLOWS},
    [KEY_OF] = {"of", 2, EVENT_HAS_RUN_NODE},
    [KEY_AFTER] = {"after", 5, EVENT_HAS_AFTER},
    [KEY_BACKEND] = {"backend", 7, 0}, /* in the map under cloud alone, as etag */
    [KEY_ETAG] = {"etag", 4, 0},
    [KEY_FEATURE] = {"feature", 7, EVENT_HAS_FEATURE},
};

static uint32_t bit(enum key key)
{
    return UINT32_C(1) << key;
}

static enum key read_key(struct unpack *unpack)
{
    uint32_t len;
    const char *text = unpack_str(unpack, &len);

    for (unsigned key = 0; text && key < KEYS; key++) {
        if (keys[key].len == len && memcmp(keys[key].text, text, len) == 0)
            return (enum key)key;
    }
    return KEYS;
}

static struct text read_text(struct unpack *unpack)
{
    struct text text;

    text.ptr = unpack_str(unpack, &text.len);
    return text;
}

static void read_items(struct unpack *unpack, struct event *out)
{
    uint32_t len;
    const uint8_t *items = unpack_bin(unpack, &len);

    if (len % ITEM_BYTES != 0)
        unpack_fail(unpack);
    out->items = (const struct event_item *)items;
    out->item_count = len / ITEM_BYTES;
}

static void read_ref(struct unpack *unpack, struct event_ref *out)
{
    if (unpack_array(unpack) != 3)
        unpack_fail(unpack);
    unpack_bytes(unpack, out->origin.bytes, sizeof out->origin.bytes);
    out->seq = unpack_uint(unpack, LARGEST);
    unpack_bytes(unpack, out->hash, sizeof out->hash);
}

static void read_sums(struct unpack *unpack, struct event *out)
{
    struct unpack look = *unpack;
    const uint8_t *start = unpack->at;

    (void)unpack_map(&look);
    unpack_skip(unpack);
    if (look.failed)
        unpack_fail(unpack);
    else
        out->sums = (struct text){(const char *)start, (uint32_t)(unpack->at - start)};
}

static void read_removed(struct unpack *unpack, struct reg *out)
{
    if (unpack_array(unpack) != 2)
        unpack_fail(unpack);
    out->stamp = unpack_uint(unpack, HLC_LIMIT - 1);
    unpack_bytes(unpack, out->origin.bytes, sizeof out->origin.bytes);
    if (out->stamp == 0)
        unpack_fail(unpack);
}

static void read_cloud(struct unpack *unpack, struct event *out)
{
    uint32_t seen = 0; /* what must be there, cloud_ok knows */

    for (uint32_t left = unpack_map(unpack); left > 0 && !unpack->failed; left--) {
        enum key key = read_key(unpack);

        if (key < KEYS && seen & bit(key))
            unpack_fail(unpack);
        if (key < KEYS)
            seen |= bit(key);
        switch (key) {
        case KEY_STATE:
            out->cloud_state = (uint8_t)unpack_uint(unpack, CLOUD_MARKED);
            break;
        case KEY_BACKEND:
            out->backend = read_text(unpack);
            break;
        case KEY_BUCKET:
            out->bucket = read_text(unpack);
            break;
        case KEY_KEY:
            out->key = read_text(unpack);
            break;
        case KEY_ETAG:
            out->etag = read_text(unpack);
            break;
        case KEY_OF:
            read_removed(unpack, &out->removed);
            break;
        default:
            unpack_skip(unpack);
        }
    }
}

/* The value of KEY, of which the kind knows. */
static void read_value(struct unpack *unpack, struct event *out, enum key key)
{
    switch (key) {
    case KEY_SHA256:
        unpack_bytes(unpack, out->sha256, SHA256_BYTES);
        break;
    case KEY_SIZE:
        out->size = unpack_uint(unpack, LARGEST);
        break;
    case KEY_LEVEL:
        out->level = (uint8_t)unpack_uint(unpack, 2);
        break;
    case KEY_NAME:
        out->name = read_text(unpack);
        break;
    case KEY_TYPE:
        out->type = read_text(unpack);
        break;
    case KEY_META:
        out->user_meta = read_text(unpack);
        break;
    case KEY_EXP:
        out->expires_ms = unpack_uint(unpack, LARGEST);
        break;
    case KEY_SUMS:
        read_sums(unpack, out);
        break;
    case KEY_WHY:
        out->reason = (uint8_t)unpack_uint(unpack, DELETE_EXPIRED);
        break;
    case KEY_PURGE:
        out->purge = unpack_bool(unpack);
        break;
    case KEY_ITEMS:
        read_items(unpack, out);
        break;
    case KEY_CLOUD:
        read_cloud(unpack, out);
        break;
    case KEY_BUCKET:
        out->bucket = read_text(unpack);
        break;
    case KEY_KEY:
        out->key = read_text(unpack);
        break;
    case KEY_ADDR:
        out->address = read_text(unpack);
        break;
    case KEY_STATE:
        out->member_state = (uint8_t)unpack_uint(unpack, MEMBER_FORGOTTEN);
        break;
    case KEY_WHO:
        unpack_bytes(unpack, out->subject.bytes, sizeof out->subject.bytes);
        break;
    case KEY_FOLLOWS:
        read_ref(unpack, &out->follows);
        break;
    case KEY_OF:
        unpack_bytes(unpack, out->run_node.bytes, sizeof out->run_node.bytes);
        break;
    case KEY_AFTER:
        read_ref(unpack, &out->after);
        break;
    case KEY_FEATURE:
        out->feature = (uint32_t)unpack_uint(unpack, UINT32_MAX);
        break;
    default:
        assert(!"a key that no kind has");
    }
}

/* Of the fields with several keys, all were there. */
static bool groups_complete(uint32_t fields, uint32_t seen)
{
    const uint32_t bind = bit(KEY_BUCKET) | bit(KEY_KEY);
    const uint32_t member = bit(KEY_ADDR) | bit(KEY_STATE) | bit(KEY_WHO);

    return (!(fields & EVENT_HAS_BIND) || (seen & bind) == bind) &&
           (!(fields & EVENT_HAS_MEMBER) || (seen & member) == member);
}

static void read_payload(struct unpack *unpack, struct event *out)
{
    uint32_t allowed = kinds[out->kind].allowed, seen = 0;

    for (uint32_t left = unpack_map(unpack); left > 0 && !unpack->failed; left--) {
        enum key key = read_key(unpack);
        uint32_t fields = key < KEYS ? keys[key].fields & allowed : 0;

        if (fields == 0) {
            unpack_skip(unpack);
            continue;
        }
        if (seen & bit(key))
            unpack_fail(unpack); /* twice: which one is meant? */
        seen |= bit(key);
        out->fields |= fields;
        read_value(unpack, out, key);
    }
    if (!groups_complete(out->fields, seen))
        unpack_fail(unpack);
}

/* A payload that is a well-formed map, of which nothing else is known. */
static void skip_payload(struct unpack *unpack)
{
    struct unpack look = *unpack;

    (void)unpack_map(&look);
    if (look.failed)
        unpack_fail(unpack);
    unpack_skip(unpack);
}

int event_decode(struct event *out, const uint8_t *data, size_t len)
{
    struct unpack unpack;

    memset(out, 0, sizeof *out);
    if (len > LIMIT_EVENT_BYTES)
        return ERR_INVALID;
    unpack_init(&unpack, data, len);
    uint32_t elements = unpack_array(&unpack);
    uint64_t version = unpack_uint(&unpack, UINT64_MAX);
    if (!unpack.failed && version > VERSION)
        return ERR_UNSUPPORTED;
    if (elements != EVENT_ARRAY || version != VERSION)
        return ERR_INVALID;
    unpack_bytes(&unpack, out->origin.bytes, sizeof out->origin.bytes);
    out->seq = unpack_uint(&unpack, LARGEST);
    unpack_bytes(&unpack, out->node.bytes, sizeof out->node.bytes);
    out->stamp = unpack_uint(&unpack, HLC_LIMIT - 1);
    out->kind = (uint32_t)unpack_uint(&unpack, UINT32_MAX);
    unpack_bytes(&unpack, out->id.bytes, sizeof out->id.bytes);
    unpack_bytes(&unpack, out->prev, sizeof out->prev);
    if (is_known(out->kind))
        read_payload(&unpack, out);
    else
        skip_payload(&unpack);
    if (unpack_done(&unpack) != 0)
        return ERR_INVALID;
    return event_error(out);
}

size_t event_items(const uint8_t *data, size_t len, struct event_item *out, size_t max)
{
    struct event event;

    if (event_decode(&event, data, len) != 0 || !event.items)
        return 0;
    size_t count = event.item_count < max ? event.item_count : max;
    memcpy(out, event.items, count * sizeof *out);
    return count;
}
