/*
 * Goal: whatever stands beside an object in the cloud, what is made of it is a row that a client
 * could have put; and a row, once written as metadata, tags and sidecar, keeps S3's limits and is
 * read back as it was. A key is what it was written for, or somebody else's.
 * Input: how many tags the cloud speaks of (1 byte), when it got the object (8), then text: a key,
 * the Content-Type, metadata "name=value" up to an empty line, tags likewise, the sidecar's body.
 */
#include "base/text.h"
#include "cluster/cloud_meta.h"
#include "journal/ulid.h"
#include "journal/usermeta.h"
#include "storage/cloud_s3_internal.h"
#include "tests/fuzz/fuzz.h"

struct input {
    struct cloud_head head;
    struct cloud_pair pairs[LIMIT_CLOUD_PAIRS], tags[LIMIT_CLOUD_PAIRS];
    size_t tag_count;
    struct cloud_text key;
    const char *sidecar;
    size_t sidecar_len;
};

static struct cloud_text next_line(const char **at, size_t *left)
{
    const char *end = memchr(*at, '\n', *left);
    struct cloud_text line = {*at, end ? (uint32_t)(end - *at) : (uint32_t)*left};
    size_t used = line.len + (end ? 1 : 0);

    *at += used;
    *left -= used;
    return line;
}

static size_t next_pairs(struct cloud_pair *pairs, const char **at, size_t *left)
{
    size_t count = 0;

    while (*left > 0) {
        struct cloud_text line = next_line(at, left);
        const char *sign = line.len ? memchr(line.ptr, '=', line.len) : NULL;

        if (!sign)
            break;
        uint32_t name = (uint32_t)(sign - line.ptr);
        if (count < LIMIT_CLOUD_PAIRS && name > 0)
            pairs[count++] = (struct cloud_pair){{line.ptr, name}, {sign + 1, line.len - name - 1}};
    }
    return count;
}

static void read_input(struct input *in, struct feed *feed)
{
    in->head.tag_count = (unsigned)feed_number(feed, 1) % 11;
    in->head.modified_s = (int64_t)feed_number(feed, 8);
    const char *at = (const char *)feed->at;
    size_t left = feed->left;
    in->key = next_line(&at, &left);
    in->head.type = next_line(&at, &left);
    in->head.pairs = in->pairs;
    in->head.pair_count = next_pairs(in->pairs, &at, &left);
    in->tag_count = next_pairs(in->tags, &at, &left);
    in->sidecar = at;
    in->sidecar_len = left;
}

/* ---- What is made of it ---- */

static void read_facts(struct cloud_facts *facts, const struct input *in)
{
    const struct cloud_head tags = {.pairs = in->tags, .pair_count = in->tag_count};

    CHECK(cloud_facts_read(facts, &in->head) == 0);
    CHECK(!(facts->in_tags && facts->in_sidecar));
    if (facts->in_tags)
        CHECK(cloud_facts_tags(facts, &tags) == 0);
    if (facts->in_sidecar) {
        struct text name = facts->name, user_meta = facts->user_meta;
        int rc = cloud_facts_sidecar(facts, in->sidecar, in->sidecar_len);

        CHECK(rc == 0 || rc == ERR_CORRUPT);
        if (rc)
            CHECK(facts->name.ptr == name.ptr && facts->user_meta.ptr == user_meta.ptr);
    }
}

static void check_facts(const struct cloud_facts *facts)
{
    struct buf canonical = {0};

    CHECK(facts->level == 1 || facts->level == 2);
    CHECK(facts->stamp > 0 && facts->stamp < HLC_LIMIT && hlc_wall_ms(facts->stamp) > 0);
    CHECK(facts->size <= INT64_MAX && facts->expires_ms <= INT64_MAX);
    CHECK(!(facts->fields & CLOUD_FACTS_NAME) == (facts->name.len == 0));
    CHECK(facts->name.len <= LIMIT_NAME_BYTES && facts->type.len <= LIMIT_CONTENT_TYPE_BYTES);
    if (facts->name.len > 0)
        CHECK(utf8_valid(facts->name.ptr, facts->name.len) &&
              !text_has_control(facts->name.ptr, facts->name.len));
    for (uint32_t i = 0; i < facts->type.len; i++)
        CHECK(facts->type.ptr[i] >= 0x20 && facts->type.ptr[i] <= 0x7e);
    if (facts->user_meta.len > 0) {
        CHECK(usermeta_canonical(&canonical, facts->user_meta.ptr, facts->user_meta.len) == 0);
        CHECK(canonical.len == facts->user_meta.len &&
              memcmp(canonical.data, facts->user_meta.ptr, canonical.len) == 0);
    }
    buf_release(&canonical);
}

