/* Goal: whatever a row says of its bytes comes back from what the cloud was told, wherever it had
 * room; the limits of S3 are kept; the ancestor's objects and those of strangers are understood as
 * far as they make sense; and no metadata, however wrong, do harm. */
#include "cluster/cloud_meta.h"

#include "journal/ulid.h"
#include "journal/usermeta.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STAMP ((UINT64_C(1763700000123) << 16) + 7)
#define ID    "01KAHVCZ9V0123456789ABCDEF"

static struct text text_of(const char *text)
{
    return (struct text){text, (uint32_t)strlen(text)};
}

static struct id128 id_of(const char *text)
{
    struct id128 id;

    assert_int_equal(ulid_parse(&id, text, strlen(text)), 0);
    return id;
}

static struct object *row(const char *name, const char *type, const char *user_meta)
{
    struct object like = {.id = id_of(ID),
                          .flags = OBJECT_PUT,
                          .level = 2,
                          .put_at = {.stamp = STAMP},
                          .size = UINT64_C(123456789012)};

    memset(like.sha256, 0xab, sizeof like.sha256);
    return object_create(&like, text_of(name), text_of(type), text_of(user_meta));
}

/* The value of NAME among PAIRS, terminated; NULL: there is none. */
static const char *value(const struct cloud_pair *pairs, size_t count, const char *name)
{
    static char out[LIMIT_CLOUD_META_BYTES + 1];

    for (size_t i = 0; i < count; i++) {
        if (pairs[i].name.len == strlen(name) &&
            memcmp(pairs[i].name.ptr, name, pairs[i].name.len) == 0) {
            (void)snprintf(out, sizeof out, "%.*s", (int)pairs[i].value.len, pairs[i].value.ptr);
            return out;
        }
    }
    return NULL;
}

static size_t bytes_of(const struct cloud_pair *pairs, size_t count)
{
    size_t bytes = 0;

    for (size_t i = 0; i < count; i++)
        bytes += pairs[i].name.len + pairs[i].value.len;
    return bytes;
}

static void check_limits(const struct cloud_meta *meta)
{
    assert_true(meta->pair_count <= LIMIT_CLOUD_PAIRS);
    assert_true(meta->tag_count <= LIMIT_CLOUD_TAGS);
    assert_true(bytes_of(meta->pairs, meta->pair_count) <= LIMIT_CLOUD_META_BYTES);
    for (size_t i = 0; i < meta->pair_count; i++) {
        const struct cloud_text *text = &meta->pairs[i].value;

        assert_true(text->len > 0);
        for (uint32_t k = 0; k < text->len; k++)
            assert_in_range(text->ptr[k], 0x20, 0x7e);
        for (uint32_t k = 0; k < meta->pairs[i].name.len; k++)
            assert_non_null(
                strchr("abcdefghijklmnopqrstuvwxyz0123456789-", meta->pairs[i].name.ptr[k]));
    }
}

/* Read META back as the cloud would give it; NAMES in another case where CAPITALS. */
static void read_back(struct cloud_facts *facts, const struct cloud_meta *meta, bool capitals)
{
    struct cloud_pair pairs[LIMIT_CLOUD_PAIRS];
    char names[LIMIT_CLOUD_PAIRS][300];
    struct cloud_head head = {.type = meta->type,
                              .pairs = pairs,
                              .pair_count = meta->pair_count,
                              .tag_count = (unsigned)meta->tag_count,
                              .modified_s = 1};

    if (meta->type.len == 0)
        head.type = (struct cloud_text){"binary/octet-stream", 19};
    for (size_t i = 0; i < meta->pair_count; i++) {
        pairs[i] = meta->pairs[i];
        (void)snprintf(names[i], sizeof names[i], "%.*s", (int)pairs[i].name.len,
                       pairs[i].name.ptr);
        if (capitals && strncmp(names[i], "usermeta-", 9) != 0) {
            names[i][0] = (char)(names[i][0] - 'a' + 'A');
            pairs[i].name.ptr = names[i];
        }
    }
    assert_int_equal(cloud_facts_read(facts, &head), 0);
    if (facts->in_tags) {
        const struct cloud_head tags = {.pairs = meta->tags, .pair_count = meta->tag_count};

        assert_int_equal(cloud_facts_tags(facts, &tags), 0);
    }
    assert_int_equal(facts->in_sidecar, meta->sidecar != NULL);
    if (facts->in_sidecar)
        assert_int_equal(cloud_facts_sidecar(facts, meta->sidecar, meta->sidecar_len), 0);
}

