/*
 * Rows as metadata, and back: the table stands in the header.
 *
 * Writing tries the places for user meta one after the other; each try that does not fit is taken
 * back. What S3 allows: 2 KiB of metadata names and values; ten tags, names to 128 and values to
 * 256 characters of letters, digits, blanks and + - = . _ : / @; header names in one case, so a key
 * with capitals cannot be a name of its own.
 *
 * Reading takes each pair by itself. Where the put's stamp is missing (the ancestor's objects, or
 * files that somebody put there), the time stands in for it: the ancestor's timestamp, else when
 * the cloud got it. Such a stamp is older than anything that is written from now on.
 */
#include "cluster/cloud_meta.h"

#include "base/json.h"
#include "base/text.h"
#include "journal/ulid.h"
#include "journal/usermeta.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENCODED       "UTF-8''"
#define ENCODED_BYTES (sizeof ENCODED - 1)
#define DELETED       ".deleted/"
#define SIDECAR       ".usermeta"
#define PER_KEY       "usermeta-"
#define TAG_NAME      128
#define TAG_VALUE     256

/* ---- Keys ---- */

static size_t write_prefix(struct cloud_key *out, const char *prefix)
{
    size_t len = prefix ? strlen(prefix) : 0;

    assert(len <= 256); /* an option's limit */
    if (len == 0)
        return 0;
    memcpy(out->text, prefix, len);
    if (prefix[len - 1] != '/')
        out->text[len++] = '/';
    return len;
}

static void write_key(struct cloud_key *out, const char *prefix, const char *folder,
                      const struct id128 *id)
{
    size_t at = write_prefix(out, prefix);

    memcpy(out->text + at, folder, strlen(folder));
    at += strlen(folder);
    ulid_format(out->text + at, id);
    out->len = (uint32_t)(at + ULID_TEXT_BYTES);
}

void cloud_key_object(struct cloud_key *out, const char *prefix, const struct id128 *id)
{
    write_key(out, prefix, "", id);
}

void cloud_key_deleted(struct cloud_key *out, const char *prefix, const struct id128 *id)
{
    write_key(out, prefix, DELETED, id);
}

int cloud_key_sidecar(struct cloud_key *out, struct text key)
{
    if (key.len + strlen(SIDECAR) > LIMIT_CLOUD_KEY_BYTES)
        return ERR_TOO_BIG;
    memcpy(out->text, key.ptr, key.len);
    memcpy(out->text + key.len, SIDECAR, sizeof SIDECAR);
    out->len = key.len + (uint32_t)strlen(SIDECAR);
    return 0;
}

static bool read_id(struct id128 *id, const char *text, size_t len)
{
    char again[ULID_TEXT_BYTES + 1];

    if (len != ULID_TEXT_BYTES || ulid_parse(id, text, len) || ulid_check_time(id))
        return false;
    ulid_format(again, id);
    return memcmp(again, text, len) == 0;
}

enum cloud_key_kind cloud_key_read(struct id128 *id, const char *prefix, const char *key,
                                   size_t len)
{
    struct cloud_key begin;
    size_t at = write_prefix(&begin, prefix), deleted = strlen(DELETED), sidecar = strlen(SIDECAR);
    bool inside = len >= at && memcmp(key, begin.text, at) == 0;
    const char *rest = key + (inside ? at : 0);
    size_t left = len - (inside ? at : 0);

    *id = (struct id128){{0}};
    if (inside && read_id(id, rest, left))
        return CLOUD_KEY_OBJECT;
    if (inside && left > deleted && memcmp(rest, DELETED, deleted) == 0 &&
        read_id(id, rest + deleted, left - deleted))
        return CLOUD_KEY_DELETED;
    if (len > sidecar && memcmp(key + len - sidecar, SIDECAR, sidecar) == 0) {
        if (!inside || left <= sidecar || !read_id(id, rest, left - sidecar))
            *id = (struct id128){{0}};
        return CLOUD_KEY_SIDECAR;
    }
    *id = (struct id128){{0}};
    return CLOUD_KEY_OTHER;
}

/* ---- To the cloud ---- */

/* Can stand in a header as it is, and be read back as it was. */
static bool is_plain(const char *text, size_t len)
{
    if (len == 0 || text[0] == ' ' || text[len - 1] == ' ' ||
        (len >= ENCODED_BYTES && memcmp(text, ENCODED, ENCODED_BYTES) == 0))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e)
            return false;
    }
    return true;
}

