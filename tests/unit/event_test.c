/* Goal: every event survives its encoding; bytes that are no event are refused, whatever they are;
 * what a later build adds is passed over; and this node never writes what it would not read. */
#include "journal/event.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(s) ((struct text){s, sizeof(s) - 1})

static struct event event_of(uint32_t kind)
{
    struct event event = {
        .seq = 7,
        .stamp = UINT64_C(1763700000000) << 16,
        .kind = kind,
    };

    memset(event.origin.bytes, 0x11, 16);
    memset(event.node.bytes, 0x22, 16);
    memset(event.id.bytes, 0x33, 16);
    memset(event.prev, 0x44, SHA256_BYTES);
    return event;
}

static struct event a_put(void)
{
    struct event event = event_of(EVENT_PUT);

    event.fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL;
    memset(event.sha256, 0x55, SHA256_BYTES);
    event.size = 1024;
    event.level = 1;
    return event;
}

static struct event a_cloud(uint8_t cloud_state)
{
    struct event event = event_of(EVENT_CLOUD);

    event.fields = EVENT_HAS_CLOUD | EVENT_HAS_SHA256;
    memset(event.sha256, 0x55, SHA256_BYTES);
    event.cloud_state = cloud_state;
    event.backend = TEXT("s3");
    event.bucket = TEXT("photos");
    event.key = TEXT("prefix/gr\xc3\xbc\xc3\x9f");
    event.etag = TEXT("\"abc\"");
    return event;
}

static struct buf encoded(const struct event *event)
{
    struct buf out;

    buf_init(&out, 0);
    event_encode(&out, event);
    assert_int_equal(buf_check(&out), 0);
    return out;
}

static int decode(struct event *out, const struct buf *bytes)
{
    return event_decode(out, (const uint8_t *)bytes->data, bytes->len);
}

static void same_text(struct text a, struct text b)
{
    assert_int_equal(a.len, b.len);
    if (a.len > 0)
        assert_memory_equal(a.ptr, b.ptr, a.len);
}

/* DATA stays the caller's: texts and items of *OUT point into it. */
static struct buf survives(const struct event *event)
{
    struct buf bytes = encoded(event);
    struct event out;

    assert_int_equal(decode(&out, &bytes), 0);
    assert_memory_equal(&out.origin, &event->origin, sizeof out.origin);
    assert_memory_equal(&out.node, &event->node, sizeof out.node);
    assert_memory_equal(&out.id, &event->id, sizeof out.id);
    assert_memory_equal(out.prev, event->prev, sizeof out.prev);
    assert_memory_equal(out.sha256, event->sha256, sizeof out.sha256);
    assert_true(out.seq == event->seq && out.stamp == event->stamp && out.kind == event->kind);
    assert_int_equal(out.fields, event->fields);
    assert_true(out.size == event->size && out.level == event->level);
    assert_true(out.expires_ms == event->expires_ms && out.reason == event->reason);
    assert_true(out.purge == event->purge && out.cloud_state == event->cloud_state);
    assert_int_equal(out.member_state, event->member_state);
    assert_memory_equal(&out.follows.origin, &event->follows.origin, sizeof out.follows.origin);
    assert_memory_equal(out.follows.hash, event->follows.hash, sizeof out.follows.hash);
    assert_true(out.follows.seq == event->follows.seq);
    assert_memory_equal(&out.subject, &event->subject, sizeof out.subject);
    same_text(out.name, event->name);
    same_text(out.type, event->type);
    same_text(out.user_meta, event->user_meta);
    same_text(out.backend, event->backend);
    same_text(out.bucket, event->bucket);
    same_text(out.key, event->key);
    same_text(out.etag, event->etag);
    assert_true(out.removed.stamp == event->removed.stamp &&
                id_equal(&out.removed.origin, &event->removed.origin));
    same_text(out.address, event->address);
    same_text(out.sums, event->sums);
    assert_int_equal(out.item_count, event->item_count);
    if (out.item_count > 0)
        assert_memory_equal(out.items, event->items, out.item_count * sizeof *out.items);
    return bytes;
}

static void survives_encoding(const struct event *event)
{
    struct buf bytes = survives(event);

    buf_release(&bytes);
}

