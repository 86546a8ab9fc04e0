/*
 * The cloud's backends while something fails below them: each request once, in order, then all of
 * them again without faults, on the same cloud.
 *
 * What must hold: each request ends, and soon; what it brings is right or it is an error; an error
 * is one of want (memory, a disk, a connection), never a verdict about the object or about us; a
 * put that was answered is there, one that was not is there whole or not at all; and nothing is
 * left of a fault that is over.
 */
#include "base/env.h"
#include "base/json.h"
#include "base/limits.h"
#include "storage/cloud_dir.h"
#include "storage/cloud_s3.h"
#include "tests/fault/fault.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define SMALL  1000
#define LARGE  (4 * MIB + 600000) /* two ranges of a download in parts, … */
#define PART   (2 * MIB)          /* … three parts of an upload */
#define WAIT_S 30                 /* a request that takes longer hangs */

enum { KEY_SMALL, KEY_LARGE, KEY_AFTER, KEYS };
static const char *const keys[KEYS] = {"one/small", "large", "one/zz"};

static const struct cloud_pair pair = {{"of", 2}, {"it", 2}};
static const struct cloud_pair tag = {{"usermeta-a", 10}, {"b-c", 3}};

static uint8_t large[LARGE + 8];

static struct {
    struct world *world;
    struct cloud *cloud;
    bool s3;
    unsigned may[KEYS]; /* bit N: version N may be there; 0: none */
} under_test;

/* ---- One request ---- */

struct ask {
    struct cloud_request request; /* first */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    const uint8_t *expected; /* what `read` gives, or what has to come */
    uint64_t came, size;
    bool over, wrong, headed, paired;
    unsigned entries;
    int rc;
};

static int on_read(struct cloud_request *request, uint64_t offset, void *buf, size_t len)
{
    memcpy(buf, ((struct ask *)request)->expected + offset, len);
    return 0;
}

static int on_head(struct cloud_request *request, const struct cloud_head *head)
{
    struct ask *ask = (struct ask *)request;
    const struct cloud_pair *wanted = request->op == CLOUD_TAGS ? &tag : &pair;

    ask->headed = true;
    ask->size = head->size;
    for (size_t i = 0; i < head->pair_count; i++)
        ask->paired |= head->pairs[i].name.len == wanted->name.len &&
                       memcmp(head->pairs[i].name.ptr, wanted->name.ptr, wanted->name.len) == 0 &&
                       head->pairs[i].value.len == wanted->value.len &&
                       memcmp(head->pairs[i].value.ptr, wanted->value.ptr, wanted->value.len) == 0;
    return 0;
}

static void on_data(struct cloud_request *request, const void *bytes, size_t len)
{
    struct ask *ask = (struct ask *)request;

    /* Of two versions, which it is shows in `size` alone. */
    if (ask->expected)
        ask->wrong |= memcmp(bytes, ask->expected + request->offset + ask->came, len) != 0;
    ask->came += len;
    cloud_consumed(under_test.cloud, request, len);
}

static void on_entry(struct cloud_request *request, const struct cloud_entry *entry)
{
    static const char *const listed[2][2] = {{"large", "one/small"}, {"large+", "one/small+"}};
    struct ask *ask = (struct ask *)request;
    const char *key = ask->entries < 2 ? listed[under_test.s3][ask->entries] : "";

    ask->wrong |= entry->key.len != strlen(key) || memcmp(entry->key.ptr, key, entry->key.len) != 0;
    ask->entries++;
}

static void on_done(struct cloud_request *request, int rc)
{
    struct ask *ask = (struct ask *)request;

    (void)pthread_mutex_lock(&ask->lock);
    ask->over = true;
    ask->rc = rc;
    (void)pthread_cond_signal(&ask->ended);
    (void)pthread_mutex_unlock(&ask->lock);
}

static void begin(struct ask *ask, enum cloud_op op, const char *key)
{
    memset(ask, 0, sizeof *ask);
    (void)pthread_mutex_init(&ask->lock, NULL);
    (void)pthread_cond_init(&ask->ended, NULL);
    ask->request.op = op;
    ask->request.key = (struct cloud_text){key, (uint32_t)strlen(key)};
    ask->request.read = on_read;
    ask->request.head = on_head;
    ask->request.data = on_data;
    ask->request.entry = on_entry;
    ask->request.done = on_done;
}

