/* Goal: whichever backend it is, what was put comes back, all of it or the range asked for, with
 * its texts; nothing half-written or damaged is ever seen; lists are complete and in order; a slow
 * owner is waited for without anybody else being kept waiting; and every request ends once. */
#include "tests/unit/cloud_contract.h"

#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PATIENCE_S 30

static const struct cloud_contract *contract;
static struct cloud *cloud;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* ---- Calls ---- */

static struct cloud_call *call_of(struct cloud_request *request)
{
    return (struct cloud_call *)(void *)request;
}

static int on_read(struct cloud_request *request, uint64_t offset, void *buf, size_t len)
{
    struct cloud_call *call = call_of(request);

    assert_true(offset + len <= request->size);
    if (call->read_rc)
        return call->read_rc;
    memcpy(buf, call->body + offset, len);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct cloud_pair *left = a, *right = b;
    size_t len = left->name.len < right->name.len ? left->name.len : right->name.len;
    int order = memcmp(left->name.ptr, right->name.ptr, len);

    return order ? order : (int)left->name.len - (int)right->name.len;
}

static int on_head(struct cloud_request *request, const struct cloud_head *head)
{
    struct cloud_call *call = call_of(request);
    struct cloud_pair pairs[LIMIT_CLOUD_PAIRS] = {{{NULL, 0}, {NULL, 0}}};
    size_t at = 0;

    assert_int_equal(call->len, 0);
    assert_true(head->pair_count <= LIMIT_CLOUD_PAIRS);
    if (head->pair_count)
        memcpy(pairs, head->pairs, head->pair_count * sizeof *pairs);
    qsort(pairs, head->pair_count, sizeof *pairs, by_name);
    for (size_t i = 0; i < head->pair_count; i++)
        at += (size_t)snprintf(call->pairs + at, sizeof call->pairs - at, "%.*s=%.*s\n",
                               (int)pairs[i].name.len, pairs[i].name.ptr, (int)pairs[i].value.len,
                               pairs[i].value.ptr ? pairs[i].value.ptr : "");
    (void)snprintf(call->etag, sizeof call->etag, "%.*s", (int)head->etag.len, head->etag.ptr);
    (void)snprintf(call->type, sizeof call->type, "%.*s", (int)head->type.len,
                   head->type.ptr ? head->type.ptr : "");
    call->size = head->size;
    call->tag_count = head->tag_count;
    call->heads++;
    return call->head_rc;
}

static void on_data(struct cloud_request *request, const void *bytes, size_t len)
{
    struct cloud_call *call = call_of(request);

    (void)pthread_mutex_lock(&lock);
    assert_false(call->over);
    call->bytes = realloc(call->bytes, call->len + len);
    memcpy(call->bytes + call->len, bytes, len);
    call->len += len;
    assert_true(call->len - call->consumed <= CLOUD_WINDOW_BYTES);
    if (!call->hold)
        call->consumed = call->len;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
    if (!call->hold)
        cloud_consumed(call->cloud, request, len);
}

static void on_entry(struct cloud_request *request, const struct cloud_entry *entry)
{
    struct cloud_call *call = call_of(request);
    size_t prefix = strlen(call->prefix), at = strlen(call->keys);

    assert_true(entry->key.len >= prefix);
    assert_int_equal(strncmp(entry->key.ptr, call->prefix, prefix), 0);
    (void)snprintf(call->keys + at, sizeof call->keys - at, "%.*s:%" PRIu64 "\n",
                   (int)(entry->key.len - prefix), entry->key.ptr + prefix, entry->size);
    (void)snprintf(call->last, sizeof call->last, "%.*s", (int)entry->key.len, entry->key.ptr);
    call->entries++;
}

static void on_done(struct cloud_request *request, int rc)
{
    struct cloud_call *call = call_of(request);

    (void)pthread_mutex_lock(&lock);
    assert_false(call->over);
    call->over = true;
    call->rc = rc;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
}

void cloud_call_init(struct cloud_call *call, struct cloud *of, enum cloud_op op,
                     const char *prefix, const char *key)
{
    memset(call, 0, sizeof *call);
    call->cloud = of;
    call->prefix = prefix;
    (void)snprintf(call->key, sizeof call->key, "%s%s", prefix, key);
    call->request.op = op;
    call->request.key = (struct cloud_text){call->key, (uint32_t)strlen(call->key)};
    call->request.read = on_read;
    call->request.head = on_head;
    call->request.data = on_data;
    call->request.entry = on_entry;
    call->request.done = on_done;
}