static void puts_and_metas_survive(void **state)
{
    struct event put = a_put(), meta = event_of(EVENT_META);

    (void)state;
    survives_encoding(&put);
    survives_encoding(&meta);
    put.fields |= EVENT_HAS_NAME | EVENT_HAS_TYPE | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES |
                  EVENT_HAS_FOLLOWS | EVENT_HAS_SUMS;
    put.name = TEXT("Gr\xc3\xbc\xc3\x9f"
                    "e \xf0\x9f\x98\x80.txt");
    put.type = TEXT("text/plain; charset=utf-8");
    put.user_meta = TEXT("{\"a\":\"\\u00FC\"}");
    put.expires_ms = UINT64_C(4102444800000);
    put.size = INT64_MAX;
    put.follows.seq = 99;
    memset(&put.follows.origin, 0x66, 16);
    memset(put.follows.hash, 0x77, SHA256_BYTES);
    put.sums = TEXT("\x81\xa3md5\xc4\x02hi");
    survives_encoding(&put);
    meta.fields = EVENT_HAS_LEVEL | EVENT_HAS_NAME | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES;
    meta.level = 2; /* and the texts are empty: that is how they are cleared */
    survives_encoding(&meta);
}

static void deletes_and_lists_survive(void **state)
{
    struct event delete = event_of(EVENT_DELETE), hold = event_of(EVENT_HOLD);
    struct event_item items[LIMIT_EVENT_LIST_ITEMS], out[LIMIT_EVENT_LIST_ITEMS];

    (void)state;
    survives_encoding(&delete);
    delete.fields = EVENT_HAS_REASON | EVENT_HAS_PURGE;
    delete.reason = DELETE_EXPIRED;
    delete.purge = true;
    survives_encoding(&delete);
    delete.purge = false;
    survives_encoding(&delete);
    delete.reason = DELETE_BY_CLIENT;
    survives_encoding(&delete);

    for (size_t i = 0; i < LIMIT_EVENT_LIST_ITEMS; i++)
        memset(&items[i], (int)i, sizeof items[i]);
    memset(&hold.id, 0, sizeof hold.id);
    hold.fields = EVENT_HAS_ITEMS;
    hold.items = items;
    hold.item_count = LIMIT_EVENT_LIST_ITEMS;
    struct buf bytes = survives(&hold);
    const uint8_t *data = (const uint8_t *)bytes.data;
    assert_int_equal(event_items(data, bytes.len, out, LIMIT_EVENT_LIST_ITEMS),
                     LIMIT_EVENT_LIST_ITEMS);
    assert_memory_equal(out, items, sizeof items);
    assert_int_equal(event_items(data, bytes.len, out, 3), 3);
    assert_int_equal(event_items(data, bytes.len, out, 0), 0);
    assert_int_equal(event_items(data, bytes.len, out, LIMIT_EVENT_LIST_ITEMS + 1),
                     LIMIT_EVENT_LIST_ITEMS);
    assert_int_equal(event_items(data, bytes.len - 1, out, 3), 0);
    buf_release(&bytes);
    hold.kind = EVENT_DROP;
    hold.item_count = 1;
    survives_encoding(&hold);
    bytes = encoded(&delete);
    assert_int_equal(event_items((const uint8_t *)bytes.data, bytes.len, out, 3), 0);
    buf_release(&bytes);
}

static void cloud_bind_member_and_freeze_survive(void **state)
{
    struct event cloud = a_cloud(CLOUD_UPLOADED), bind = event_of(EVENT_BIND);
    struct event member = event_of(EVENT_MEMBER), freeze = event_of(EVENT_FREEZE);

    (void)state;
    survives_encoding(&cloud);
    cloud.cloud_state = CLOUD_PURGED;
    cloud.fields = EVENT_HAS_CLOUD;
    memset(cloud.sha256, 0, SHA256_BYTES);
    cloud.bucket = cloud.etag = (struct text){NULL, 0};
    survives_encoding(&cloud);
    cloud.removed = (struct reg){HLC_LIMIT - 1, {{1, 2}}};
    survives_encoding(&cloud);
    cloud.cloud_state = CLOUD_MARKED;
    survives_encoding(&cloud);
    bind.fields = EVENT_HAS_BIND;
    bind.bucket = TEXT("photos");
    bind.key = TEXT("2026/\xe2\x82\xac");
    survives_encoding(&bind);
    bind.bucket = bind.key = TEXT("b");
    survives_encoding(&bind);
    bind.kind = EVENT_UNBIND;
    memset(&bind.id, 0, sizeof bind.id);
    survives_encoding(&bind);
    member.fields = EVENT_HAS_MEMBER;
    member.address = TEXT("[::1]:4222");
    member.member_state = MEMBER_FORGOTTEN;
    memset(&member.subject, 0x88, 16);
    survives_encoding(&member);
    freeze.fields = EVENT_HAS_FREEZE | EVENT_HAS_FOLLOWS;
    freeze.follows.seq = 3;
    memset(&freeze.subject, 0x99, 16);
    survives_encoding(&freeze);
}