static bool is_tag_value(const char *text, size_t len)
{
    static const char signs[] = " +-=._:/@";

    if (len > TAG_VALUE || (len > 0 && (text[0] == ' ' || text[len - 1] == ' ')))
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            (c == 0 || !strchr(signs, c)))
            return false;
    }
    return true;
}

static bool is_name(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
            return false;
    }
    return len > 0;
}

/* LEN bytes for a text; NULL: there is no room. */
static char *take(struct cloud_meta *meta, size_t len)
{
    char *at = meta->texts + meta->used;

    if (len > sizeof meta->texts - meta->used)
        return NULL;
    meta->used += len;
    return at;
}

static struct cloud_text keep(struct cloud_meta *meta, const char *before, const char *text,
                              size_t len)
{
    size_t first = strlen(before);
    char *at = take(meta, first + len);

    if (!at)
        return (struct cloud_text){NULL, 0};
    memcpy(at, before, first);
    memcpy(at + first, text, len);
    return (struct cloud_text){at, (uint32_t)(first + len)};
}

static struct cloud_text encoded(struct cloud_meta *meta, const char *text, size_t len)
{
    if (is_plain(text, len))
        return keep(meta, "", text, len);
    char *at = take(meta, ENCODED_BYTES + 3 * len + 1);
    if (!at)
        return (struct cloud_text){NULL, 0};
    memcpy(at, ENCODED, ENCODED_BYTES);
    size_t got = percent_encode(at + ENCODED_BYTES, text, len);
    return (struct cloud_text){at, (uint32_t)(ENCODED_BYTES + got)};
}

/* Metadata NAME = TEXT, unless it does not fit. */
static bool add_pair(struct cloud_meta *meta, struct cloud_text name, const char *text, size_t len)
{
    if (meta->pair_count == LIMIT_CLOUD_PAIRS || !name.ptr)
        return false;
    struct cloud_text value = encoded(meta, text, len);
    if (!value.ptr || meta->pair_bytes + name.len + value.len > LIMIT_CLOUD_META_BYTES)
        return false;
    meta->pairs[meta->pair_count++] = (struct cloud_pair){name, value};
    meta->pair_bytes += name.len + value.len;
    return true;
}

static struct cloud_text literal(const char *text)
{
    return (struct cloud_text){text, (uint32_t)strlen(text)};
}

static void add(struct cloud_meta *meta, const char *name, const char *text)
{
    bool added = add_pair(meta, literal(name), text, strlen(text));

    assert(added); /* these are short, and the first */
    (void)added;
}

static void add_number(struct cloud_meta *meta, const char *name, uint64_t number)
{
    char text[24];

    (void)snprintf(text, sizeof text, "%" PRIu64, number);
    add(meta, name, text);
}

static void add_basics(struct cloud_meta *meta, const struct object *object)
{
    char id[ULID_TEXT_BYTES + 1], sha[2 * SHA256_BYTES + 1];
    struct text type = object_type(object);

    ulid_format(id, &object->id);
    hex_encode(sha, object->sha256, SHA256_BYTES);
    add(meta, "id", id);
    add_number(meta, "size", object->size);
    add_number(meta, "timestamp", hlc_wall_ms(object->put_at.stamp) * 1000000);
    add_number(meta, "consistency", object->level);
    add(meta, "sha256", sha);
    add_number(meta, "stamp", object->put_at.stamp);
    if (object->expires_ms)
        add_number(meta, "expires", object->expires_ms);
    meta->type = (struct cloud_text){type.ptr, type.len};
    if (is_plain(type.ptr, type.len))
        return;
    /* The cloud makes up a type where it is told none. */
    meta->type.len = 0;
    bool added = add_pair(meta, literal("type"), type.ptr, type.len);
    assert(added || type.len > LIMIT_CONTENT_TYPE_BYTES);
    (void)added;
}

static bool add_tags(struct cloud_meta *meta, json_t *user)
{
    const char *key;
    json_t *value;

    if (json_object_size(user) > LIMIT_CLOUD_TAGS)
        return false;
    json_object_foreach(user, key, value)
    {
        const char *text = json_string_value(value);
        size_t len = json_string_length(value);

        if (!is_name(key, strlen(key)) || strlen(PER_KEY) + strlen(key) > TAG_NAME ||
            !is_tag_value(text, len))
            return false;
        struct cloud_pair tag = {keep(meta, PER_KEY, key, strlen(key)), keep(meta, "", text, len)};
        if (!tag.name.ptr || !tag.value.ptr)
            return false;
        meta->tags[meta->tag_count++] = tag;
    }
    return add_pair(meta, literal("usermeta"), "tags", 4);
}