static void expect_text(struct text got, struct text expected)
{
    assert_int_equal(got.len, expected.len);
    if (got.len)
        assert_memory_equal(got.ptr, expected.ptr, got.len);
}

static void expect_same(const struct cloud_facts *facts, const struct object *object)
{
    assert_int_equal(facts->fields & CLOUD_FACTS_ID, CLOUD_FACTS_ID);
    assert_memory_equal(&facts->id, &object->id, sizeof object->id);
    assert_true(facts->fields & CLOUD_FACTS_SIZE && facts->size == object->size);
    assert_true(facts->fields & CLOUD_FACTS_SHA256);
    assert_memory_equal(facts->sha256, object->sha256, SHA256_BYTES);
    assert_true(facts->fields & CLOUD_FACTS_STAMP && facts->stamp == object->put_at.stamp);
    assert_int_equal(facts->expires_ms, object->expires_ms);
    assert_int_equal(facts->level, object->level ? object->level : 1);
    expect_text(facts->name, object_name(object));
    expect_text(facts->type, object_type(object));
    expect_text(facts->user_meta, object_user_meta(object));
}

static void keys_are_made_and_known_again(void **state)
{
    static const struct {
        const char *prefix, *key;
        enum cloud_key_kind kind;
        bool has_id;
    } cases[] = {{NULL, ID, CLOUD_KEY_OBJECT, true},
                 {"", ".deleted/" ID, CLOUD_KEY_DELETED, true},
                 {"a/b", "a/b/" ID, CLOUD_KEY_OBJECT, true},
                 {"a/b/", "a/b/" ID, CLOUD_KEY_OBJECT, true},
                 {"a/b", "a/b/.deleted/" ID, CLOUD_KEY_DELETED, true},
                 {"a/b", "a/b/" ID ".usermeta", CLOUD_KEY_SIDECAR, true},
                 {"a/b", "a/bb/" ID, CLOUD_KEY_OTHER, false},
                 {"a/b", ID, CLOUD_KEY_OTHER, false},
                 {NULL, "photo.jpg", CLOUD_KEY_OTHER, false},
                 {NULL, "photo.jpg.usermeta", CLOUD_KEY_SIDECAR, false},
                 {NULL, ".usermeta", CLOUD_KEY_OTHER, false},
                 {NULL, ".deleted/photo", CLOUD_KEY_OTHER, false},
                 {NULL, "01kahvcz9v0123456789abcdef", CLOUD_KEY_OTHER, false},
                 {NULL, "00000000000000000000000000", CLOUD_KEY_OTHER, false},
                 {NULL, ID "X", CLOUD_KEY_OTHER, false},
                 {"a/b", "a/b/", CLOUD_KEY_OTHER, false}};
    const struct id128 id = id_of(ID), zero = {{0}};
    struct cloud_key key, sidecar;
    char long_key[LIMIT_CLOUD_KEY_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct id128 got;

        assert_int_equal(cloud_key_read(&got, cases[i].prefix, cases[i].key, strlen(cases[i].key)),
                         cases[i].kind);
        assert_memory_equal(&got, cases[i].has_id ? &id : &zero, sizeof got);
    }
    cloud_key_object(&key, "team", &id);
    assert_string_equal(key.text, "team/" ID);
    assert_int_equal(key.len, strlen(key.text));
    assert_int_equal(cloud_key_sidecar(&sidecar, (struct text){key.text, key.len}), 0);
    assert_string_equal(sidecar.text, "team/" ID ".usermeta");
    cloud_key_deleted(&key, "team/", &id);
    assert_string_equal(key.text, "team/.deleted/" ID);
    memset(long_key, 'k', sizeof long_key);
    assert_int_equal(cloud_key_sidecar(&sidecar, (struct text){long_key, sizeof long_key}),
                     ERR_TOO_BIG);
    assert_int_equal(cloud_key_sidecar(&sidecar, (struct text){long_key, sizeof long_key - 9}), 0);
}