/* The bytes are a format: other nodes hash and relay them. */
static void a_put_has_the_documented_bytes(void **state)
{
    struct event put = a_put();
    static const uint8_t head[] = {0x99, 0x01, 0xc4, 0x10, 0x11};
    static const uint8_t size[] = {0xa4, 's', 'i', 'z', 'e', 0xcd, 0x04, 0x00,
                                   0xa5, 'l', 'e', 'v', 'e', 'l',  0x01};

    (void)state;
    struct buf bytes = encoded(&put);
    assert_int_equal(bytes.len, 1 + 1 + 18 + 1 + 18 + 9 + 1 + 18 + 34 + 1 + 7 + 34 + 15);
    assert_memory_equal(bytes.data, head, sizeof head);
    assert_memory_equal(bytes.data + bytes.len - sizeof size, size, sizeof size);
    assert_int_equal((uint8_t)bytes.data[bytes.len - sizeof size - 42], 0x83);
    buf_release(&bytes);
}

/* The limit is each event's, not that of the buffer it is appended to. */
static void many_events_together_may_be_larger_than_the_largest(void **state)
{
    struct event put = a_put();
    struct buf out;

    (void)state;
    buf_init(&out, 2 * LIMIT_EVENT_BYTES);
    while (out.len <= LIMIT_EVENT_BYTES + 1000)
        event_encode(&out, &put);
    assert_int_equal(buf_check(&out), 0);
    buf_release(&out);
}

static void encoding_appends_and_a_failure_leaves_what_was_there(void **state)
{
    struct event put = a_put();
    struct buf out;

    (void)state;
    buf_init(&out, 400);
    event_encode(&out, &put);
    size_t one = out.len;
    event_encode(&out, &put);
    assert_int_equal(out.len, 2 * one);
    event_encode(&out, &put);
    assert_int_equal(buf_check(&out), ERR_TOO_BIG);
    assert_int_equal(out.len, 2 * one);
    event_encode(&out, &put);
    assert_int_equal(out.len, 2 * one);
    buf_release(&out);
}

static void not_written(const struct event *event)
{
    struct buf out;

    buf_init(&out, 0);
    event_encode(&out, event);
    assert_int_equal(buf_check(&out), ERR_INVALID);
    assert_int_equal(out.len, 0);
    buf_release(&out);
}