/* ---- And written again ---- */

static bool same_text(struct text a, struct text b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static void never_done(struct cloud_request *request, int rc)
{
    (void)request;
    (void)rc;
}

static int never_read(struct cloud_request *request, uint64_t offset, void *buf, size_t len)
{
    (void)request;
    (void)offset;
    (void)buf;
    (void)len;
    return 0;
}

static void check_taken(const struct cloud_meta *meta, uint64_t size)
{
    const struct cloud_request put = {.op = CLOUD_PUT,
                                      .key = {"k", 1},
                                      .size = size < S3_OBJECT_BYTES ? size : 1,
                                      .type = meta->type,
                                      .pairs = meta->pairs,
                                      .pair_count = meta->pair_count,
                                      .tags = meta->tags,
                                      .tag_count = meta->tag_count,
                                      .read = never_read,
                                      .done = never_done};

    CHECK(s3_check_request(&put) == 0);
    CHECK(!meta->sidecar || meta->sidecar_len <= LIMIT_CLOUD_SIDECAR_BYTES);
}

static void check_round(const struct cloud_facts *facts)
{
    static const char fallback[] = "binary/octet-stream";
    struct object like = {.flags = OBJECT_PUT,
                          .id = facts->id,
                          .level = facts->level,
                          .put_at = {.stamp = facts->stamp},
                          .expires_ms = facts->expires_ms,
                          .size = facts->size};
    struct cloud_meta *meta = malloc(sizeof *meta);
    struct cloud_facts back;

    memcpy(like.sha256, facts->sha256, SHA256_BYTES);
    struct object *row = object_create(&like, facts->name, facts->type, facts->user_meta);
    CHECK(meta && row && cloud_meta_write(meta, row) == 0);
    check_taken(meta, like.size);
    struct input in = {.head = {.type = meta->type,
                                .pairs = meta->pairs,
                                .pair_count = meta->pair_count,
                                .tag_count = (unsigned)meta->tag_count,
                                .modified_s = 1},
                       .tag_count = meta->tag_count,
                       .sidecar = meta->sidecar,
                       .sidecar_len = meta->sidecar_len};
    if (meta->tag_count)
        memcpy(in.tags, meta->tags, meta->tag_count * sizeof *meta->tags);
    if (in.head.type.len == 0)
        in.head.type = s3_text(fallback);
    read_facts(&back, &in);
    CHECK(back.in_sidecar == (meta->sidecar != NULL));
    CHECK(memcmp(&back.id, &facts->id, sizeof back.id) == 0 && back.size == facts->size);
    CHECK(memcmp(back.sha256, facts->sha256, SHA256_BYTES) == 0 && back.level == facts->level);
    CHECK(back.stamp == facts->stamp && back.expires_ms == facts->expires_ms);
    CHECK(same_text(back.name, facts->name) && same_text(back.type, facts->type));
    CHECK(same_text(back.user_meta, facts->user_meta));
    cloud_facts_release(&back);
    cloud_meta_release(meta);
    object_destroy(&row);
    free(meta);
}

static void check_key(const struct cloud_text *key)
{
    static const char *const prefixes[] = {NULL, "", "a/b", "a/b/"};

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes && key->len > 0; i++) {
        struct cloud_key again = {.len = 0};
        struct id128 id;

        switch (cloud_key_read(&id, prefixes[i], key->ptr, key->len)) {
        case CLOUD_KEY_OBJECT:
            cloud_key_object(&again, prefixes[i], &id);
            break;
        case CLOUD_KEY_DELETED:
            cloud_key_deleted(&again, prefixes[i], &id);
            break;
        default:
            continue;
        }
        CHECK(again.len == key->len && memcmp(again.text, key->ptr, key->len) == 0);
        CHECK(ulid_check_time(&id) == 0);
        if (cloud_key_sidecar(&again, (struct text){key->ptr, key->len}) == 0) {
            struct id128 of;

            CHECK(cloud_key_read(&of, prefixes[i], again.text, again.len) == CLOUD_KEY_SIDECAR);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = exact_copy(data, size);
    struct feed feed = {copy, size};
    struct input *in = calloc(1, sizeof *in);
    struct cloud_facts facts;

    CHECK(in);
    read_input(in, &feed);
    check_key(&in->key);
    read_facts(&facts, in);
    check_facts(&facts);
    check_round(&facts);
    cloud_facts_release(&facts);
    free(in);
    free(copy);
    return 0;
}