static bool add_pairs(struct cloud_meta *meta, json_t *user)
{
    const char *key;
    json_t *value;

    json_object_foreach(user, key, value)
    {
        if (!is_name(key, strlen(key)) ||
            !add_pair(meta, keep(meta, PER_KEY, key, strlen(key)), json_string_value(value),
                      json_string_length(value)))
            return false;
    }
    return true;
}

static bool add_whole(struct cloud_meta *meta, json_t *user)
{
    char *text;
    bool added = json_write(&text, user, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII) == 0 &&
                 add_pair(meta, literal("usermeta"), text, strlen(text));

    free(text);
    return added;
}

static int add_sidecar(struct cloud_meta *meta, const struct object *object, json_t *user)
{
    struct text name = object_name(object);
    json_t *root = json_object();
    int rc = ERR_NO_MEMORY;

    add(meta, "usermeta", "sidecar");
    if (root && json_object_set_new(root, "name", json_stringn(name.ptr, name.len)) == 0 &&
        json_object_set(root, "user_meta", user) == 0)
        rc = json_write(&meta->sidecar, root, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII);
    json_decref(root);
    if (rc)
        return ERR_NO_MEMORY;
    meta->sidecar_len = strlen(meta->sidecar);
    assert(meta->sidecar_len <= LIMIT_CLOUD_SIDECAR_BYTES);
    return 0;
}

/* Try each place; what did not fit is taken back. */
static bool place_user_meta(struct cloud_meta *meta, json_t *user)
{
    static bool (*const places[])(struct cloud_meta *, json_t *) = {add_tags, add_pairs, add_whole};
    size_t used = meta->used, bytes = meta->pair_bytes, pairs = meta->pair_count;

    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (places[i](meta, user))
            return true;
        meta->used = used;
        meta->pair_bytes = bytes;
        meta->pair_count = pairs;
        meta->tag_count = 0;
    }
    return false;
}

int cloud_meta_write(struct cloud_meta *out, const struct object *object)
{
    struct text name = object_name(object), user_meta = object_user_meta(object);
    json_t *user = NULL;
    int rc;

    assert(object->flags & OBJECT_PUT);
    out->used = out->pair_bytes = 0;
    out->pair_count = out->tag_count = 0;
    out->sidecar = NULL;
    out->sidecar_len = 0;
    add_basics(out, object);
    /* Room for the word that says where the rest is, in any case. */
    out->pair_bytes += strlen("usermeta") + strlen("sidecar");
    size_t used = out->used;
    bool fits = name.len == 0 || add_pair(out, literal("name"), name.ptr, name.len);
    if (!fits)
        out->used = used;
    out->pair_bytes -= strlen("usermeta") + strlen("sidecar");

    if (user_meta.len > 0) {
        rc = json_read(&user, user_meta.ptr, user_meta.len, 0);
        assert(rc == 0 || rc == ERR_NO_MEMORY); /* it is canonical */
    } else {
        user = json_object();
        rc = user ? 0 : ERR_NO_MEMORY;
    }
    if (rc)
        return rc;
    bool none = json_object_size(user) == 0;
    if (!fits || (!none && !place_user_meta(out, user)))
        rc = add_sidecar(out, object, user);
    json_decref(user);
    return rc;
}

void cloud_meta_release(struct cloud_meta *meta)
{
    free(meta->sidecar);
    meta->sidecar = NULL;
}

/* ---- And back ---- */

enum { TEXT_NAME, TEXT_TYPE, TEXT_USER_META };

/* VALUE as it was before `encoded`, in a fresh string; NULL: out of memory, or (rc 0) no text. */
static int decode(char **out, size_t *len, struct cloud_text value)
{
    bool is_encoded = value.len >= ENCODED_BYTES && memcmp(value.ptr, ENCODED, ENCODED_BYTES) == 0;
    size_t skip = is_encoded ? ENCODED_BYTES : 0;
    char *text = malloc(value.len + 1);

    *out = NULL;
    if (!text)
        return ERR_NO_MEMORY;
    *len = value.len - skip;
    if (!is_encoded && value.len)
        memcpy(text, value.ptr, value.len);
    if ((is_encoded && percent_decode(text, len, value.ptr + skip, value.len - skip)) ||
        !utf8_valid(text, *len) || memchr(text, 0, *len)) {
        free(text);
        return 0;
    }
    text[*len] = 0;
    *out = text;
    return 0;
}