static void what_would_be_refused_is_never_written(void **state)
{
    static char many[LIMIT_USER_META_BYTES + 1];
    struct event event;

    (void)state;
    memset(many, 'x', sizeof many);
#define REFUSED(make, change)                                                                      \
    event = (make);                                                                                \
    change;                                                                                        \
    not_written(&event)
    REFUSED(a_put(), event.seq = 0);
    REFUSED(a_put(), event.seq = UINT64_C(1) << 63);
    REFUSED(a_put(), event.seq = 1); /* but prev is not zero */
    REFUSED(a_put(), event.stamp = 0);
    REFUSED(a_put(), event.stamp = HLC_LIMIT);
    REFUSED(a_put(), memset(&event.origin, 0, 16));
    REFUSED(a_put(), memset(&event.node, 0, 16));
    REFUSED(a_put(), memset(&event.id, 0, 16));
    REFUSED(a_put(), event.fields &= ~(uint32_t)EVENT_HAS_SHA256);
    REFUSED(a_put(), event.fields &= ~(uint32_t)EVENT_HAS_SIZE);
    REFUSED(a_put(), event.fields &= ~(uint32_t)EVENT_HAS_LEVEL);
    REFUSED(a_put(), event.level = 3);
    REFUSED(a_put(), event.size = UINT64_C(1) << 63);
    REFUSED(a_put(), (event.fields |= EVENT_HAS_NAME,
                      event.name = (struct text){many, LIMIT_NAME_BYTES + 1}));
    REFUSED(a_put(), (event.fields |= EVENT_HAS_NAME, event.name = TEXT("a\nb")));
    REFUSED(a_put(), (event.fields |= EVENT_HAS_NAME, event.name = TEXT("a\xc2\x85")));
    REFUSED(a_put(), (event.fields |= EVENT_HAS_NAME, event.name = TEXT("\xff")));
    REFUSED(a_put(), (event.fields |= EVENT_HAS_TYPE, event.type = TEXT("a/b\r\nX: y")));
    REFUSED(a_put(), (event.fields |= EVENT_HAS_TYPE,
                      event.type = (struct text){many, LIMIT_CONTENT_TYPE_BYTES + 1}));
    REFUSED(a_put(), (event.fields |= EVENT_HAS_USER_META, event.user_meta = TEXT("x")));
    REFUSED(a_put(),
            (event.fields |= EVENT_HAS_USER_META, event.user_meta = TEXT("{\"\n\":\"\"}")));
    REFUSED(a_put(), (event.fields |= EVENT_HAS_USER_META, event.user_meta = TEXT("{\"a\":\"\"")));
    REFUSED(a_put(), (event.fields |= EVENT_HAS_EXPIRES, event.expires_ms = UINT64_MAX));
    REFUSED(a_put(), (event.fields |= EVENT_HAS_SUMS, event.sums = TEXT("\x91\x01")));
    REFUSED(a_put(), (event.fields |= EVENT_HAS_SUMS, event.sums = TEXT("\x81\x01")));
    REFUSED(a_put(), (event.fields |= EVENT_HAS_SUMS, event.sums = TEXT("\x80\x01")));
    REFUSED(a_put(), event.fields |= EVENT_HAS_FOLLOWS); /* seq 0 */
    REFUSED(event_of(EVENT_DELETE), (event.fields = EVENT_HAS_REASON, event.reason = 2));
    REFUSED(event_of(EVENT_HOLD), (void)0);
    REFUSED(event_of(EVENT_HOLD), event.fields = EVENT_HAS_ITEMS);
    REFUSED(event_of(EVENT_FREEZE), event.fields = EVENT_HAS_FREEZE);
    REFUSED(a_cloud(CLOUD_UPLOADED), event.fields = EVENT_HAS_CLOUD);
    REFUSED(a_cloud(0), (void)0);
    REFUSED(a_cloud(5), (void)0);
    REFUSED(a_cloud(CLOUD_UPLOADED), event.key = TEXT("a\0b"));
    REFUSED(a_cloud(CLOUD_UPLOADED), event.bucket = TEXT("\0"));
    REFUSED(a_cloud(CLOUD_PURGED), event.removed.stamp = HLC_LIMIT);
    REFUSED(a_cloud(CLOUD_STARTED), event.backend.len = 0);
    REFUSED(a_cloud(CLOUD_STARTED), event.key.len = 0);
    REFUSED(a_cloud(CLOUD_STARTED), event.key = TEXT("\xff"));
    REFUSED(event_of(EVENT_BIND), (event.fields = EVENT_HAS_BIND, event.key = TEXT("k")));
    REFUSED(event_of(EVENT_BIND), (event.fields = EVENT_HAS_BIND, event.bucket = TEXT("b")));
    REFUSED(event_of(EVENT_MEMBER), event.fields = EVENT_HAS_MEMBER);
    REFUSED(event_of(EVENT_MEMBER), (event.fields = EVENT_HAS_MEMBER, event.member_state = 4));
#undef REFUSED
}

static void the_longest_texts_are_accepted(void **state)
{
    static char many[LIMIT_USER_META_BYTES];
    struct event put = a_put();

    (void)state;
    memset(many, 'x', sizeof many);
    put.fields |= EVENT_HAS_NAME | EVENT_HAS_TYPE | EVENT_HAS_USER_META;
    put.name = (struct text){many + 1, LIMIT_NAME_BYTES};
    put.type = (struct text){many + 1, LIMIT_CONTENT_TYPE_BYTES};
    many[0] = '{';
    many[sizeof many - 1] = '}';
    put.user_meta = (struct text){many, LIMIT_USER_META_BYTES};
    survives_encoding(&put);
}