void cloud_call_body(struct cloud_call *call, const void *body, size_t len)
{
    call->body = body;
    call->request.size = len;
    sha256(len ? body : "", len, call->request.sha256);
}

int cloud_call_begin(struct cloud_call *call)
{
    return cloud_start(call->cloud, &call->request);
}

/* Until it is OVER, or LEN bytes have come. */
static void await(struct cloud_call *call, size_t len)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    (void)pthread_mutex_lock(&lock);
    while (!call->over && call->len < len) {
        if (pthread_cond_timedwait(&changed, &lock, &until) != 0)
            break;
    }
    bool came = call->over || call->len >= len;
    (void)pthread_mutex_unlock(&lock);
    assert_true(came);
}

int cloud_call_wait(struct cloud_call *call)
{
    await(call, SIZE_MAX);
    return call->rc;
}

void cloud_call_wait_for(struct cloud_call *call, size_t len)
{
    await(call, len);
}

int cloud_call_do(struct cloud_call *call)
{
    int rc = cloud_call_begin(call);

    return rc ? rc : cloud_call_wait(call);
}

void cloud_call_take(struct cloud_call *call)
{
    (void)pthread_mutex_lock(&lock);
    size_t len = call->len - call->consumed;
    bool over = call->over;
    call->consumed = call->len;
    (void)pthread_mutex_unlock(&lock);
    if (len > 0 && !over)
        cloud_consumed(call->cloud, &call->request, len);
}

void cloud_call_free(struct cloud_call *call)
{
    free(call->bytes);
    call->bytes = NULL;
}

/* ---- Short forms ---- */

static int put(const char *key, const void *body, size_t len)
{
    struct cloud_call call;

    cloud_call_init(&call, cloud, CLOUD_PUT, contract->prefix, key);
    cloud_call_body(&call, body, len);
    int rc = cloud_call_do(&call);
    if (rc == 0)
        assert_true(*call.request.etag);
    else
        assert_true(rc == ERR_INVALID || *call.request.message);
    return rc;
}

static int simple(enum cloud_op op, const char *key)
{
    struct cloud_call call;

    cloud_call_init(&call, cloud, op, contract->prefix, key);
    int rc = cloud_call_do(&call);
    cloud_call_free(&call);
    return rc;
}

static void expect_body(const char *key, const void *body, size_t len)
{
    struct cloud_call call;

    cloud_call_init(&call, cloud, CLOUD_GET, contract->prefix, key);
    assert_int_equal(cloud_call_do(&call), 0);
    assert_int_equal(call.len, len);
    if (len)
        assert_memory_equal(call.bytes, body, len);
    assert_int_equal(call.size, len);
    assert_int_equal(call.heads, 1);
    cloud_call_free(&call);
}

static uint8_t *random_bytes(size_t len, unsigned seed)
{
    uint8_t *bytes = malloc(len);
    uint32_t state = seed * 2654435761u + 1;

    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(state >> 24);
    }
    return bytes;
}

#define TEXT(literal)                                                                              \
    {                                                                                              \
        literal, sizeof literal - 1                                                                \
    }

/* ---- Tests ---- */

static void what_was_put_comes_back_with_its_texts(void **state)
{
    static const struct cloud_pair pairs[] = {{TEXT("name"), TEXT("a%20b.txt")},
                                              {TEXT("empty-one"), TEXT("x")},
                                              {TEXT("sha256"), TEXT("0123456789abcdef")}};
    static const struct cloud_pair tags[] = {{TEXT("usermeta-color"), TEXT("dark blue")},
                                             {TEXT("usermeta-2"), TEXT("a+b=c/d:e.f_g@h-i")}};
    struct cloud_call call, head, get;

    (void)state;
    cloud_call_init(&call, cloud, CLOUD_PUT, contract->prefix, "texts");
    cloud_call_body(&call, "hello, cloud", 12);
    call.request.type = (struct cloud_text)TEXT("text/plain; charset=utf-8");
    call.request.pairs = pairs;
    call.request.pair_count = 3;
    call.request.tags = tags;
    call.request.tag_count = 2;
    assert_int_equal(cloud_call_do(&call), 0);
    expect_body("texts", "hello, cloud", 12);

    static const enum cloud_op ops[] = {CLOUD_HEAD, CLOUD_GET};
    for (size_t i = 0; i < 2; i++) {
        cloud_call_init(&head, cloud, ops[i], contract->prefix, "texts");
        assert_int_equal(cloud_call_do(&head), 0);
        assert_int_equal(head.size, 12);
        assert_int_equal(head.len, ops[i] == CLOUD_GET ? 12 : 0);
        assert_string_equal(head.type, "text/plain; charset=utf-8");
        assert_string_equal(head.pairs, "empty-one=x\nname=a%20b.txt\nsha256=0123456789abcdef\n");
        assert_string_equal(head.etag, call.request.etag);
        cloud_call_free(&head);
    }
    cloud_call_init(&get, cloud, CLOUD_TAGS, contract->prefix, "texts");
    assert_int_equal(cloud_call_do(&get), 0);
    assert_string_equal(get.pairs, "usermeta-2=a+b=c/d:e.f_g@h-i\nusermeta-color=dark blue\n");
}