static void metadata_are_the_ancestors_and_ours(void **state)
{
    struct object *object = row("holiday photo.jpg", "image/jpeg", "");
    struct cloud_meta meta;

    (void)state;
    assert_int_equal(cloud_meta_write(&meta, object), 0);
    check_limits(&meta);
    assert_int_equal(meta.pair_count, 7);
    assert_string_equal(value(meta.pairs, 7, "id"), ID);
    assert_string_equal(value(meta.pairs, 7, "name"), "holiday photo.jpg");
    assert_string_equal(value(meta.pairs, 7, "size"), "123456789012");
    assert_string_equal(value(meta.pairs, 7, "timestamp"), "1763700000123000000");
    assert_string_equal(value(meta.pairs, 7, "consistency"), "2");
    assert_string_equal(value(meta.pairs, 7, "stamp"), "115585843208060935");
    assert_int_equal(strspn(value(meta.pairs, 7, "sha256"), "ab"), 64);
    assert_int_equal(meta.type.len, 10);
    assert_int_equal(meta.tag_count, 0);
    assert_null(meta.sidecar);
    cloud_meta_release(&meta);
    object_destroy(&object);
}

static void every_text_comes_back(void **state)
{
    static const char *const names[] = {"",          "a",        " a ",      "caf\xc3\xa9.txt",
                                        "100%.txt",  "UTF-8''a", "a=b;c\"d", "\xf0\x9f\x98\x80",
                                        "50%25 off", "-",        "~",        "a\\b"};
    static const char *const types[] = {"", "text/plain", "a/b; c=\"d e\""};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
            struct object *object = row(names[i], types[k], "");
            struct cloud_meta meta;
            struct cloud_facts facts;

            object->level = (uint8_t)(k % 3);
            object->expires_ms = i % 2 ? 1800000000000 + i : 0;
            assert_int_equal(cloud_meta_write(&meta, object), 0);
            check_limits(&meta);
            read_back(&facts, &meta, i % 2);
            expect_same(&facts, object);
            cloud_facts_release(&facts);
            cloud_meta_release(&meta);
            object_destroy(&object);
        }
    }
}

/* Where the user meta TEXT goes. */
static char place_of(const char *name, const char *text)
{
    struct object *object = row(name, "text/plain", text);
    struct cloud_meta meta;
    struct cloud_facts facts;
    char place = '?';

    assert_int_equal(cloud_meta_write(&meta, object), 0);
    check_limits(&meta);
    const char *where = value(meta.pairs, meta.pair_count, "usermeta");
    if (meta.tag_count && where && strcmp(where, "tags") == 0)
        place = 't';
    else if (meta.sidecar && where && strcmp(where, "sidecar") == 0)
        place = 's';
    else if (where && *where == '{')
        place = 'w';
    else if (!where)
        place = 'm';
    assert_int_equal(meta.tag_count > 0, place == 't');
    assert_int_equal(meta.sidecar != NULL, place == 's');
    read_back(&facts, &meta, false);
    expect_same(&facts, object);
    cloud_facts_release(&facts);
    cloud_meta_release(&meta);
    object_destroy(&object);
    return place;
}

static char *with_value(const char *key, size_t len)
{
    char *text = calloc(1, len + 64);

    assert_non_null(text);
    (void)sprintf(text, "{\"%s\":\"", key);
    memset(text + strlen(text), 'v', len);
    memcpy(text + strlen(text), "\"}", 3);
    return text;
}