/* ---- Events as another, perhaps later or hostile, build may write them ---- */

struct writer {
    msgpack_sbuffer out;
    msgpack_packer pk;
};

static void begin(struct writer *w, uint32_t elements, uint64_t version, uint64_t kind)
{
    struct event event = event_of(0);

    msgpack_sbuffer_init(&w->out);
    msgpack_packer_init(&w->pk, &w->out, msgpack_sbuffer_write);
    msgpack_pack_array(&w->pk, elements);
    msgpack_pack_uint64(&w->pk, version);
    msgpack_pack_bin_with_body(&w->pk, event.origin.bytes, 16);
    msgpack_pack_uint64(&w->pk, event.seq);
    msgpack_pack_bin_with_body(&w->pk, event.node.bytes, 16);
    msgpack_pack_uint64(&w->pk, event.stamp);
    msgpack_pack_uint64(&w->pk, kind);
    msgpack_pack_bin_with_body(&w->pk, event.id.bytes, 16);
    msgpack_pack_bin_with_body(&w->pk, event.prev, SHA256_BYTES);
}

static void key(struct writer *w, const char *text)
{
    msgpack_pack_str_with_body(&w->pk, text, strlen(text));
}

static void put_keys(struct writer *w)
{
    static const uint8_t sha[SHA256_BYTES] = {1};

    key(w, "sha256");
    msgpack_pack_bin_with_body(&w->pk, sha, sizeof sha);
    key(w, "size");
    msgpack_pack_uint64(&w->pk, 5);
    key(w, "level");
    msgpack_pack_uint64(&w->pk, 2);
}

static int finish(struct writer *w, struct event *out)
{
    int rc = event_decode(out, (const uint8_t *)w->out.data, w->out.size);

    msgpack_sbuffer_destroy(&w->out);
    return rc;
}

static void keys_of_a_later_build_are_passed_over(void **state)
{
    struct writer w;
    struct event out;

    (void)state;
    begin(&w, 9, 1, EVENT_PUT);
    msgpack_pack_map(&w.pk, 8);
    key(&w, "future");
    msgpack_pack_map(&w.pk, 1);
    msgpack_pack_array(&w.pk, 2);
    msgpack_pack_nil(&w.pk);
    msgpack_pack_double(&w.pk, 1.5);
    msgpack_pack_int(&w.pk, -5);
    put_keys(&w);
    key(&w, "bucket"); /* known, but not of a put: any type will do */
    msgpack_pack_int(&w.pk, -1);
    key(&w, "future");
    msgpack_pack_nil(&w.pk);
    key(&w, "state");
    msgpack_pack_array(&w.pk, 0);
    key(&w, "");
    msgpack_pack_true(&w.pk);
    assert_int_equal(finish(&w, &out), 0);
    assert_int_equal(out.fields, EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL);
    assert_int_equal(out.size, 5);
    assert_int_equal(out.level, 2);
}

static void a_kind_of_a_later_build_decodes_without_its_payload(void **state)
{
    struct writer w;
    struct event out;

    (void)state;
    begin(&w, 9, 1, 4000000000u);
    msgpack_pack_map(&w.pk, 1);
    key(&w, "size");
    key(&w, "a string");
    assert_int_equal(finish(&w, &out), 0);
    assert_int_equal(out.kind, 4000000000u);
    assert_int_equal(out.fields, 0);
    assert_int_equal(out.seq, 7);
    assert_string_equal(event_kind_name(out.kind), "unknown");

    begin(&w, 9, 1, 11);
    msgpack_pack_array(&w.pk, 0); /* a payload is a map */
    assert_int_equal(finish(&w, &out), ERR_INVALID);
    begin(&w, 9, 1, 0);
    msgpack_pack_map(&w.pk, 1);
    key(&w, "cut");
    assert_int_equal(finish(&w, &out), ERR_INVALID);
}