static void a_second_put_replaces_body_and_texts(void **state)
{
    static const struct cloud_pair pairs[] = {{TEXT("old"), TEXT("yes")}};
    struct cloud_call call, head;

    (void)state;
    cloud_call_init(&call, cloud, CLOUD_PUT, contract->prefix, "twice");
    cloud_call_body(&call, "the first body, which is longer", 31);
    call.request.pairs = call.request.tags = pairs;
    call.request.pair_count = call.request.tag_count = 1;
    assert_int_equal(cloud_call_do(&call), 0);
    assert_int_equal(put("twice", "second", 6), 0);
    expect_body("twice", "second", 6);
    cloud_call_init(&head, cloud, CLOUD_HEAD, contract->prefix, "twice");
    assert_int_equal(cloud_call_do(&head), 0);
    assert_string_equal(head.pairs, "");
    assert_string_not_equal(head.etag, call.request.etag);
    cloud_call_init(&head, cloud, CLOUD_TAGS, contract->prefix, "twice");
    assert_int_equal(cloud_call_do(&head), 0);
    assert_string_equal(head.pairs, "");
}

static void bodies_of_all_sizes_come_back(void **state)
{
    static const size_t sizes[] = {
        0, 1, 127, 128, 129, 65536, 65537, 256u << 10, 1000000, (2u << 20), (9u << 20) + 17};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *body = random_bytes(sizes[i] + 1, (unsigned)i);

        assert_int_equal(put("sizes", body, sizes[i]), 0);
        expect_body("sizes", body, sizes[i]);
        free(body);
    }
}

static void ranges_and_conditions_are_kept(void **state)
{
    static const struct {
        uint64_t offset, length;
        size_t got;
        int rc;
    } cases[] = {{0, 0, 1000, 0},         {0, 1, 1, 0},           {999, 0, 1, 0},
                 {999, 5000, 1, 0},       {10, 100, 100, 0},      {500, 0, 500, 0},
                 {1000, 0, 0, ERR_RANGE}, {1001, 1, 0, ERR_RANGE}};
    uint8_t *body = random_bytes(1000, 7);
    struct cloud_call call;
    char etag[128];

    (void)state;
    assert_int_equal(put("range", body, 1000), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cloud_call_init(&call, cloud, CLOUD_GET, contract->prefix, "range");
        call.request.offset = cases[i].offset;
        call.request.length = cases[i].length;
        assert_int_equal(cloud_call_do(&call), cases[i].rc);
        assert_int_equal(call.len, cases[i].got);
        if (call.len)
            assert_memory_equal(call.bytes, body + cases[i].offset, call.len);
        if (cases[i].rc == 0) {
            assert_int_equal(call.size, 1000);
            memcpy(etag, call.etag, sizeof etag);
        }
        cloud_call_free(&call);
    }
    for (int same = 0; same < 2; same++) {
        cloud_call_init(&call, cloud, CLOUD_GET, contract->prefix, "range");
        call.request.if_match = same ? (struct cloud_text){etag, (uint32_t)strlen(etag)}
                                     : (struct cloud_text)TEXT("d41d8cd98f00b204e9800998ecf8427e");
        call.request.offset = 10;
        call.request.length = 10;
        assert_int_equal(cloud_call_do(&call), same ? 0 : ERR_PRECONDITION);
        assert_int_equal(call.len, same ? 10 : 0);
        cloud_call_free(&call);
    }
    free(body);
}

