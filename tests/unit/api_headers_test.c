/* Goal: every header a client can send is read as it is meant or refused with its own code, and
 * what describes an object in an answer is right to the byte. */
#include "api/document.h"
#include "api/headers.h"
#include "journal/ulid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ID       "01BRNMMS1DK3CBD4ZZM2TQ8C5B"
#define SHA_ABC  "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
#define MD5_ABC  "kAFQmDzST7DWlj99KOF/cg=="
#define MD5_NONE "1B2M2Y8AsgTpgAmY7PhCfg=="

struct sent {
    const char *name, *value;
};

/* A list of headers that ends in a NULL name. */
static struct slice get(const void *arg, const char *name, unsigned *count)
{
    const struct sent *sent = arg;
    struct slice found = {NULL, 0};

    *count = 0;
    for (; sent->name; sent++) {
        if (strcasecmp(sent->name, name) != 0)
            continue;
        if ((*count)++ == 0)
            found = (struct slice){sent->value, strlen(sent->value)};
    }
    return found;
}

/* The code of the refusal, or "" where it is accepted. */
static const char *parse(struct meta_headers *out, const struct sent *sent, enum headers_for what)
{
    const struct header_source source = {get, sent};
    const struct refusal *refusal = headers_parse(out, &source, what);

    return refusal ? refusal->code : "";
}

static void expect_code(const char *name, const char *value, const char *code)
{
    const struct sent sent[] = {{name, value}, {NULL, NULL}};
    struct meta_headers out;
    const char *got = parse(&out, sent, HEADERS_FOR_PUT);

    if (strcmp(got, code) != 0)
        fail_msg("%s: %s gives \"%s\", not \"%s\"", name, value, got, code);
    headers_release(&out);
}

static void no_header_at_all_is_a_plain_put(void **state)
{
    const struct sent none[] = {{NULL, NULL}};
    struct meta_headers out;

    (void)state;
    assert_string_equal(parse(&out, none, HEADERS_FOR_PUT), "");
    assert_false(out.has_id);
    assert_int_equal(out.fields, 0);
    assert_int_equal(out.ack, ACK_DEFAULT);
    headers_release(&out);
}

static void ids_are_ulids_of_this_century(void **state)
{
    const struct sent twice[] = {{"X-Meta-ID", ID}, {"X-Meta-Id", ID}, {NULL, NULL}};
    struct meta_headers out;

    (void)state;
    expect_code("X-Meta-ID", ID, "");
    expect_code("X-Meta-ID", "01brnmms1dk3cbd4zzm2tq8c5b", "");
    expect_code("X-Meta-ID", "", "invalid_id");
    expect_code("X-Meta-ID", "01BRNMMS1DK3CBD4ZZM2TQ8C5", "invalid_id");
    expect_code("X-Meta-ID", ID "0", "invalid_id");
    expect_code("X-Meta-ID", "01BRNMMS1DK3CBD4ZZM2TQ8C5U", "invalid_id");
    expect_code("X-Meta-ID", "81BRNMMS1DK3CBD4ZZM2TQ8C5B", "invalid_id");
    expect_code("X-Meta-ID", "00000000000000000000000000", "id_time_out_of_range");
    expect_code("X-Meta-ID", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "id_time_out_of_range");
    assert_string_equal(parse(&out, twice, HEADERS_FOR_PUT), "invalid_id");
    headers_release(&out);
}

static void levels_are_numbers_or_names(void **state)
{
    const struct {
        const char *text;
        int level;
    } good[] = {{"0", 0}, {"1", 1}, {"2", 2}, {"local", 0}, {"S3", 1}, {"Full", 2}};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const struct sent sent[] = {{"x-meta-consistencylevel", good[i].text}, {NULL, NULL}};
        struct meta_headers out;

        assert_string_equal(parse(&out, sent, HEADERS_FOR_PUT), "");
        assert_int_equal(out.fields, EVENT_HAS_LEVEL);
        assert_int_equal(out.level, good[i].level);
        headers_release(&out);
    }
    expect_code("X-Meta-ConsistencyLevel", "3", "invalid_level");
    expect_code("X-Meta-ConsistencyLevel", "-1", "invalid_level");
    expect_code("X-Meta-ConsistencyLevel", "01", "invalid_level");
    expect_code("X-Meta-ConsistencyLevel", "", "invalid_level");
    expect_code("X-Meta-ConsistencyLevel", "fully", "invalid_level");
}

