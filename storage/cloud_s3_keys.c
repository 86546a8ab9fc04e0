/*
 * The credentials that requests are signed with, kept good.
 *
 * Those of the environment and of files are there from the start. A container's endpoint is asked
 * with one GET; an instance's metadata service (version 2) in three steps: PUT for a session token,
 * GET for the name of the role, GET for its credentials. They are asked for again
 * CREDENTIALS_EARLY_S before they expire, while requests still go with the old ones; and where S3
 * says that it does not know them any more. Files are then read again, so that keys can be changed
 * in a running node.
 *
 * While there are none requests wait; if asking fails they end: with ERR_AGAIN where the endpoint
 * did not answer, with ERR_PERMISSION where it refused. It may be there later: a machine's network
 * may come up after the node.
 */
#include "storage/cloud_s3_internal.h"

#include "base/container.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGAIN_MS       5000  /* between attempts that failed */
#define RENEW_MS       60000 /* S3 sends us for others at most so often */
#define ENDPOINT_MS    2000  /* these endpoints are next door */
#define SESSION_TTL    "X-aws-ec2-metadata-token-ttl-seconds: 21600"
#define SESSION_HEADER "X-aws-ec2-metadata-token: "
#define ROLE_PATH      "/latest/meta-data/iam/security-credentials/"

enum step { STEP_SESSION, STEP_ROLE, STEP_CREDENTIALS };

static void step_done(struct s3_call *call, int rc);

static const char *environment(const char *name)
{
    return getenv(name); /* NOLINT(concurrency-mt-unsafe): nobody changes it */
}

static int64_t wall_s(struct s3 *s3)
{
    return (int64_t)(env_wall_ms(s3->env) / 1000);
}

int s3_keys_find(struct s3 *s3, char *message, size_t cap)
{
    struct s3_keys *keys = &s3->keys;
    int rc = credentials_find(&keys->plan, s3->env->io, environment, message, cap);

    if (rc)
        return rc;
    s3_call_init(&keys->call, s3, NULL, 0, "GET");
    if (keys->plan.source == CREDENTIALS_ENVIRONMENT || keys->plan.source == CREDENTIALS_FILE) {
        keys->now = keys->plan.given;
        keys->good = true;
    }
    return 0;
}

void s3_keys_release(struct s3 *s3)
{
    struct s3_keys *keys = &s3->keys;

    s3_call_cancel(&keys->call);
    s3_call_release(&keys->call);
    OPENSSL_cleanse(keys, sizeof *keys);
}

/* ---- Asking ---- */

static void give_up(struct s3 *s3, int rc, const char *message)
{
    struct s3_keys *keys = &s3->keys;
    const char *where = keys->plan.source == CREDENTIALS_INSTANCE
                            ? "not in the environment, no profile, no container's endpoint; of an "
                              "instance's metadata service: "
                            : "";
    char said[CLOUD_MESSAGE_BYTES];

    keys->asking = false;
    keys->again_ms = s3->now_ms + AGAIN_MS;
    keys->rc = rc;
    memcpy(said, keys->message, sizeof said);
    (void)snprintf(keys->message, sizeof keys->message, "no credentials: %s%s", where, message);
    if (strcmp(said, keys->message) != 0) /* not at each attempt */
        log_warn("cloud: %s", keys->message);
}

/* The header that a container's endpoint wants, from the file in which it may change. */
static int container_header(struct s3 *s3)
{
    struct s3_keys *keys = &s3->keys;
    const struct credentials_plan *plan = &keys->plan;
    size_t len;
    char *text;

    keys->header[0] = '\0';
    if (!plan->authorization_file[0]) {
        if (plan->authorization[0])
            (void)snprintf(keys->header, sizeof keys->header, "Authorization: %s",
                           plan->authorization);
        return 0;
    }
    int rc = io_read_all(s3->env->io, plan->authorization_file, CREDENTIALS_TOKEN_BYTES - 1, &text,
                         &len);
    if (rc)
        return rc;
    size_t used = strcspn(text, "\r\n");
    (void)snprintf(keys->header, sizeof keys->header, "Authorization: %.*s", (int)used, text);
    OPENSSL_cleanse(text, len);
    free(text);
    return 0;
}

static void ask(struct s3 *s3, enum step step)
{
    struct s3_keys *keys = &s3->keys;
    struct s3_call *call = &keys->call;
    bool instance = keys->plan.source == CREDENTIALS_INSTANCE;

    keys->step = step;
    s3_call_release(call);
    s3_call_init(call, s3, NULL, 0, step == STEP_SESSION ? "PUT" : "GET");
    if (!instance)
        (void)snprintf(keys->url, sizeof keys->url, "%s", keys->plan.url);
    else if (step == STEP_SESSION)
        (void)snprintf(keys->url, sizeof keys->url, "%s/latest/api/token", keys->plan.url);
    else
        (void)snprintf(keys->url, sizeof keys->url, "%s" ROLE_PATH "%s", keys->plan.url,
                       step == STEP_ROLE ? "" : keys->role);
    if (step == STEP_SESSION)
        (void)snprintf(keys->header, sizeof keys->header, SESSION_TTL);
    else if (instance)
        (void)snprintf(keys->header, sizeof keys->header, SESSION_HEADER "%s", keys->session);
    call->url = keys->url;
    call->extra = keys->header[0] ? keys->header : NULL;
    call->repeatable = true;
    call->patience_ms = ENDPOINT_MS;
    call->done = step_done;
    s3_call_start(call);
}