static void a_higher_version_is_unsupported_and_other_shapes_are_invalid(void **state)
{
    struct writer w;
    struct event out;

    (void)state;
    begin(&w, 10, 2, EVENT_PUT);
    assert_int_equal(finish(&w, &out), ERR_UNSUPPORTED);
    begin(&w, 9, 0, EVENT_DELETE);
    msgpack_pack_map(&w.pk, 0);
    assert_int_equal(finish(&w, &out), ERR_INVALID);
    begin(&w, 10, 1, EVENT_DELETE);
    msgpack_pack_map(&w.pk, 0);
    msgpack_pack_nil(&w.pk);
    assert_int_equal(finish(&w, &out), ERR_INVALID);
    begin(&w, 9, 1, EVENT_DELETE);
    msgpack_pack_map(&w.pk, 0);
    msgpack_pack_nil(&w.pk); /* one byte too many */
    assert_int_equal(finish(&w, &out), ERR_INVALID);
    assert_int_equal(event_decode(&out, (const uint8_t *)"", 0), ERR_INVALID);
    begin(&w, 9, 1, (uint64_t)UINT32_MAX + 1 + EVENT_DELETE);
    msgpack_pack_map(&w.pk, 0);
    assert_int_equal(finish(&w, &out), ERR_INVALID);
}

static void a_key_twice_is_refused(void **state)
{
    struct writer w;
    struct event out;

    (void)state;
    begin(&w, 9, 1, EVENT_PUT);
    msgpack_pack_map(&w.pk, 4);
    put_keys(&w);
    key(&w, "size");
    msgpack_pack_uint64(&w.pk, 5);
    assert_int_equal(finish(&w, &out), ERR_INVALID);

    begin(&w, 9, 1, EVENT_CLOUD);
    msgpack_pack_map(&w.pk, 1);
    key(&w, "cloud");
    msgpack_pack_map(&w.pk, 4);
    key(&w, "state");
    msgpack_pack_uint64(&w.pk, CLOUD_PURGED);
    key(&w, "backend");
    key(&w, "dir");
    key(&w, "key");
    key(&w, "k");
    key(&w, "state");
    msgpack_pack_uint64(&w.pk, CLOUD_PURGED);
    assert_int_equal(finish(&w, &out), ERR_INVALID);
}

static int with_payload(uint32_t kind, void (*payload)(struct writer *w))
{
    struct writer w;
    struct event out;

    begin(&w, 9, 1, kind);
    payload(&w);
    return finish(&w, &out);
}

static void size_as_text(struct writer *w)
{
    msgpack_pack_map(&w->pk, 4);
    put_keys(w);
    key(w, "name");
    msgpack_pack_uint64(&w->pk, 5);
}

static void short_sha(struct writer *w)
{
    msgpack_pack_map(&w->pk, 3);
    key(w, "sha256");
    msgpack_pack_bin_with_body(&w->pk, "1234", 4);
    key(w, "size");
    msgpack_pack_uint64(&w->pk, 5);
    key(w, "level");
    msgpack_pack_uint64(&w->pk, 0);
}

static void broken_list(struct writer *w)
{
    static const char bytes[49];

    msgpack_pack_map(&w->pk, 1);
    key(w, "items");
    msgpack_pack_bin_with_body(&w->pk, bytes, sizeof bytes);
}

static void long_list(struct writer *w)
{
    static const char bytes[48 * (LIMIT_EVENT_LIST_ITEMS + 1)];

    msgpack_pack_map(&w->pk, 1);
    key(w, "items");
    msgpack_pack_bin_with_body(&w->pk, bytes, sizeof bytes);
}

static void number_as_key(struct writer *w)
{
    msgpack_pack_map(&w->pk, 1);
    msgpack_pack_uint64(&w->pk, 1);
    msgpack_pack_nil(&w->pk);
}

static void half_a_bind(struct writer *w)
{
    msgpack_pack_map(&w->pk, 1);
    key(w, "key");
    key(w, "k");
}

static void a_member_without_who(struct writer *w)
{
    msgpack_pack_map(&w->pk, 2);
    key(w, "addr");
    key(w, "a");
    key(w, "state");
    msgpack_pack_uint64(&w->pk, MEMBER_JOINED);
}

static void cloud_without_key(struct writer *w)
{
    msgpack_pack_map(&w->pk, 1);
    key(w, "cloud");
    msgpack_pack_map(&w->pk, 2);
    key(w, "state");
    msgpack_pack_uint64(&w->pk, CLOUD_STARTED);
    key(w, "backend");
    key(w, "s3");
}