static void what_was_deleted_is_gone(void **state)
{
    static const enum cloud_op ops[] = {CLOUD_GET, CLOUD_HEAD, CLOUD_TAGS};
    struct cloud_call call;

    (void)state;
    assert_int_equal(put("gone/one", "x", 1), 0);
    assert_int_equal(put("gone/two", "y", 1), 0);
    assert_int_equal(simple(CLOUD_DELETE, "gone/one"), 0);
    assert_int_equal(simple(CLOUD_DELETE, "gone/one"), 0);
    assert_int_equal(simple(CLOUD_DELETE, "never/there"), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(simple(ops[i], "gone/one"), ERR_NOT_FOUND);
    cloud_call_init(&call, cloud, CLOUD_LIST, contract->prefix, "gone/");
    assert_int_equal(cloud_call_do(&call), 0);
    assert_string_equal(call.keys, "gone/two:1\n");
    assert_int_equal(simple(CLOUD_DELETE, "gone/two"), 0);
    assert_int_equal(put("gone/one", "again", 5), 0);
    expect_body("gone/one", "again", 5);
}

static void wrong_bytes_are_refused_and_leave_what_was_there(void **state)
{
    uint8_t *body = random_bytes(300000, 9);
    struct cloud_call call;

    (void)state;
    assert_int_equal(put("right", "right", 5), 0);
    for (int there = 0; there < 2; there++) {
        cloud_call_init(&call, cloud, CLOUD_PUT, contract->prefix, there ? "right" : "wrong");
        cloud_call_body(&call, body, 300000);
        call.request.sha256[31] ^= 1;
        assert_int_equal(cloud_call_do(&call), ERR_MISMATCH);
        assert_true(*call.request.message);
    }
    assert_int_equal(simple(CLOUD_HEAD, "wrong"), ERR_NOT_FOUND);
    expect_body("right", "right", 5);
    free(body);
}

static void a_body_that_cannot_be_read_is_not_put(void **state)
{
    struct cloud_call call;

    (void)state;
    cloud_call_init(&call, cloud, CLOUD_PUT, contract->prefix, "unread");
    cloud_call_body(&call, "some bytes", 10);
    call.read_rc = ERR_CORRUPT;
    int rc = cloud_call_do(&call);
    assert_true(rc == ERR_CORRUPT || rc == ERR_MISMATCH);
    assert_int_equal(simple(CLOUD_HEAD, "unread"), ERR_NOT_FOUND);
}

static void an_owner_who_wants_no_more_gets_its_own_answer(void **state)
{
    struct cloud_call call;

    (void)state;
    assert_int_equal(put("refused", "some bytes", 10), 0);
    cloud_call_init(&call, cloud, CLOUD_GET, contract->prefix, "refused");
    call.head_rc = ERR_DELETED;
    assert_int_equal(cloud_call_do(&call), ERR_DELETED);
    assert_int_equal(call.len, 0);
}

static void lists_are_complete_and_in_the_order_of_bytes(void **state)
{
    /* As bytes sort: ' ' < '!' < '%' < '+' < '-' < '.' < '/' < digits < capitals < small letters <
     * the rest. */
    static const char *const keys[] = {
        "list/a!",  "list/a-b",  "list/a.b", "list/a/1", "list/a/b/c", "list/a/b0",     "list/a0",
        "list/b d", "list/b%41", "list/b+c", "list/bA",  "list/c%",    "list/\xc3\xa9", "list2/x"};
    enum { KEYS = sizeof keys / sizeof *keys };
    struct cloud_call call;
    char all[1024] = "";

    (void)state;
    for (size_t i = 0; i < KEYS; i++) {
        /* Written in another order. */
        const char *key = keys[(i * 5 + 3) % KEYS];
        assert_int_equal(put(key, key, strlen(key)), 0);
    }
    for (size_t i = 0; i < KEYS - 1; i++) {
        size_t at = strlen(all);
        (void)snprintf(all + at, sizeof all - at, "%s:%zu\n", keys[i], strlen(keys[i]));
        expect_body(keys[i], keys[i], strlen(keys[i]));
    }
    cloud_call_init(&call, cloud, CLOUD_LIST, contract->prefix, "list/");
    assert_int_equal(cloud_call_do(&call), 0);
    assert_string_equal(call.keys, all);
    assert_false(call.request.more);
    for (unsigned max = 1; max <= KEYS; max++) {
        char got[1024] = "", after[1200] = "";
        unsigned pages = 0;

        do {
            cloud_call_init(&call, cloud, CLOUD_LIST, contract->prefix, "list/");
            call.request.max = max;
            call.request.after = (struct cloud_text){after, (uint32_t)strlen(after)};
            assert_int_equal(cloud_call_do(&call), 0);
            assert_true(call.entries <= max);
            assert_true(strlen(got) + strlen(call.keys) < sizeof got);
            memcpy(got + strlen(got), call.keys, strlen(call.keys) + 1);
            memcpy(after, call.last, sizeof after);
            assert_true(++pages <= KEYS + 1);
        } while (call.request.more);
        assert_string_equal(got, all);
        assert_int_equal(pages, (KEYS - 1 + max - 1) / max);
    }
}

static void lists_begin_where_they_are_asked_to(void **state)
{
    static const struct {
        const char *prefix, *after, *keys;
    } cases[] = {{"from/", "from/b", "from/b/x:1\nfrom/c:1\n"},
                 {"from/", "from/b/", "from/b/x:1\nfrom/c:1\n"},
                 {"from/", "from/b/x", "from/c:1\n"},
                 {"from/", "from/b/z", "from/c:1\n"},
                 {"from/", "from/bb", "from/c:1\n"},
                 {"from/", "from/", "from/a:1\nfrom/b/x:1\nfrom/c:1\n"},
                 {"from/", "a", "from/a:1\nfrom/b/x:1\nfrom/c:1\n"},
                 {"from/", "g", ""},
                 {"from/b", "", "from/b/x:1\n"},
                 {"from/b/", "from/a", "from/b/x:1\n"},
                 {"from/b/", "from/c", ""},
                 {"from/nothing", "", ""},
                 {"from/a", "", "from/a:1\n"},
                 {"from/a/", "", ""}};
    struct cloud_call call;

    (void)state;
    assert_int_equal(put("from/a", "1", 1), 0);
    assert_int_equal(put("from/b/x", "1", 1), 0);
    assert_int_equal(put("from/c", "1", 1), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char after[1200];

        cloud_call_init(&call, cloud, CLOUD_LIST, contract->prefix, cases[i].prefix);
        (void)snprintf(after, sizeof after, "%s%s", contract->prefix, cases[i].after);
        if (*cases[i].after)
            call.request.after = (struct cloud_text){after, (uint32_t)strlen(after)};
        assert_int_equal(cloud_call_do(&call), 0);
        assert_string_equal(call.keys, cases[i].keys);
    }
}

static void long_keys_are_kept(void **state)
{
    char key[LIMIT_CLOUD_KEY_BYTES + 2], list[2048];
    size_t room = LIMIT_CLOUD_KEY_BYTES - strlen(contract->prefix);
    struct cloud_call call;

    (void)state;
    memset(key, 'k', sizeof key);
    memcpy(key, "long/", 5);
    for (size_t i = 200; contract->short_parts && i + 1 < room; i += 200)
        key[i] = '/';
    key[room] = 0;
    assert_int_equal(put(key, "long", 4), 0);
    expect_body(key, "long", 4);
    (void)snprintf(list, sizeof list, "%s:4\n", key);
    cloud_call_init(&call, cloud, CLOUD_LIST, contract->prefix, "long/kkkk");
    assert_int_equal(cloud_call_do(&call), 0);
    assert_string_equal(call.keys, list);
    assert_int_equal(simple(CLOUD_DELETE, key), 0);
    assert_int_equal(simple(CLOUD_GET, key), ERR_NOT_FOUND);
    key[room] = 'k';
    key[room + 1] = 0;
    assert_int_equal(put(key, "long", 4), ERR_INVALID);
}

static void a_slow_owner_is_given_no_more_than_the_window(void **state)
{
    enum { SIZE = 12 << 20, SLOW = 8 };
    uint8_t *body = random_bytes(SIZE, 11);
    struct cloud_call calls[SLOW];

    (void)state;
    assert_int_equal(put("slow", body, SIZE), 0);
    for (int i = 0; i < SLOW; i++) {
        cloud_call_init(&calls[i], cloud, CLOUD_GET, contract->prefix, "slow");
        calls[i].hold = true;
        assert_int_equal(cloud_call_begin(&calls[i]), 0);
    }
    for (int i = 0; i < SLOW; i++)
        cloud_call_wait_for(&calls[i], CLOUD_WINDOW_BYTES / 2);
    /* They stand still, others do not. */
    assert_int_equal(put("quick", "quick", 5), 0);
    expect_body("quick", "quick", 5);
    for (int i = 0; i < SLOW; i++) {
        assert_false(calls[i].over);
        while (!calls[i].over) {
            size_t had = calls[i].len;

            cloud_call_take(&calls[i]);
            cloud_call_wait_for(&calls[i], had + 1);
        }
        assert_int_equal(cloud_call_wait(&calls[i]), 0);
        assert_int_equal(calls[i].len, SIZE);
        assert_memory_equal(calls[i].bytes, body, SIZE);
        cloud_call_free(&calls[i]);
    }
    free(body);
}

static void what_is_cancelled_ends_soon(void **state)
{
    enum { SIZE = 6 << 20 };
    uint8_t *body = random_bytes(SIZE, 12);
    struct cloud_call call;

    (void)state;
    assert_int_equal(put("cancel", body, SIZE), 0);
    cloud_call_init(&call, cloud, CLOUD_GET, contract->prefix, "cancel");
    call.hold = true;
    assert_int_equal(cloud_call_begin(&call), 0);
    cloud_call_wait_for(&call, 1);
    cloud_cancel(cloud, &call.request);
    assert_int_equal(cloud_call_wait(&call), ERR_CLOSED);
    assert_true(call.len < SIZE);
    cloud_call_free(&call);
    free(body);
}

static void only_so_many_are_under_way(void **state)
{
    enum { SIZE = CLOUD_WINDOW_BYTES + (1 << 20) };
    uint8_t *body = random_bytes(SIZE, 13);
    struct cloud_call *calls = calloc(LIMIT_CLOUD_REQUESTS + 1, sizeof *calls);

    (void)state;
    assert_non_null(calls);
    assert_int_equal(put("many", body, SIZE), 0);
    for (unsigned i = 0; i <= LIMIT_CLOUD_REQUESTS; i++) {
        cloud_call_init(&calls[i], cloud, CLOUD_GET, contract->prefix, "many");
        calls[i].hold = true;
        assert_int_equal(cloud_call_begin(&calls[i]), i < LIMIT_CLOUD_REQUESTS ? 0 : ERR_FULL);
    }
    for (unsigned i = 0; i < LIMIT_CLOUD_REQUESTS; i++)
        cloud_cancel(cloud, &calls[i].request);
    for (unsigned i = 0; i < LIMIT_CLOUD_REQUESTS; i++) {
        assert_int_equal(cloud_call_wait(&calls[i]), ERR_CLOSED);
        cloud_call_free(&calls[i]);
    }
    assert_int_equal(simple(CLOUD_HEAD, "many"), 0);
    free(calls);
    free(body);
}

static void an_end_ends_all(void **state)
{
    enum { SIZE = CLOUD_WINDOW_BYTES + (1 << 20), CALLS = 6 };
    uint8_t *body = random_bytes(SIZE, 14);
    struct cloud *other = contract->create(contract->arg);
    struct cloud_call calls[CALLS];

    (void)state;
    assert_int_equal(put("end", body, SIZE), 0);
    for (int i = 0; i < CALLS; i++) {
        cloud_call_init(&calls[i], other, CLOUD_GET, contract->prefix, "end");
        calls[i].hold = true;
        assert_int_equal(cloud_call_begin(&calls[i]), 0);
    }
    cloud_call_wait_for(&calls[0], 1);
    cloud_destroy(&other);
    assert_null(other);
    for (int i = 0; i < CALLS; i++) {
        assert_true(calls[i].over);
        assert_int_equal(calls[i].rc, ERR_CLOSED);
        cloud_call_free(&calls[i]);
    }
    free(body);
}

static void what_no_cloud_takes_is_refused_at_once(void **state)
{
    static const struct cloud_pair bad[] = {{TEXT("Name"), TEXT("x")},
                                            {TEXT("na me"), TEXT("x")},
                                            {TEXT(""), TEXT("x")},
                                            {TEXT("name"), TEXT("\xff")}};
    static char long_text[LIMIT_CLOUD_META_BYTES];
    struct cloud_pair large[1] = {{TEXT("n"), {long_text, sizeof long_text}}};
    struct cloud_pair tags[LIMIT_CLOUD_TAGS + 1];
    struct cloud_call call;

    (void)state;
    cloud_call_init(&call, cloud, CLOUD_GET, "", "");
    assert_int_equal(cloud_call_begin(&call), ERR_INVALID);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cloud_call_init(&call, cloud, CLOUD_PUT, contract->prefix, "bad");
        cloud_call_body(&call, "x", 1);
        call.request.pairs = &bad[i];
        call.request.pair_count = 1;
        assert_int_equal(cloud_call_begin(&call), ERR_INVALID);
    }
    memset(long_text, 'x', sizeof long_text);
    cloud_call_init(&call, cloud, CLOUD_PUT, contract->prefix, "bad");
    cloud_call_body(&call, "x", 1);
    call.request.pairs = large;
    call.request.pair_count = 1;
    assert_int_equal(cloud_call_begin(&call), ERR_INVALID);
    large[0].value.len--;
    assert_int_equal(cloud_call_do(&call), 0);
    for (size_t i = 0; i <= LIMIT_CLOUD_TAGS; i++)
        tags[i] = (struct cloud_pair){{&"abcdefghijklmnop"[i], 1}, TEXT("x")};
    cloud_call_init(&call, cloud, CLOUD_PUT, contract->prefix, "bad");
    cloud_call_body(&call, "x", 1);
    call.request.tags = tags;
    call.request.tag_count = LIMIT_CLOUD_TAGS + 1;
    assert_int_equal(cloud_call_begin(&call), ERR_INVALID);
    call.request.tag_count = LIMIT_CLOUD_TAGS;
    assert_int_equal(cloud_call_do(&call), 0);
}