static int await(struct ask *ask)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    (void)pthread_mutex_lock(&ask->lock);
    while (!ask->over)
        if (pthread_cond_timedwait(&ask->ended, &ask->lock, &until) == ETIMEDOUT)
            fault_fail("request %d of %s does not end", (int)ask->request.op, ask->request.key.ptr);
    (void)pthread_mutex_unlock(&ask->lock);
    return ask->rc;
}

static bool is_want(int rc)
{
    return rc == ERR_NO_MEMORY || rc == ERR_IO || rc == ERR_NO_SPACE || rc == ERR_AGAIN ||
           rc == ERR_CLOSED || rc == ERR_TIMEOUT || rc == ERR_FULL;
}

/* Whether it was done. */
static bool done(struct ask *ask, bool in_vain)
{
    int rc = cloud_start(under_test.cloud, &ask->request);

    if (rc == 0) {
        rc = await(ask);
        if (rc && !*ask->request.message)
            fault_fail("request %d of %s failed without a word", (int)ask->request.op,
                       ask->request.key.ptr);
    }
    if (in_vain && rc == ERR_NOT_FOUND)
        return true;
    if (rc && !is_want(rc))
        fault_fail("request %d of %s: %s (%s)", (int)ask->request.op, ask->request.key.ptr,
                   err_text(rc), ask->request.message);
    if (rc && fault_is_harmless(under_test.world->way))
        fault_fail("request %d of %s: %s, after a fault that is none", (int)ask->request.op,
                   ask->request.key.ptr, err_text(rc));
    if (ask->wrong || (rc == 0 && in_vain))
        fault_fail("request %d of %s brought what is wrong", (int)ask->request.op,
                   ask->request.key.ptr);
    (void)pthread_cond_destroy(&ask->ended);
    (void)pthread_mutex_destroy(&ask->lock);
    return rc == 0;
}

/* ---- What is asked ---- */

static uint64_t size_of(unsigned key, unsigned version)
{
    return key == KEY_LARGE ? LARGE : SMALL + version;
}

static void put(unsigned key, unsigned version)
{
    struct ask ask;

    begin(&ask, CLOUD_PUT, keys[key]);
    ask.expected = large + version;
    ask.request.size = size_of(key, version);
    ask.request.type = (struct cloud_text){"text/x", 6};
    ask.request.pairs = &pair;
    ask.request.tags = &tag;
    ask.request.pair_count = ask.request.tag_count = 1;
    fault_spare();
    sha256(ask.expected, ask.request.size, ask.request.sha256);
    fault_unspare();
    bool good = done(&ask, false);
    under_test.may[key] = (good ? 0 : under_test.may[key]) | 1u << version;
}

static void remove_key(unsigned key)
{
    struct ask ask;

    begin(&ask, CLOUD_DELETE, keys[key]);
    under_test.may[key] = (done(&ask, false) ? 0 : under_test.may[key]) | 1;
}

/* Which version of KEY there may be, and only that; 0: none, or that is not known. */
static unsigned sure(unsigned key)
{
    for (unsigned version = 1; version < 4; version++)
        if (under_test.may[key] == 1u << version)
            return version;
    return 0;
}

static void read_key(unsigned key, enum cloud_op op, uint64_t offset, uint64_t length)
{
    unsigned version = sure(key);
    struct ask ask;

    if (version == 0)
        return;
    begin(&ask, op, keys[key]);
    ask.expected = large + version;
    ask.request.offset = offset;
    ask.request.length = length;
    if (!done(&ask, false))
        return;
    uint64_t size = size_of(key, version);
    uint64_t wanted = op != CLOUD_GET ? 0 : length ? length : size - offset;
    if (!ask.headed || !ask.paired || (op != CLOUD_TAGS && ask.size != size) || ask.came != wanted)
        fault_fail("request %d of %s: %llu of %llu bytes, metadata %s", (int)op, keys[key],
                   (unsigned long long)ask.came, (unsigned long long)wanted,
                   ask.paired ? "there" : "lost");
}

static void look_in_vain(void)
{
    struct ask ask;

    begin(&ask, CLOUD_HEAD, "nobody");
    (void)done(&ask, true);
}

static void list_keys(void)
{
    struct ask ask;

    if (!sure(KEY_SMALL) || !sure(KEY_LARGE))
        return;
    begin(&ask, CLOUD_LIST, "");
    if (done(&ask, false) && (ask.entries != 2 || ask.request.more))
        fault_fail("%u of 2 keys were listed", ask.entries);
}

