/*
 * The requests one after the other. The list comes first: it needs nothing that is there, so
 * whatever is wrong with the way to the cloud, with the key or with the clock shows in it. What
 * follows is passed over once the put has failed; the delete is tried after a put in any case.
 */
#include "cluster/cloud_check.h"

#include "base/text.h"
#include "cluster/cloud_meta.h"
#include "cluster/cloud_wait.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char body[] = "objstore writes and removes this to see whether it can.";

struct probe {
    struct cloud_wait wait; /* first */
    struct cloud *cloud;
    char bytes[sizeof body];
    size_t len;
    bool found; /* the pair or tag that was put */
};

struct checking {
    struct cloud_check *check;
    struct cloud *cloud;
    struct env *env;
    const atomic_bool *stop;
    struct cloud_key key;
    char etag[128];
};

static struct probe *probe_of(struct cloud_request *request)
{
    return container_of(container_of(request, struct cloud_wait, request), struct probe, wait);
}

static int on_read(struct cloud_request *request, uint64_t offset, void *buf, size_t len)
{
    (void)request;
    memcpy(buf, &body[offset], len);
    return 0;
}

static void on_data(struct cloud_request *request, const void *bytes, size_t len)
{
    struct probe *probe = probe_of(request);
    size_t room = sizeof probe->bytes - probe->len;

    memcpy(probe->bytes + probe->len, bytes, len < room ? len : room);
    probe->len += len < room ? len : room;
    cloud_consumed(probe->cloud, request, len);
}

static int on_head(struct cloud_request *request, const struct cloud_head *head)
{
    struct probe *probe = probe_of(request);

    for (size_t i = 0; i < head->pair_count; i++)
        probe->found |= text_equal_nocase(head->pairs[i].name.ptr, head->pairs[i].name.len,
                                          "usermeta-check", strlen("usermeta-check")) &&
                        head->pairs[i].value.len == 3 &&
                        memcmp(head->pairs[i].value.ptr, "yes", 3) == 0;
    return 0;
}

static void on_entry(struct cloud_request *request, const struct cloud_entry *entry)
{
    (void)request;
    (void)entry;
}

/* What to look at where step NAME ended with RC. */
static void advise(struct cloud_check_step *step, const struct cloud *cloud)
{
    static const struct {
        const char *step, *right;
    } rights[] = {{"list", "s3:ListBucket"},     {"put", "s3:PutObject and s3:PutObjectTagging"},
                  {"head", "s3:GetObject"},      {"get", "s3:GetObject"},
                  {"range", "s3:GetObject"},     {"tags", "s3:GetObjectTagging"},
                  {"delete", "s3:DeleteObject"}, {"gone", "s3:ListBucket"}};
    bool directory = strcmp(cloud->backend->name, "dir") == 0;
    const char *right = "";

    for (size_t i = 0; i < sizeof rights / sizeof *rights; i++)
        right = strcmp(rights[i].step, step->name) == 0 ? rights[i].right : right;
    switch (step->rc) {
    case ERR_PERMISSION:
        (void)snprintf(step->advice, sizeof step->advice,
                       directory ? "check who owns the directory and may write in it"
                                 : "check the access key and its secret, this machine's clock, and "
                                   "that the key's policy allows %s",
                       right);
        break;
    case ERR_NOT_FOUND:
        (void)snprintf(step->advice, sizeof step->advice,
                       "check --bucket and --region, or make the bucket");
        break;
    case ERR_TIMEOUT:
    case ERR_CLOSED:
    case ERR_AGAIN:
    case ERR_CLOUD:
        (void)snprintf(step->advice, sizeof step->advice, "%s",
                       directory
                           ? "check that the directory is there and its file system is mounted"
                           : "check --s3-endpoint and --region, name look-up, routes and proxies, "
                             "and --s3-ca-file where the server's certificate is of your own");
        break;
    case ERR_NO_SPACE:
        (void)snprintf(step->advice, sizeof step->advice, "make room there");
        break;
    case ERR_MISMATCH:
        (void)snprintf(step->advice, sizeof step->advice,
                       "what comes back is not what was put: check what lies between this node and "
                       "the cloud");
        break;
    default:
        (void)snprintf(step->advice, sizeof step->advice,
                       "check that --s3-endpoint speaks S3, and --s3-path-style");
    }
}