static void begin_purge(struct writer *w)
{
    msgpack_pack_map(&w->pk, 1);
    key(w, "cloud");
    msgpack_pack_map(&w->pk, 4);
    key(w, "state");
    msgpack_pack_uint64(&w->pk, CLOUD_PURGED);
    key(w, "backend");
    key(w, "s3");
    key(w, "key");
    key(w, "k");
    key(w, "of");
}

static void purge_of_a_number(struct writer *w)
{
    begin_purge(w);
    msgpack_pack_uint64(&w->pk, 7);
}

static void purge_of(struct writer *w, uint64_t stamp, size_t origin)
{
    begin_purge(w);
    msgpack_pack_array(&w->pk, 2);
    msgpack_pack_uint64(&w->pk, stamp);
    msgpack_pack_bin_with_body(&w->pk, "0123456789abcdef", origin);
}

static void purge_of_nothing(struct writer *w)
{
    purge_of(w, 0, 16);
}

static void purge_of_half_an_origin(struct writer *w)
{
    purge_of(w, 7, 15);
}

static void purge_beyond_time(struct writer *w)
{
    purge_of(w, HLC_LIMIT, 16);
}

static void purge_of_an_upload(struct writer *w)
{
    purge_of(w, 7, 16);
}

static void sums_as_text(struct writer *w)
{
    msgpack_pack_map(&w->pk, 4);
    put_keys(w);
    key(w, "sums");
    key(w, "x");
}

static void follows_of_two(struct writer *w)
{
    msgpack_pack_map(&w->pk, 1);
    key(w, "follows");
    msgpack_pack_array(&w->pk, 2);
    msgpack_pack_bin_with_body(&w->pk, "0123456789abcdef", 16);
    msgpack_pack_uint64(&w->pk, 1);
}

static void deep_key(struct writer *w)
{
    msgpack_pack_map(&w->pk, 1);
    key(w, "future");
    for (int i = 0; i < 100000; i++)
        msgpack_pack_array(&w->pk, 1);
    msgpack_pack_nil(&w->pk);
}

static void huge_map(struct writer *w)
{
    msgpack_pack_map(&w->pk, UINT32_MAX);
}

static void fields_of_a_wrong_shape_are_refused(void **state)
{
    (void)state;
    assert_int_equal(with_payload(EVENT_PUT, size_as_text), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_PUT, short_sha), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_PUT, sums_as_text), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_HOLD, broken_list), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_DROP, long_list), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_DELETE, number_as_key), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_BIND, half_a_bind), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_MEMBER, a_member_without_who), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_CLOUD, cloud_without_key), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_CLOUD, purge_of_an_upload), 0);
    assert_int_equal(with_payload(EVENT_CLOUD, purge_of_a_number), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_CLOUD, purge_of_nothing), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_CLOUD, purge_of_half_an_origin), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_CLOUD, purge_beyond_time), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_DELETE, follows_of_two), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_DELETE, deep_key), ERR_INVALID);
    assert_int_equal(with_payload(99, deep_key), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_DELETE, huge_map), ERR_INVALID);
    assert_int_equal(with_payload(99, huge_map), ERR_INVALID);
    assert_int_equal(with_payload(EVENT_PUT, half_a_bind), ERR_INVALID); /* nothing of a put */
}

static void more_than_the_largest_event_is_refused(void **state)
{
    static const char bytes[LIMIT_EVENT_BYTES];

    (void)state;
    for (int over = 0; over < 2; over++) {
        struct writer w;
        struct event out;

        begin(&w, 9, 1, EVENT_DELETE);
        msgpack_pack_map(&w.pk, 1);
        key(&w, "future");
        msgpack_pack_bin_with_body(&w.pk, bytes, LIMIT_EVENT_BYTES - w.out.size - 5 + (size_t)over);
        assert_int_equal(w.out.size, LIMIT_EVENT_BYTES + (size_t)over);
        assert_int_equal(finish(&w, &out), over ? ERR_INVALID : 0);
    }
}