static void ask_all(void)
{
    put(KEY_SMALL, 1);
    put(KEY_LARGE, 1);
    read_key(KEY_SMALL, CLOUD_GET, 0, 0);
    read_key(KEY_SMALL, CLOUD_HEAD, 0, 0);
    read_key(KEY_SMALL, CLOUD_TAGS, 0, 0);
    list_keys();
    read_key(KEY_LARGE, CLOUD_GET, MIB, 2 * MIB);
    read_key(KEY_LARGE, CLOUD_GET, 0, 0);
    look_in_vain();
    put(KEY_SMALL, 2);
    remove_key(KEY_LARGE);
}

/* ---- Afterwards ---- */

/* The version of KEY that there is, whole. */
static void settle(unsigned key)
{
    struct ask ask;
    unsigned found = 0;

    begin(&ask, CLOUD_HEAD, keys[key]);
    if (cloud_start(under_test.cloud, &ask.request))
        fault_fail("no request begins after the faults");
    int rc = await(&ask);
    for (unsigned version = 1; rc == 0 && version < 4; version++)
        if (ask.size == size_of(key, version) && under_test.may[key] & 1u << version)
            found = version;
    if ((rc && rc != ERR_NOT_FOUND) || (rc == 0 && !found) || !(under_test.may[key] & 1u << found))
        fault_fail("%s afterwards: %s (%s), %llu bytes; versions %#x may be there", keys[key],
                   err_text(rc), ask.request.message, (unsigned long long)ask.size,
                   under_test.may[key]);
    under_test.may[key] = 1u << found;
}

static void check_after(void)
{
    for (unsigned key = 0; key < KEYS; key++) {
        settle(key);
        read_key(key, CLOUD_GET, 0, 0);
    }
    put(KEY_AFTER, 3);
    if (sure(KEY_AFTER) != 3)
        fault_fail("a put after the faults failed");
    read_key(KEY_AFTER, CLOUD_GET, 0, 0);
    remove_key(KEY_AFTER);
    ask_all();
    if (under_test.may[KEY_SMALL] != 4 || under_test.may[KEY_LARGE] != 1 ||
        under_test.may[KEY_AFTER] != 1)
        fault_fail("after the faults not all requests were done");
}

static void act(struct world *world, int (*make)(void))
{
    json_t *json = NULL;

    under_test.world = world;
    for (unsigned key = 0; key < KEYS; key++)
        under_test.may[key] = 1;
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (uint8_t)(i * 7 + (i >> 8) * 3 + (i >> 16));
    if (json_read(&json, "{}", 2, 0)) /* from here on jansson's memory is ours */
        fault_fail("no JSON");
    json_decref(json);
    world_arm(world);
    int rc = make();
    if (rc == 0)
        ask_all();
    else if (!is_want(rc))
        fault_fail("it cannot be made: %s", err_text(rc));
    else if (fault_is_harmless(world->way))
        fault_fail("it cannot be made, after a fault that is none: %s", err_text(rc));
    fault_disarm();
    if (rc && make())
        fault_fail("it cannot be made without faults");
    world->way = FAULT_WAYS; /* from here on all is well */
    check_after();
    cloud_destroy(&under_test.cloud);
}

static char root[160];

static int make_dir(void)
{
    const struct cloud_dir_config config = {.env = env_system(), .path = root};
    char message[256];

    return cloud_dir_create(&under_test.cloud, &config, message, sizeof message);
}

void cloud_dir_requests(struct world *world)
{
    (void)snprintf(root, sizeof root, "%s/cloud", world->root);
    act(world, make_dir);
}

static char endpoint[64];

static int make_s3(void)
{
    const struct cloud_s3_config config = {.endpoint = endpoint,
                                           .bucket = "bucket",
                                           .region = "us-east-1",
                                           .path_style = true,
                                           .download_parts = 2,
                                           .tries = 2,
                                           .part_bytes = PART};
    char message[256];

    return cloud_s3_create(&under_test.cloud, &config, message, sizeof message);
}

void cloud_s3_requests(struct world *world)
{
    if (setenv("AWS_ACCESS_KEY_ID", "a", 1) || setenv("AWS_SECRET_ACCESS_KEY", "b", 1) ||
        setenv("HOME", world->root, 1))
        fault_fail("no environment");
    (void)snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%u", bucket_start());
    under_test.s3 = true;
    act(world, make_s3);
    /* Without memory for its id, or for the abort, one stays: that is the bucket's to clear. */
    if (bucket_uploads() && world->k == 0)
        fault_fail("an upload in parts was left behind");
    bucket_stop();
}