static void names_are_utf8_raw_or_encoded(void **state)
{
    const struct sent both[] = {{"X-Meta-Name", "plain.txt"},
                                {"X-Meta-Name*", "utf-8'de'%C3%BCber%20uns.txt"},
                                {NULL, NULL}};
    char longest[LIMIT_NAME_BYTES + 2];
    struct meta_headers out;

    (void)state;
    assert_string_equal(parse(&out, both, HEADERS_FOR_PUT), "");
    assert_int_equal(out.name.len, strlen("\xc3\xbc"
                                          "ber uns.txt"));
    assert_memory_equal(out.name.ptr,
                        "\xc3\xbc"
                        "ber uns.txt",
                        out.name.len);
    headers_release(&out);

    memset(longest, 'n', sizeof longest);
    longest[LIMIT_NAME_BYTES] = 0;
    expect_code("X-Meta-Name", longest, "");
    expect_code("X-Meta-Name", "", "");
    longest[LIMIT_NAME_BYTES] = 'n';
    longest[LIMIT_NAME_BYTES + 1] = 0;
    expect_code("X-Meta-Name", longest, "invalid_name");
    expect_code("X-Meta-Name", "a\tb", "invalid_name");
    expect_code("X-Meta-Name", "a\x7f", "invalid_name");
    expect_code("X-Meta-Name", "\xff", "invalid_name");
    expect_code("X-Meta-Name", "\xc0\xaf", "invalid_name");
    expect_code("X-Meta-Name*", "plain.txt", "invalid_name");
    expect_code("X-Meta-Name*", "UTF-8'", "invalid_name");
    expect_code("X-Meta-Name*", "ISO-8859-1''a", "invalid_name");
    expect_code("X-Meta-Name*", "UTF-8''a%0Ab", "invalid_name");
    expect_code("X-Meta-Name*", "UTF-8''a%00b", "invalid_name");
    expect_code("X-Meta-Name*", "UTF-8''a%f", "invalid_name");
    expect_code("X-Meta-Name*", "UTF-8''%FF", "invalid_name");
}

static void user_meta_is_a_map_of_strings(void **state)
{
    const struct sent sent[] = {{"X-Meta-UserMeta", "{ \"b\":\"2\", \"a\" : \"\xc3\xa4\" }"},
                                {NULL, NULL}};
    const struct sent none[] = {{"X-Meta-UserMeta", " { } "}, {NULL, NULL}};
    struct meta_headers out;

    (void)state;
    assert_string_equal(parse(&out, sent, HEADERS_FOR_PUT), "");
    assert_int_equal(out.fields, EVENT_HAS_USER_META);
    assert_int_equal(out.user_meta.len, strlen("{\"a\":\"\\u00E4\",\"b\":\"2\"}"));
    assert_memory_equal(out.user_meta.ptr, "{\"a\":\"\\u00E4\",\"b\":\"2\"}", out.user_meta.len);
    headers_release(&out);
    assert_string_equal(parse(&out, none, HEADERS_FOR_META), "");
    assert_int_equal(out.fields, EVENT_HAS_USER_META);
    assert_int_equal(out.user_meta.len, 0);
    headers_release(&out);
    expect_code("X-Meta-UserMeta", "", "invalid_user_meta");
    expect_code("X-Meta-UserMeta", "[]", "invalid_user_meta");
    expect_code("X-Meta-UserMeta", "{\"a\":1}", "invalid_user_meta");
    expect_code("X-Meta-UserMeta", "{\"a\":{}}", "invalid_user_meta");
    expect_code("X-Meta-UserMeta", "{\"a\":\"b\"", "invalid_user_meta");
    expect_code("X-Meta-UserMeta", "{\"a\":\"1\",\"a\":\"2\"}", "invalid_user_meta");

    char *big = malloc(LIMIT_USER_META_BYTES + 64);
    size_t len = (size_t)snprintf(big, 16, "{\"a\":\"");
    memset(big + len, 'x', LIMIT_USER_META_BYTES);
    memcpy(big + len + LIMIT_USER_META_BYTES, "\"}", 3);
    expect_code("X-Meta-UserMeta", big, "invalid_user_meta");
    free(big);
}