static bool step(struct checking *it, const char *name, struct probe *probe, int expected)
{
    struct cloud_check_step *out = &it->check->steps[it->check->count++];
    uint64_t begun = env_mono_ms(it->env);

    assert(it->check->count <= CLOUD_CHECK_STEPS);
    probe->cloud = it->cloud;
    out->name = name;
    out->done = true;
    out->rc = cloud_wait_for(it->cloud, &probe->wait, it->stop);
    out->took_ms = env_mono_ms(it->env) - begun;
    if (out->rc == expected) {
        out->rc = 0;
        return true;
    }
    if (out->rc == 0)
        out->rc = ERR_MISMATCH;
    (void)snprintf(out->message, sizeof out->message, "%s",
                   *probe->wait.request.message ? probe->wait.request.message : err_text(out->rc));
    advise(out, it->cloud);
    it->check->good = false;
    return false;
}

/* The last step brought something else than it should. */
static void misfit(struct checking *it, const char *what)
{
    struct cloud_check_step *out = &it->check->steps[it->check->count - 1];

    out->rc = ERR_MISMATCH;
    (void)snprintf(out->message, sizeof out->message, "%s", what);
    advise(out, it->cloud);
    it->check->good = false;
}

static struct cloud_request ask(const struct checking *it, enum cloud_op op)
{
    return (struct cloud_request){.op = op, .key = {it->key.text, it->key.len}};
}

static bool put(struct checking *it)
{
    static const struct cloud_pair pair = {{"usermeta-check", 14}, {"yes", 3}};
    struct probe probe = {.wait.request = ask(it, CLOUD_PUT)};
    struct cloud_request *request = &probe.wait.request;

    request->size = sizeof body - 1;
    sha256(body, sizeof body - 1, request->sha256);
    request->read = on_read;
    request->type = (struct cloud_text){"text/plain", 10};
    request->pairs = request->tags = &pair;
    request->pair_count = request->tag_count = 1;
    bool good = step(it, "put", &probe, 0);
    memcpy(it->etag, request->etag, sizeof it->etag);
    return good;
}

static void read_back(struct checking *it)
{
    struct probe head = {.wait.request = ask(it, CLOUD_HEAD)};
    struct probe get = {.wait.request = ask(it, CLOUD_GET)};
    struct probe range = {.wait.request = ask(it, CLOUD_GET)};
    struct probe tags = {.wait.request = ask(it, CLOUD_TAGS)};
    size_t size = sizeof body - 1;

    head.wait.request.head = tags.wait.request.head = on_head;
    get.wait.request.data = range.wait.request.data = on_data;
    range.wait.request.offset = 9;
    range.wait.request.length = 6;
    range.wait.request.if_match = (struct cloud_text){it->etag, (uint32_t)strlen(it->etag)};
    if (step(it, "head", &head, 0) && !head.found)
        misfit(it, "the metadata that were put are not there");
    if (step(it, "get", &get, 0) && (get.len != size || memcmp(get.bytes, body, size) != 0))
        misfit(it, "other bytes came back than were put");
    if (step(it, "range", &range, 0) && (range.len != 6 || memcmp(range.bytes, &body[9], 6) != 0))
        misfit(it, "a range brought other bytes than it should");
    if (step(it, "tags", &tags, 0) && !tags.found)
        misfit(it, "the tag that was put is not there");
}

void cloud_check_run(struct cloud_check *out, struct cloud *cloud, const char *prefix,
                     struct env *env, const atomic_bool *stop)
{
    struct checking it = {.check = out, .cloud = cloud, .env = env, .stop = stop};
    struct cloud_key begin;
    struct id128 id = ulid_make(env, env_wall_ms(env));
    char ulid[ULID_TEXT_BYTES + 1];

    *out = (struct cloud_check){.good = true};
    cloud_key_object(&begin, prefix, &id);
    begin.len -= ULID_TEXT_BYTES;
    ulid_format(ulid, &id);
    it.key.len = (uint32_t)snprintf(it.key.text, sizeof it.key.text, "%.*s.check/%s",
                                    (int)begin.len, begin.text, ulid);

    struct probe list = {
        .wait.request = {
            .op = CLOUD_LIST, .key = {begin.text, begin.len}, .max = 1, .entry = on_entry}};
    bool reached = step(&it, "list", &list, 0) || out->steps[0].rc == ERR_PERMISSION;
    if (!reached || !put(&it))
        return;
    read_back(&it);
    struct probe removed = {.wait.request = ask(&it, CLOUD_DELETE)};
    struct probe gone = {.wait.request = ask(&it, CLOUD_HEAD)};
    if (step(&it, "delete", &removed, 0))
        (void)step(&it, "gone", &gone, ERR_NOT_FOUND);
}