static void user_meta_goes_where_it_fits(void **state)
{
    static const struct {
        const char *text;
        char place;
    } cases[] = {
        {"{\"color\":\"dark blue\"}", 't'},
        {"{\"a\":\"\",\"b\":\"x+y=z._:/@\"}", 't'},
        {"{\"a\":\"50%\"}", 'm'},
        {"{\"a\":\" x\"}", 'm'},
        {"{\"a\":\"\\u00E9\"}", 'm'},
        {"{\"Color\":\"red\"}", 'w'},
        {"{\"\":\"red\"}", 'w'},
        {"{\"a b\":\"\\u00E9\",\"\\u00E9\":\"\"}", 'w'},
        {"{\"a\":\"1\",\"b\":\"2\",\"c\":\"3\",\"d\":\"4\",\"e\":\"5\",\"f\":\"6\",\"g\":\"7\","
         "\"h\":\"8\",\"i\":\"9\",\"j\":\"10\"}",
         't'},
        {"{\"a\":\"1\",\"b\":\"2\",\"c\":\"3\",\"d\":\"4\",\"e\":\"5\",\"f\":\"6\",\"g\":\"7\","
         "\"h\":\"8\",\"i\":\"9\",\"j\":\"10\",\"k\":\"11\"}",
         'm'}};
    char *text;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char place = place_of("n", cases[i].text);

        if (place != cases[i].place)
            print_error("%s went to %c\n", cases[i].text, place);
        assert_int_equal(place, cases[i].place);
    }
    text = with_value("a", 256);
    assert_int_equal(place_of("n", text), 't');
    free(text);
    text = with_value("a", 257);
    assert_int_equal(place_of("n", text), 'm');
    free(text);
    text = with_value("a", 3000);
    assert_int_equal(place_of("n", text), 's');
    free(text);
}

/* Every length around the limit: it is used up to the last byte, and never passed. */
static void the_sidecar_begins_where_metadata_end(void **state)
{
    size_t most = 0;
    char last = 'm';

    (void)state;
    for (size_t len = 1500; len < 2100; len++) {
        char *text = with_value("a", len), place = place_of("n", text);
        struct object *object = row("n", "text/plain", text);
        struct cloud_meta meta;

        assert_true(place == 'm' || place == 's');
        assert_false(last == 's' && place == 'm');
        last = place;
        assert_int_equal(cloud_meta_write(&meta, object), 0);
        if (place == 'm')
            most = bytes_of(meta.pairs, meta.pair_count);
        cloud_meta_release(&meta);
        object_destroy(&object);
        free(text);
    }
    assert_int_equal(last, 's');
    assert_int_equal(most, LIMIT_CLOUD_META_BYTES);
}

static void a_name_too_long_for_metadata_goes_along(void **state)
{
    char name[LIMIT_NAME_BYTES + 1] = "";

    (void)state;
    for (size_t len = 0; len < LIMIT_NAME_BYTES; len += 2)
        memcpy(name + len, "\xc3\xa9", 3);
    assert_int_equal(strlen(name), LIMIT_NAME_BYTES);
    assert_int_equal(place_of(name, ""), 's');
    assert_int_equal(place_of(name, "{\"a\":\"b\"}"), 's');
    memset(name, 'n', LIMIT_NAME_BYTES);
    assert_int_equal(place_of(name, ""), 'm');
    assert_int_equal(place_of(name, "{\"a\":\"b\"}"), 't');
}