static void types_are_kept_where_they_will_be_used(void **state)
{
    const struct {
        const char *name, *type;
        bool kept;
    } cases[] = {
        {"a", "image/png", true},
        {"a.txt", "image/png", false},
        {"", "text/html; charset=utf-8", true},
        {"a", "application/x-www-form-urlencoded", false},
        {"a", "Multipart/Form-Data; boundary=x", false},
        {"a", "", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct sent sent[] = {
            {"Content-Type", cases[i].type}, {"X-Meta-Name", cases[i].name}, {NULL, NULL}};
        struct meta_headers out;

        assert_string_equal(parse(&out, sent, HEADERS_FOR_PUT), "");
        assert_int_equal(!!(out.fields & EVENT_HAS_TYPE), cases[i].kept);
        if (cases[i].kept)
            assert_memory_equal(out.type.ptr, cases[i].type, strlen(cases[i].type));
        headers_release(&out);
    }
    expect_code("Content-Type", "text", "invalid_content_type");
    expect_code("Content-Type", "text/", "invalid_content_type");
    expect_code("Content-Type", "/plain", "invalid_content_type");
    expect_code("Content-Type", "text/pl\xc3\xa4in", "invalid_content_type");
    expect_code("Content-Type", "text/plain x\x7f", "invalid_content_type");
}

static void digests_are_read_from_three_headers(void **state)
{
    const struct sent agree[] = {{"Digest", "sha-512=xyz, SHA-256=" SHA_ABC ",md5=" MD5_ABC},
                                 {"Content-MD5", MD5_ABC},
                                 {"X-Amz-Checksum-Sha256", SHA_ABC},
                                 {NULL, NULL}};
    const struct sent contradict[] = {
        {"Digest", "md5=" MD5_ABC}, {"Content-MD5", MD5_NONE}, {NULL, NULL}};
    uint8_t want[SHA256_BYTES];
    struct meta_headers out;

    (void)state;
    sha256("abc", 3, want);
    assert_string_equal(parse(&out, agree, HEADERS_FOR_PUT), "");
    assert_true(out.expect.has_sha256 && out.expect.has_md5);
    assert_memory_equal(out.expect.sha256, want, sizeof want);
    assert_int_equal(out.expect.md5[0], 0x90);
    headers_release(&out);
    assert_string_equal(parse(&out, contradict, HEADERS_FOR_PUT), "invalid_digest");
    headers_release(&out);
    expect_code("Digest", "SHA-256", "invalid_digest");
    expect_code("Digest", "SHA-256=abc", "invalid_digest");
    expect_code("Digest", "unknown=abc", "");
    expect_code("Content-MD5", "", "invalid_digest");
    expect_code("Content-MD5", SHA_ABC, "invalid_digest");
    expect_code("X-Amz-Checksum-Sha256", MD5_ABC, "invalid_digest");
}

static void acks_need_the_level_they_count_on(void **state)
{
    static const struct {
        const char *ack, *level, *code;
    } cases[] = {
        {"local", "0", ""},
        {"quorum", "2", ""},
        {"one", "1", "ack_needs_level_2"},
        {"all", "0", "ack_needs_level_2"},
        {"cloud", "1", ""},
        {"cloud", "0", "ack_needs_level_1"},
        {"some", "2", "invalid_ack"},
        {"", "2", "invalid_ack"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct sent sent[] = {{"X-Meta-Ack", cases[i].ack},
                                    {"X-Meta-ConsistencyLevel", cases[i].level},
                                    {NULL, NULL}};
        struct meta_headers out;

        assert_string_equal(parse(&out, sent, HEADERS_FOR_PUT), cases[i].code);
        headers_release(&out);
    }
}

static void timeouts_are_decimal_seconds(void **state)
{
    static const struct {
        const char *text;
        uint32_t ms;
    } good[] = {{"0", 0}, {"2.5", 2500}, {"0.0019", 1}, {"3600", 3600000}};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const struct sent sent[] = {{"X-Meta-Timeout", good[i].text}, {NULL, NULL}};
        struct meta_headers out;

        assert_string_equal(parse(&out, sent, HEADERS_FOR_PUT), "");
        assert_int_equal(out.timeout_ms, good[i].ms);
        headers_release(&out);
    }
    const struct sent none[] = {{NULL, NULL}};
    struct meta_headers out;
    assert_string_equal(parse(&out, none, HEADERS_FOR_PUT), "");
    assert_int_equal(out.timeout_ms, 10000);
    headers_release(&out);
    static const char *const bad[] = {"nan",  "inf",      "1e9",  "3601", "18446744073709551616",
                                      "0x10", "3600.001", "1,5",  "+1",   "1 ",
                                      ".",    "--1",      "1.2.3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_code("X-Meta-Timeout", bad[i], "invalid_timeout");
    expect_code("X-Meta-Timeout", "", "invalid_timeout");
    expect_code("X-Meta-Timeout", "-1", "invalid_timeout");
    expect_code("X-Meta-Timeout", "1.", "invalid_timeout");
    expect_code("X-Meta-Timeout", ".5", "invalid_timeout");
    expect_code("X-Meta-Timeout", "1e3", "invalid_timeout");
    expect_code("X-Meta-Timeout", "3600.5", "invalid_timeout");
    expect_code("X-Meta-Timeout", "1.5s", "invalid_timeout");
}

static void a_purge_is_a_boolean(void **state)
{
    static const struct {
        const char *text, *code;
        bool purge;
    } cases[] = {
        {"1", "", true}, {"true", "", true}, {"0", "", false}, {"yes", "invalid_purge", 0}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct sent sent[] = {{"X-Meta-Purge", cases[i].text}, {NULL, NULL}};
        struct meta_headers out;

        assert_string_equal(parse(&out, sent, HEADERS_FOR_DELETE), cases[i].code);
        assert_int_equal(out.purge, cases[i].purge);
        headers_release(&out);
    }
}

/* ---- Answers ---- */

static struct object *make_object(const char *name, const char *type, const char *user_meta)
{
    struct object like = {.flags = OBJECT_PUT, .level = 0, .size = 3};

    assert_int_equal(ulid_parse(&like.id, ID, 26), 0);
    sha256("abc", 3, like.sha256);
    like.put_at.stamp = UINT64_C(1503965495123) << 16;
    like.place.volume = 1;
    return object_create(&like, (struct text){name, (uint32_t)strlen(name)},
                         (struct text){type, (uint32_t)strlen(type)},
                         (struct text){user_meta, (uint32_t)strlen(user_meta)});
}

#define HEX_ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define TAG_ABC "\"" HEX_ABC "\""

static void no_condition_costs_no_memory(void **state)
{
    const struct sent sent[] = {{"If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"},
                                {"If-Range", "\"x\""},
                                {NULL, NULL}};
    struct meta_headers out;

    (void)state;
    for (int what = HEADERS_FOR_PUT; what <= HEADERS_FOR_DELETE; what++) {
        assert_string_equal(parse(&out, sent, (enum headers_for)what), "");
        assert_null(out.condition);
        headers_release(&out);
    }
}

static void conditions_are_stars_or_lists_of_tags(void **state)
{
    static const struct {
        const char *list;
        int match, none_match; /* tags kept; -1: any, -2: refused */
    } cases[] = {
        {"*", -1, -1},
        {TAG_ABC, 1, 1},
        {"\"x\"", 0, 0},
        {"\"\"", 0, 0},
        {"\"x\" ,\t" TAG_ABC ", ", 1, 1},
        {"W/" TAG_ABC, 0, 1},
        {"\"BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD\"", 0, 0},
        {"\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a\"", 0, 0},
        {"", -2, -2},
        {" , ", -2, -2},
        {"**", -2, -2},
        {"*, \"x\"", -2, -2},
        {"\"x\", *", -2, -2},
        {HEX_ABC, -2, -2},
        {"\"" HEX_ABC, -2, -2},
        {"w/" TAG_ABC, -2, -2},
        {"W/", -2, -2},
        {"\"x\"y", -2, -2},
    };

    (void)state;
    for (size_t i = 0; i < 2 * (sizeof cases / sizeof *cases); i++) {
        bool none = i & 1;
        const struct sent sent[] = {{none ? "If-None-Match" : "If-Match", cases[i / 2].list},
                                    {NULL, NULL}};
        int expected = none ? cases[i / 2].none_match : cases[i / 2].match;
        struct meta_headers out;

        assert_string_equal(parse(&out, sent, (enum headers_for)(i % 3)),
                            expected == -2 ? "invalid_precondition" : "");
        if (expected != -2) {
            const struct condition *condition = out.condition;
            const struct condition_tags *tags = none ? &condition->none_match : &condition->match;

            assert_true(tags->sent);
            assert_false(none ? condition->match.sent : condition->none_match.sent);
            assert_int_equal(tags->any, expected == -1);
            assert_int_equal(tags->count, expected == -1 ? 0 : expected);
            if (tags->count)
                assert_int_equal(tags->sha256[0][31], 0xad);
        }
        headers_release(&out);
    }
}

static void a_list_of_tags_has_an_end(void **state)
{
    char list[LIMIT_CONDITION_TAGS * (sizeof TAG_ABC + 2)] = "";
    struct meta_headers out;

    (void)state;
    for (unsigned i = 0; i < LIMIT_CONDITION_TAGS; i++)
        (void)snprintf(list + strlen(list), sizeof list - strlen(list), "%s" TAG_ABC,
                       i ? ", " : "");
    const struct sent sent[] = {{"If-Match", list}, {NULL, NULL}};
    assert_string_equal(parse(&out, sent, HEADERS_FOR_PUT), "");
    assert_int_equal(out.condition->match.count, LIMIT_CONDITION_TAGS);
    headers_release(&out);
    /* also one that can name nothing here */
    (void)snprintf(list + strlen(list), sizeof list - strlen(list), ", \"\"");
    assert_string_equal(parse(&out, sent, HEADERS_FOR_PUT), "invalid_precondition");
    headers_release(&out);
}

static void conditions_are_sent_once_and_dates_need_not_be_any(void **state)
{
    static const char *const names[] = {"If-Match", "If-None-Match", "If-Unmodified-Since"};
    const struct sent date[] = {{"If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"},
                                {NULL, NULL}};
    const struct sent none[] = {{"If-Unmodified-Since", "yesterday"}, {NULL, NULL}};
    struct meta_headers out;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct sent twice[] = {{names[i], "*"}, {names[i], "*"}, {NULL, NULL}};

        assert_string_equal(parse(&out, twice, HEADERS_FOR_META), "invalid_precondition");
        headers_release(&out);
    }
    assert_string_equal(parse(&out, date, HEADERS_FOR_DELETE), "");
    assert_true(out.condition->has_unmodified_since);
    assert_int_equal(out.condition->unmodified_since_s, 784111777);
    headers_release(&out);
    assert_string_equal(parse(&out, none, HEADERS_FOR_DELETE), "");
    assert_false(out.condition->has_unmodified_since);
    headers_release(&out);
}

static void a_get_describes_its_object(void **state)
{
    struct object *object = make_object("t\xc3\xa4st.txt", "image/png", "{\"a\":\"b\"}");
    struct buf out = {0};

    (void)state;
    headers_render(&out, object);
    buf_char(&out, 0);
    assert_int_equal(buf_check(&out), 0);
    assert_string_equal(
        out.data, "Content-Type: text/plain; charset=utf-8\r\n"
                  "Accept-Ranges: bytes\r\n"
                  "ETag: \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\r\n"
                  "Last-Modified: Tue, 29 Aug 2017 00:11:35 GMT\r\n"
                  "X-Meta-Id: " ID "\r\n"
                  "X-Meta-Name: t\xc3\xa4st.txt\r\n"
                  "X-Meta-Name*: UTF-8''t%C3%A4st.txt\r\n"
                  "X-Meta-UserMeta: {\"a\":\"b\"}\r\n"
                  "X-Meta-ConsistencyLevel: 0\r\n"
                  "X-Content-Type-Options: nosniff\r\n"
                  "Content-Security-Policy: sandbox\r\n");
    buf_release(&out);
    object_destroy(&object);
}

static void the_type_is_the_names_then_the_senders(void **state)
{
    const struct {
        const char *name, *sent, *type;
    } cases[] = {{"a.png", "text/x", "image/png"},
                 {"a", "text/x", "text/x"},
                 {"a", "", "application/octet-stream"}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct object *object = make_object(cases[i].name, cases[i].sent, "");
        struct text type = headers_type(object);

        assert_int_equal(type.len, strlen(cases[i].type));
        assert_memory_equal(type.ptr, cases[i].type, type.len);
        object_destroy(&object);
    }
}

static json_t *document_with(const struct object *object, struct db_copies copies)
{
    struct buf out = {0};

    document_render(&out, object, &copies, 2);
    assert_int_equal(buf_check(&out), 0);
    json_t *json = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    buf_release(&out);
    return json;
}

static json_t *document(const struct object *object)
{
    return document_with(object, (struct db_copies){.members = 1, .held = 1});
}

static const char *text_of(json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));

    assert_non_null(text);
    return text;
}