static void what_is_done_is_counted(void **state)
{
    struct cloud_figures before, after;

    (void)state;
    cloud_figures(cloud, &before);
    assert_int_equal(put("count", "12345", 5), 0);
    expect_body("count", "12345", 5);
    assert_int_equal(simple(CLOUD_HEAD, "count"), 0);
    assert_int_equal(simple(CLOUD_HEAD, "no such"), ERR_NOT_FOUND);
    cloud_figures(cloud, &after);
    assert_int_equal(after.by_op[CLOUD_PUT].sent, before.by_op[CLOUD_PUT].sent + 1);
    assert_int_equal(after.by_op[CLOUD_GET].sent, before.by_op[CLOUD_GET].sent + 1);
    assert_int_equal(after.by_op[CLOUD_HEAD].sent, before.by_op[CLOUD_HEAD].sent + 2);
    assert_int_equal(after.by_op[CLOUD_HEAD].failed, before.by_op[CLOUD_HEAD].failed);
    assert_int_equal(after.bytes_up, before.bytes_up + 5);
    assert_int_equal(after.bytes_down, before.bytes_down + 5);
}

static int setup(void **state)
{
    (void)state;
    cloud = contract->create(contract->arg);
    return cloud ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    cloud_destroy(&cloud);
    return 0;
}