static void random_user_meta_come_back(void **state)
{
    (void)state;
    srand(4);
    for (int round = 0; round < 3000; round++) {
        static const char *const pieces[] = {
            "a",  "Z",       "0",   "-",    "_", " ",      "%", "\\\"", "\\u00E9", "\\uD83D\\uDE00",
            "''", "UTF-8''", "\\n", "\\\\", "=", "\\u007F"};
        struct buf text, canonical;
        int keys = rand() % (round % 10 ? 5 : 40);

        buf_init(&text, 0);
        buf_init(&canonical, 0);
        buf_char(&text, '{');
        for (int i = 0; i < keys; i++) {
            buf_format(&text, "%s\"k%d", i ? "," : "", i);
            for (int k = rand() % 3; k > 0; k--)
                buf_text(&text, pieces[rand() % (round % 3 ? 4 : 16)]);
            buf_text(&text, "\":\"");
            for (int k = rand() % (round % 7 ? 8 : 60); k > 0; k--)
                buf_text(&text, pieces[rand() % (round % 2 ? 6 : 16)]);
            buf_char(&text, '"');
        }
        buf_char(&text, '}');
        if (usermeta_canonical(&canonical, text.data, text.len) == 0) {
            buf_char(&canonical, 0);
            (void)place_of("name", keys ? canonical.data : "");
        }
        buf_release(&text);
        buf_release(&canonical);
    }
}

static struct cloud_pair pair_of(const char *name, const char *text)
{
    return (struct cloud_pair){{name, (uint32_t)strlen(name)}, {text, (uint32_t)strlen(text)}};
}

static void the_ancestors_objects_are_understood(void **state)
{
    const struct cloud_pair pairs[] = {
        pair_of("Id", ID),           pair_of("Name", "caf\xc3\xa9 100%.txt"),
        pair_of("Size", "12"),       pair_of("Timestamp", "1500000000123456789"),
        pair_of("Consistency", "0"), pair_of("Usermeta-Color", "red"),
        pair_of("usermeta-x", "1")};
    const struct cloud_head head = {.size = 12, .pairs = pairs, .pair_count = 7, .modified_s = 99};
    struct cloud_facts facts;

    (void)state;
    assert_int_equal(cloud_facts_read(&facts, &head), 0);
    assert_int_equal(facts.fields, CLOUD_FACTS_ID | CLOUD_FACTS_SIZE | CLOUD_FACTS_NAME);
    assert_int_equal(facts.stamp, UINT64_C(1500000000123) << 16);
    assert_int_equal(facts.level, 1);
    expect_text(facts.name, text_of("caf\xc3\xa9 100%.txt"));
    expect_text(facts.user_meta, text_of("{\"Color\":\"red\",\"x\":\"1\"}"));
    assert_false(facts.in_tags);
    cloud_facts_release(&facts);
}

static void strangers_objects_have_their_time_and_tags(void **state)
{
    const struct cloud_pair tags[] = {pair_of("project", "x"), pair_of("usermeta-a", "b")};
    const struct cloud_head head = {
        .size = 1, .type = {"image/png", 9}, .modified_s = 1600000000, .tag_count = 2};
    const struct cloud_head tagged = {.pairs = tags, .pair_count = 2};
    struct cloud_facts facts;

    (void)state;
    assert_int_equal(cloud_facts_read(&facts, &head), 0);
    assert_int_equal(facts.fields, 0);
    assert_int_equal(facts.stamp, UINT64_C(1600000000000) << 16);
    expect_text(facts.type, text_of("image/png"));
    assert_true(facts.in_tags);
    assert_int_equal(cloud_facts_tags(&facts, &tagged), 0);
    expect_text(facts.user_meta, text_of("{\"a\":\"b\"}"));
    cloud_facts_release(&facts);
    const struct cloud_head bare = {.size = 1};
    assert_int_equal(cloud_facts_read(&facts, &bare), 0);
    assert_true(facts.stamp > 0);
    cloud_facts_release(&facts);
    /* Times that no calendar has: in milliseconds they would be something else. */
    static const int64_t far[] = {INT64_C(1) << 61, INT64_MAX, INT64_MIN, INT64_C(1) << 48};
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
        const struct cloud_head odd = {.size = 1, .modified_s = far[i]};

        assert_int_equal(cloud_facts_read(&facts, &odd), 0);
        assert_int_equal(facts.stamp, UINT64_C(1) << 16);
        cloud_facts_release(&facts);
    }
}