static json_int_t number_of(json_t *json, const char *key)
{
    assert_true(json_is_integer(json_object_get(json, key)));
    return json_integer_value(json_object_get(json, key));
}

static void a_document_says_what_is_owed(void **state)
{
    struct object *object = make_object("q\"uote", "", "{\"k\":\"\\u00e4\"}");

    (void)state;
    object->level = 1;
    json_t *json = document(object);
    assert_string_equal(text_of(json, "id"), ID);
    assert_string_equal(text_of(json, "name"), "q\"uote");
    assert_int_equal(number_of(json, "size"), 3);
    assert_string_equal(text_of(json, "sha256"),
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(number_of(json, "level"), 1);
    assert_int_equal(number_of(json, "consistency"), 1);
    assert_int_equal(number_of(json, "timestamp"), INT64_C(1503965495123000000));
    assert_string_equal(text_of(json, "time"), "2017-08-29T00:11:35.123Z");
    assert_string_equal(text_of(json_object_get(json, "user_meta"), "k"), "\xc3\xa4");
    assert_true(json_is_false(json_object_get(json, "is_symlink")));
    assert_true(json_is_false(json_object_get(json, "is_deleted")));
    assert_true(json_is_false(json_object_get(json, "is_fetched")));
    assert_int_equal(number_of(json_object_get(json, "replicas"), "have"), 1);
    assert_int_equal(number_of(json_object_get(json, "replicas"), "want"), 2);
    json_t *pending = json_object_get(json, "pending");
    assert_int_equal(json_array_size(pending), 2);
    assert_string_equal(json_string_value(json_array_get(pending, 0)), "cloud");
    assert_string_equal(json_string_value(json_array_get(pending, 1)), "replica");
    json_decref(json);

    object->level = 0;
    json = document(object);
    assert_int_equal(json_array_size(json_object_get(json, "pending")), 0);
    assert_int_equal(number_of(json_object_get(json, "replicas"), "want"), 1);
    json_decref(json);
    object_destroy(&object);
}

static bool is_fetched(const struct object *object, struct db_copies copies)
{
    json_t *json = document_with(object, copies);
    const json_t *it = json_object_get(json, "is_fetched");
    bool fetched = json_is_true(it);

    assert_true(json_is_boolean(it));
    json_decref(json);
    return fetched;
}

static void a_document_says_whether_the_cloud_alone_has_it(void **state)
{
    struct object *object = make_object("a", "", "");
    const struct place here = {.volume = 1, .offset = 4096};
    const struct place none = {0};

    (void)state;
    object->level = 1;
    object->place = none;
    assert_true(is_fetched(object, (struct db_copies){.members = 3, .uploaded = true}));
    assert_false(is_fetched(object, (struct db_copies){.members = 3}));
    assert_false(is_fetched(object, (struct db_copies){.members = 3, .held = 1, .uploaded = true}));
    assert_false(
        is_fetched(object, (struct db_copies){.members = 3, .uploaded = true, .own_alone = true}));
    object->place = here;
    assert_false(is_fetched(object, (struct db_copies){.members = 3, .uploaded = true}));
    object->place = none;
    object->flags = OBJECT_DELETED;
    assert_false(is_fetched(object, (struct db_copies){.members = 3, .uploaded = true}));
    object_destroy(&object);
}

static void a_tombstones_document_has_all_fields(void **state)
{
    struct object *object = make_object("", "", "");

    (void)state;
    object->flags = OBJECT_DELETED;
    object->deleted_at = UINT64_C(1503965495123) << 16;
    json_t *json = document(object);
    assert_true(json_is_true(json_object_get(json, "is_deleted")));
    assert_string_equal(text_of(json, "sha256"), "");
    assert_int_equal(json_object_size(json), 14);
    assert_string_equal(text_of(json, "time"), "2017-08-29T00:11:35.123Z");
    json_decref(json);
    object_destroy(&object);
}

static void times_are_right_around_leap_days(void **state)
{
    static const struct {
        uint64_t ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {UINT64_C(951782399999), "2000-02-28T23:59:59.999Z"},
        {UINT64_C(951782400000), "2000-02-29T00:00:00.000Z"},
        {UINT64_C(951868800001), "2000-03-01T00:00:00.001Z"},
        {UINT64_C(1735689599010), "2024-12-31T23:59:59.010Z"},
        {UINT64_C(4107542400000), "2100-03-01T00:00:00.000Z"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out = {0};

        document_time(&out, cases[i].ms);
        buf_char(&out, 0);
        assert_int_equal(buf_check(&out), 0);
        assert_string_equal(out.data, cases[i].text);
        buf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_header_at_all_is_a_plain_put),
        cmocka_unit_test(ids_are_ulids_of_this_century),
        cmocka_unit_test(levels_are_numbers_or_names),
        cmocka_unit_test(names_are_utf8_raw_or_encoded),
        cmocka_unit_test(user_meta_is_a_map_of_strings),
        cmocka_unit_test(types_are_kept_where_they_will_be_used),
        cmocka_unit_test(digests_are_read_from_three_headers),
        cmocka_unit_test(acks_need_the_level_they_count_on),
        cmocka_unit_test(timeouts_are_decimal_seconds),
        cmocka_unit_test(a_purge_is_a_boolean),
        cmocka_unit_test(no_condition_costs_no_memory),
        cmocka_unit_test(conditions_are_stars_or_lists_of_tags),
        cmocka_unit_test(a_list_of_tags_has_an_end),
        cmocka_unit_test(conditions_are_sent_once_and_dates_need_not_be_any),
        cmocka_unit_test(a_get_describes_its_object),
        cmocka_unit_test(the_type_is_the_names_then_the_senders),
        cmocka_unit_test(a_document_says_what_is_owed),
        cmocka_unit_test(a_document_says_whether_the_cloud_alone_has_it),
        cmocka_unit_test(a_tombstones_document_has_all_fields),
        cmocka_unit_test(times_are_right_around_leap_days),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