int cloud_contract_run(const struct cloud_contract *asked)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_comes_back_with_its_texts),
        cmocka_unit_test(a_second_put_replaces_body_and_texts),
        cmocka_unit_test(bodies_of_all_sizes_come_back),
        cmocka_unit_test(ranges_and_conditions_are_kept),
        cmocka_unit_test(what_was_deleted_is_gone),
        cmocka_unit_test(wrong_bytes_are_refused_and_leave_what_was_there),
        cmocka_unit_test(a_body_that_cannot_be_read_is_not_put),
        cmocka_unit_test(an_owner_who_wants_no_more_gets_its_own_answer),
        cmocka_unit_test(lists_are_complete_and_in_the_order_of_bytes),
        cmocka_unit_test(lists_begin_where_they_are_asked_to),
        cmocka_unit_test(long_keys_are_kept),
        cmocka_unit_test(a_slow_owner_is_given_no_more_than_the_window),
        cmocka_unit_test(what_is_cancelled_ends_soon),
        cmocka_unit_test(only_so_many_are_under_way),
        cmocka_unit_test(an_end_ends_all),
        cmocka_unit_test(what_no_cloud_takes_is_refused_at_once),
        cmocka_unit_test(what_is_done_is_counted),
    };

    contract = asked;
    return cmocka_run_group_tests_name("cloud_contract", tests, setup, teardown);
}