static void begin_asking(struct s3 *s3)
{
    struct s3_keys *keys = &s3->keys;

    /* Those that just expired are asked for at once; after a failure, or while they are good, not.
     */
    if (keys->asking || (s3->now_ms < keys->again_ms && (keys->good || keys->rc)))
        return;
    keys->asking = true;
    if (keys->plan.source == CREDENTIALS_INSTANCE) {
        ask(s3, STEP_SESSION);
        return;
    }
    int rc = container_header(s3);
    if (rc)
        give_up(s3, ERR_PERMISSION,
                "the file of AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE "
                "cannot be read");
    else
        ask(s3, STEP_CREDENTIALS);
}

/* One line of printable ASCII. */
static bool take_line(char *out, size_t cap, const struct buf *body)
{
    size_t len = 0;

    while (len < body->len && body->data[len] > 0x20 && body->data[len] < 0x7f)
        len++;
    if (len == 0 || len >= cap || (len < body->len && !strchr("\r\n", body->data[len])))
        return false;
    memcpy(out, body->data, len);
    out[len] = '\0';
    return true;
}

static int take_credentials(struct s3 *s3, const struct buf *body)
{
    struct s3_keys *keys = &s3->keys;
    struct credentials fresh;
    int rc = credentials_json(&fresh, body->data ? body->data : "", body->len);

    if (rc)
        return rc;
    credentials_wipe(&keys->now);
    keys->now = fresh;
    credentials_wipe(&fresh);
    keys->good = true;
    keys->asking = false;
    keys->rc = 0;
    keys->message[0] = '\0';
    /* Those that are about to expire already are not asked for in every turn. */
    keys->again_ms = s3->now_ms + AGAIN_MS;
    return 0;
}

static void step_done(struct s3_call *call, int rc)
{
    struct s3 *s3 = call->s3;
    struct s3_keys *keys = &s3->keys;
    struct buf *body = &call->answer.body;

    if (rc) {
        bool refused = call->answer.complete && call->answer.status < 500;
        char message[CLOUD_MESSAGE_BYTES];

        (void)snprintf(message, sizeof message, "%s", call->verdict.message);
        give_up(s3, refused ? ERR_PERMISSION : ERR_AGAIN, message);
    } else if (keys->step == STEP_SESSION) {
        if (take_line(keys->session, sizeof keys->session, body))
            ask(s3, STEP_ROLE);
        else
            give_up(s3, ERR_PERMISSION, "the metadata service gives no session token");
    } else if (keys->step == STEP_ROLE) {
        if (take_line(keys->role, sizeof keys->role, body) && !strpbrk(keys->role, "/?#"))
            ask(s3, STEP_CREDENTIALS);
        else
            give_up(s3, ERR_PERMISSION, "the instance has no role");
    } else {
        rc = take_credentials(s3, body);
        if (rc)
            give_up(s3, rc == ERR_NO_MEMORY ? ERR_AGAIN : ERR_PERMISSION,
                    rc == ERR_NO_MEMORY ? "no memory" : "the endpoint's answer makes no sense");
    }
    if (keys->step == STEP_CREDENTIALS && body->data)
        OPENSSL_cleanse(body->data, body->len);
}

enum s3_keys_state s3_keys_ready(struct s3 *s3)
{
    struct s3_keys *keys = &s3->keys;
    int64_t expires_s = keys->now.expires_s, now_s = wall_s(s3);

    if (keys->good && expires_s > 0 && now_s >= expires_s)
        keys->good = false;
    if (!keys->good || (expires_s > 0 && now_s >= expires_s - CREDENTIALS_EARLY_S))
        begin_asking(s3);
    if (keys->good)
        return S3_KEYS_GOOD;
    assert(keys->asking || keys->rc);
    return keys->asking ? S3_KEYS_ASKED : S3_KEYS_NONE;
}

static bool read_files_again(struct s3 *s3)
{
    struct s3_keys *keys = &s3->keys;
    struct credentials_plan plan;
    char message[CLOUD_MESSAGE_BYTES];
    int rc = credentials_find(&plan, s3->env->io, environment, message, sizeof message);
    bool other = rc == 0 && plan.source == CREDENTIALS_FILE &&
                 (strcmp(plan.given.access_key, keys->now.access_key) != 0 ||
                  strcmp(plan.given.secret_key, keys->now.secret_key) != 0 ||
                  strcmp(plan.given.token, keys->now.token) != 0);

    if (other)
        keys->now = plan.given;
    OPENSSL_cleanse(&plan, sizeof plan);
    return other;
}

bool s3_keys_renew(struct s3 *s3)
{
    struct s3_keys *keys = &s3->keys;

    if (keys->plan.source == CREDENTIALS_ENVIRONMENT)
        return false;
    if (keys->plan.source == CREDENTIALS_FILE)
        return read_files_again(s3);
    if (keys->asking)
        return true;
    if (keys->renewed_ms > 0 && s3->now_ms < keys->renewed_ms + RENEW_MS)
        return false;
    keys->renewed_ms = s3->now_ms;
    keys->again_ms = 0;
    keys->good = false;
    return true;
}