/* TEXT (given away) becomes one of the facts'. */
static void own(struct cloud_facts *facts, int which, char *text, size_t len)
{
    struct text *at = which == TEXT_NAME   ? &facts->name
                      : which == TEXT_TYPE ? &facts->type
                                           : &facts->user_meta;

    free(facts->texts[which]);
    facts->texts[which] = text;
    *at = (struct text){text, (uint32_t)len};
}

static bool name_is_good(const char *name, size_t len)
{
    return len > 0 && len <= LIMIT_NAME_BYTES && utf8_valid(name, len) &&
           !text_has_control(name, len);
}

static bool is(struct cloud_text text, const char *word)
{
    return text_equal_nocase(text.ptr, text.len, word, strlen(word));
}

/* A type as clients may send it: printable, with a slash in it. */
static bool type_is_good(const char *type, size_t len)
{
    return is_plain(type, len) && len <= LIMIT_CONTENT_TYPE_BYTES && memchr(type, '/', len);
}

static int take_text(struct cloud_facts *facts, int which, struct cloud_text value)
{
    char *text;
    size_t len;

    int rc = decode(&text, &len, value);
    if (rc || !text)
        return rc;
    if (which == TEXT_NAME && name_is_good(text, len)) {
        own(facts, which, text, len);
        facts->fields |= CLOUD_FACTS_NAME;
    } else if (which == TEXT_TYPE && (len == 0 || type_is_good(text, len))) {
        own(facts, which, text, len);
    } else {
        free(text);
    }
    return 0;
}

static bool number(uint64_t *out, struct cloud_text value, uint64_t max)
{
    return parse_u64(out, value.ptr, value.len, max) == 0;
}

/* One pair that is not about user meta. */
static int take_pair(struct cloud_facts *facts, const struct cloud_pair *pair, uint64_t *time_ns)
{
    struct cloud_text value = pair->value;
    uint64_t got;

    if (is(pair->name, "name"))
        return take_text(facts, TEXT_NAME, value);
    if (is(pair->name, "type"))
        return take_text(facts, TEXT_TYPE, value);
    if (is(pair->name, "id")) {
        if (ulid_parse(&facts->id, value.ptr, value.len) == 0)
            facts->fields |= CLOUD_FACTS_ID;
    } else if (is(pair->name, "size")) {
        if (number(&facts->size, value, INT64_MAX))
            facts->fields |= CLOUD_FACTS_SIZE;
    } else if (is(pair->name, "sha256")) {
        if (hex_decode(facts->sha256, SHA256_BYTES, value.ptr, value.len) == 0)
            facts->fields |= CLOUD_FACTS_SHA256;
    } else if (is(pair->name, "consistency")) {
        if (number(&got, value, 2) && got > 1)
            facts->level = (uint8_t)got;
    } else if (is(pair->name, "timestamp")) {
        (void)number(time_ns, value, INT64_MAX);
    } else if (is(pair->name, "expires")) {
        (void)number(&facts->expires_ms, value, INT64_MAX);
    } else if (is(pair->name, "stamp")) {
        if (number(&got, value, HLC_LIMIT - 1) && hlc_wall_ms(got) > 0) {
            facts->stamp = got;
            facts->fields |= CLOUD_FACTS_STAMP;
        }
    }
    return 0;
}

/* USER, as it stands in tags or pairs, becomes the facts' user meta; where it is none that a client
 * could have given, there is none. */
static int set_user_meta(struct cloud_facts *facts, json_t *user)
{
    struct buf canonical;
    char *text;

    if (json_write(&text, user, JSON_COMPACT | JSON_ENSURE_ASCII))
        return ERR_NO_MEMORY;
    buf_init(&canonical, 0);
    int rc = json_object_size(user) > 0 ? usermeta_canonical(&canonical, text, strlen(text))
                                        : ERR_INVALID;
    free(text);
    if (rc == 0) {
        own(facts, TEXT_USER_META, canonical.data, canonical.len);
        return 0;
    }
    buf_release(&canonical);
    return rc == ERR_NO_MEMORY ? rc : 0;
}