/* Every beginning of an event on its own piece of heap: sanitizers see a read beyond it. */
static void no_beginning_of_an_event_is_one(void **state)
{
    struct event put = a_put();

    (void)state;
    put.fields |= EVENT_HAS_NAME | EVENT_HAS_FOLLOWS;
    put.name = TEXT("a name");
    put.follows.seq = 1;
    struct buf bytes = encoded(&put);
    for (size_t len = 0; len < bytes.len; len++) {
        uint8_t *part = malloc(len ? len : 1);
        struct event out;

        assert_non_null(part);
        memcpy(part, bytes.data, len);
        assert_int_equal(event_decode(&out, part, len), ERR_INVALID);
        free(part);
    }
    buf_release(&bytes);
}

/* Damage anywhere is refused, or gives an event that this node itself could have written. */
static void damaged_events_are_refused_or_well_formed(void **state)
{
    struct event seeds[] = {a_put(), a_cloud(CLOUD_UPLOADED), event_of(EVENT_DELETE)};
    int accepted = 0, refused = 0;

    (void)state;
    seeds[0].fields |= EVENT_HAS_NAME | EVENT_HAS_TYPE | EVENT_HAS_USER_META | EVENT_HAS_SUMS;
    seeds[0].name = TEXT("gr\xc3\xbc\xc3\x9f");
    seeds[0].type = TEXT("a/b");
    seeds[0].user_meta = TEXT("{}");
    seeds[0].sums = TEXT("\x81\xa3md5\x92\x01\xc0");
    srand(3);
    for (int round = 0; round < 60000; round++) {
        struct buf bytes = encoded(&seeds[round % 3]);
        struct event out;

        for (int hits = 1 + rand() % 3; hits > 0; hits--)
            bytes.data[(size_t)rand() % bytes.len] = (char)(rand() >> 4);
        if (decode(&out, &bytes) != 0) {
            refused++;
        } else {
            accepted++;
            if (strcmp(event_kind_name(out.kind), "unknown") != 0)
                survives_encoding(&out);
        }
        buf_release(&bytes);
    }
    assert_true(accepted > 1000 && refused > 1000);
}

static void the_chains_hash_is_over_the_raw_bytes(void **state)
{
    static const uint8_t expected[] = {0xba, 0x78, 0x16, 0xbf};
    uint8_t hash[SHA256_BYTES];

    (void)state;
    event_hash("abc", 3, hash);
    assert_memory_equal(hash, expected, sizeof expected);
    static const char *const names[] = {
        "unknown",
        [EVENT_PUT] = "put",
        [EVENT_META] = "meta",
        [EVENT_DELETE] = "delete",
        [EVENT_HOLD] = "hold",
        [EVENT_DROP] = "drop",
        [EVENT_CLOUD] = "cloud",
        [EVENT_BIND] = "bind",
        [EVENT_UNBIND] = "unbind",
        [EVENT_MEMBER] = "member",
        [EVENT_FREEZE] = "freeze",
        [EVENT_FEATURE] = "feature",
        "unknown",
    };

    for (uint32_t kind = 0; kind < sizeof names / sizeof *names; kind++)
        assert_string_equal(event_kind_name(kind), names[kind]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(puts_and_metas_survive),
        cmocka_unit_test(deletes_and_lists_survive),
        cmocka_unit_test(cloud_bind_member_and_freeze_survive),
        cmocka_unit_test(a_put_has_the_documented_bytes),
        cmocka_unit_test(many_events_together_may_be_larger_than_the_largest),
        cmocka_unit_test(encoding_appends_and_a_failure_leaves_what_was_there),
        cmocka_unit_test(what_would_be_refused_is_never_written),
        cmocka_unit_test(the_longest_texts_are_accepted),
        cmocka_unit_test(keys_of_a_later_build_are_passed_over),
        cmocka_unit_test(a_kind_of_a_later_build_decodes_without_its_payload),
        cmocka_unit_test(a_higher_version_is_unsupported_and_other_shapes_are_invalid),
        cmocka_unit_test(a_key_twice_is_refused),
        cmocka_unit_test(fields_of_a_wrong_shape_are_refused),
        cmocka_unit_test(more_than_the_largest_event_is_refused),
        cmocka_unit_test(no_beginning_of_an_event_is_one),
        cmocka_unit_test(damaged_events_are_refused_or_well_formed),
        cmocka_unit_test(the_chains_hash_is_over_the_raw_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