static void what_makes_no_sense_is_passed_over(void **state)
{
    static const struct {
        const char *name, *value;
    } cases[] = {{"id", "01"},
                 {"size", "-1"},
                 {"size", "99999999999999999999"},
                 {"sha256", "abc"},
                 {"stamp", "0"},
                 {"stamp", "18446744073709551615"},
                 {"stamp", "x"},
                 {"consistency", "3"},
                 {"consistency", "-1"},
                 {"timestamp", "99999999999999999999"},
                 {"expires", "never"},
                 {"name", "\xff"},
                 {"name", "a\nb"},
                 {"name", "UTF-8''%"},
                 {"name", "UTF-8''%00"},
                 {"name", "UTF-8''%FF"},
                 {"name", "UTF-8''"},
                 {"name", ""},
                 {"type", "none"},
                 {"usermeta", "{"},
                 {"usermeta", "{\"a\":1}"},
                 {"usermeta", "[]"},
                 {"usermeta", ""},
                 {"usermeta-a", "\xff"},
                 {"usermeta-", "x"}};
    struct cloud_facts facts;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct cloud_pair pairs[] = {pair_of(cases[i].name, cases[i].value)};
        const struct cloud_head head = {.pairs = pairs, .pair_count = 1, .modified_s = 5};

        assert_int_equal(cloud_facts_read(&facts, &head), 0);
        assert_int_equal(facts.fields, 0);
        assert_int_equal(facts.stamp, UINT64_C(5000) << 16);
        assert_int_equal(facts.level, 1);
        assert_int_equal(facts.expires_ms, 0);
        assert_int_equal(facts.name.len + facts.type.len + facts.user_meta.len, 0);
        cloud_facts_release(&facts);
    }
}

static void a_sidecar_that_is_none_changes_nothing(void **state)
{
    static const char *const bodies[] = {"",
                                         "{",
                                         "[]",
                                         "{}",
                                         "{\"name\":\"x\"}",
                                         "{\"name\":1,\"user_meta\":{}}",
                                         "{\"name\":\"x\",\"user_meta\":[]}"};
    const struct cloud_pair pairs[] = {pair_of("usermeta", "sidecar"), pair_of("name", "kept")};
    const struct cloud_head head = {.pairs = pairs, .pair_count = 2};
    struct cloud_facts facts;

    (void)state;
    assert_int_equal(cloud_facts_read(&facts, &head), 0);
    assert_true(facts.in_sidecar);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        assert_int_equal(cloud_facts_sidecar(&facts, bodies[i], strlen(bodies[i])), ERR_CORRUPT);
    expect_text(facts.name, text_of("kept"));
    assert_int_equal(facts.user_meta.len, 0);
    static const char good[] = "{\"name\":\"\",\"user_meta\":{\"B\":\"2\",\"a\":\"1\"}}";
    assert_int_equal(cloud_facts_sidecar(&facts, good, strlen(good)), 0);
    expect_text(facts.name, text_of("kept"));
    expect_text(facts.user_meta, text_of("{\"B\":\"2\",\"a\":\"1\"}"));
    cloud_facts_release(&facts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_made_and_known_again),
        cmocka_unit_test(metadata_are_the_ancestors_and_ours),
        cmocka_unit_test(every_text_comes_back),
        cmocka_unit_test(user_meta_goes_where_it_fits),
        cmocka_unit_test(the_sidecar_begins_where_metadata_end),
        cmocka_unit_test(a_name_too_long_for_metadata_goes_along),
        cmocka_unit_test(random_user_meta_come_back),
        cmocka_unit_test(the_ancestors_objects_are_understood),
        cmocka_unit_test(strangers_objects_have_their_time_and_tags),
        cmocka_unit_test(what_makes_no_sense_is_passed_over),
        cmocka_unit_test(a_sidecar_that_is_none_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