/* The values of all names in PAIRS that begin with "usermeta-". */
static int gather(struct cloud_facts *facts, const struct cloud_pair *pairs, size_t count)
{
    json_t *user = json_object();
    size_t skip = strlen(PER_KEY);
    int rc = user ? 0 : ERR_NO_MEMORY;

    for (size_t i = 0; i < count && rc == 0; i++) {
        struct cloud_text name = pairs[i].name;
        char *text;
        size_t len;

        if (name.len <= skip || !text_equal_nocase(name.ptr, skip, PER_KEY, skip) ||
            !utf8_valid(name.ptr, name.len))
            continue;
        rc = decode(&text, &len, pairs[i].value);
        if (rc == 0 && text &&
            json_object_setn_new(user, name.ptr + skip, name.len - skip, json_stringn(text, len)))
            rc = ERR_NO_MEMORY;
        free(text);
    }
    if (rc == 0 && json_object_size(user) > 0)
        rc = set_user_meta(facts, user);
    json_decref(user);
    return rc;
}

/* The pair "usermeta" says where it is, or is it. */
static int take_user_meta(struct cloud_facts *facts, const struct cloud_pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct cloud_text value = pairs[i].value;
        json_t *user = NULL;

        if (!is(pairs[i].name, "usermeta"))
            continue;
        facts->in_tags = is(value, "tags");
        facts->in_sidecar = is(value, "sidecar");
        if (facts->in_tags || facts->in_sidecar)
            return 0;
        char *text;
        size_t len;
        int rc = decode(&text, &len, value);
        if (rc == 0 && text)
            rc = json_read(&user, text, len, JSON_REJECT_DUPLICATES);
        if (rc == 0 && user)
            rc = set_user_meta(facts, user);
        free(text);
        json_decref(user);
        return rc == ERR_INVALID ? 0 : rc;
    }
    return gather(facts, pairs, count);
}

/* A stamp for what has none. */
static hlc_time stamp_of(uint64_t time_ns, int64_t modified_s)
{
    uint64_t ms = time_ns / 1000000;

    if (ms == 0)
        ms = modified_s > 0 && modified_s < INT64_MAX / 1000 ? (uint64_t)modified_s * 1000 : 1;
    return ms < HLC_LIMIT >> 16 ? ms << 16 : UINT64_C(1) << 16;
}

int cloud_facts_read(struct cloud_facts *out, const struct cloud_head *head)
{
    uint64_t time_ns = 0;

    *out = (struct cloud_facts){.level = 1};
    int rc =
        type_is_good(head->type.ptr, head->type.len) ? take_text(out, TEXT_TYPE, head->type) : 0;
    for (size_t i = 0; i < head->pair_count && rc == 0; i++)
        rc = take_pair(out, &head->pairs[i], &time_ns);
    if (rc == 0)
        rc = take_user_meta(out, head->pairs, head->pair_count);
    if (!(out->fields & CLOUD_FACTS_STAMP))
        out->stamp = stamp_of(time_ns, head->modified_s);
    /* Tags of others are nobody's user meta, unless they are called so. */
    out->in_tags |= !out->in_sidecar && head->tag_count > 0 && out->user_meta.len == 0;
    return rc;
}

int cloud_facts_tags(struct cloud_facts *facts, const struct cloud_head *tags)
{
    return gather(facts, tags->pairs, tags->pair_count);
}

int cloud_facts_sidecar(struct cloud_facts *facts, const char *body, size_t len)
{
    json_t *root = NULL;

    if (len > LIMIT_CLOUD_SIDECAR_BYTES)
        return ERR_CORRUPT;
    int rc = json_read(&root, body, len, JSON_REJECT_DUPLICATES);
    if (rc)
        return rc == ERR_NO_MEMORY ? rc : ERR_CORRUPT;
    json_t *name = json_object_get(root, "name"), *user = json_object_get(root, "user_meta");
    rc = json_is_string(name) && json_is_object(user) ? 0 : ERR_CORRUPT;
    if (rc == 0 && name_is_good(json_string_value(name), json_string_length(name))) {
        char *text = strndup(json_string_value(name), json_string_length(name));

        if (text) {
            own(facts, TEXT_NAME, text, json_string_length(name));
            facts->fields |= CLOUD_FACTS_NAME;
        } else {
            rc = ERR_NO_MEMORY;
        }
    }
    if (rc == 0)
        rc = set_user_meta(facts, user);
    json_decref(root);
    return rc;
}

void cloud_facts_release(struct cloud_facts *facts)
{
    for (size_t i = 0; i < sizeof facts->texts / sizeof *facts->texts; i++)
        free(facts->texts[i]);
    *facts = (struct cloud_facts){0};
}
