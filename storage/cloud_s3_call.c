/*
 * One HTTP exchange with S3, to its end: repeated where that is safe and may help.
 *
 *   start ─► feeding ─► waiting ─► sent ─► done
 *      (its body's first bytes) (a connection) │
 *               ▲────────── resting ◄──────────┘ another try, after a pause
 *
 * A further try follows what never reached the cloud, and what the cloud said that it did not do;
 * and where the call is repeatable, what may have been done. Pauses have full jitter (a random part
 * of a doubling bound), or last as long as the cloud asked for; if it asked for longer than we like
 * to hold a request, its owner hears so. Once the owner has seen some of an answer there is no
 * further try here. Learning the bucket's region or host, or getting other credentials, costs no
 * try.
 *
 * No deadline is set on the whole: bodies may take as long as they need, while something moves.
 */
#include "storage/cloud_s3_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_MS 200 /* between looks for silent calls */

void s3_call_init(struct s3_call *call, struct s3 *s3, struct s3_work *work, enum cloud_op op,
                  const char *method)
{
    *call = (struct s3_call){.s3 = s3, .work = work, .op = op, .method = method};
    call->get = op == CLOUD_GET;
    sha256("", 0, call->sha256);
    s3_answer_reset(&call->answer);
}

void s3_call_query(struct s3_call *call, const char *name, struct cloud_text value)
{
    assert(call->query_count < S3_QUERY);
    call->query[call->query_count++] = (struct cloud_pair){s3_text(name), value};
}

static void move(struct s3_call *call, struct s3_calls *list)
{
    if (call->list)
        TAILQ_REMOVE(call->list, call, link);
    call->list = list;
    if (list && call->url)
        TAILQ_INSERT_HEAD(list, call, link);
    else if (list)
        TAILQ_INSERT_TAIL(list, call, link);
}

static void begin_try(struct s3_call *call)
{
    struct s3 *s3 = call->s3;

    s3_answer_reset(&call->answer);
    call->refused = 0;
    call->paused = call->starved = false;
    if (call->feed && call->feed->end > call->feed->first) {
        move(call, &s3->feeding);
        s3_feed_begin(call->feed, call);
    } else {
        move(call, &s3->waiting);
    }
}

static void reset(struct s3_call *call)
{
    assert(!call->list && !call->easy && call->done);
    call->tries = call->redirects = 0;
    call->given = call->renewed = false;
    call->region[0] = call->elsewhere[0] = '\0';
    call->verdict = (struct s3_verdict){.rc = 0, .again = S3_NEVER};
}

void s3_call_start(struct s3_call *call)
{
    reset(call);
    begin_try(call);
}

uint32_t s3_pause_ms(struct s3 *s3, unsigned tries)
{
    uint64_t bound = (uint64_t)S3_BACKOFF_MS << (tries > 10 ? 10 : tries > 0 ? tries - 1 : 0);

    return (uint32_t)s3_random(s3, bound < S3_BACKOFF_MAX_MS ? bound : S3_BACKOFF_MAX_MS);
}

void s3_call_start_later(struct s3_call *call, uint32_t pause_ms)
{
    reset(call);
    call->due_ms = call->s3->now_ms + pause_ms;
    move(call, &call->s3->resting);
}

/* Take it from libcurl; the handle is kept for the next one. */
static void unsend(struct s3_call *call)
{
    struct s3 *s3 = call->s3;

    if (!call->easy)
        return;
    (void)curl_multi_remove_handle(s3->multi, call->easy);
    curl_easy_reset(call->easy);
    if (s3->spare_count < S3_CONNECTIONS)
        s3->spare[s3->spare_count++] = call->easy;
    else
        curl_easy_cleanup(call->easy);
    call->easy = NULL;
    s3_send_release(call);
    assert(s3->connections > 0);
    s3->connections--;
    if (call->get)
        s3->connections_get--;
}

void s3_call_cancel(struct s3_call *call)
{
    if (!call->s3)
        return;
    unsend(call);
    move(call, NULL);
    if (call->feed)
        call->feed->call = NULL;
}

void s3_call_release(struct s3_call *call)
{
    assert(!call->list && !call->easy);
    s3_answer_release(&call->answer);
}

void s3_call_resume(struct s3_call *call)
{
    if (!call->easy || !call->paused)
        return;
    call->paused = false;
    call->progress_ms = call->s3->now_ms;
    /* May call `data` from within, and so pause again. */
    (void)curl_easy_pause(call->easy, call->starved ? CURLPAUSE_SEND : CURLPAUSE_CONT);
}

/* The end of a call without an exchange. */
static void fail(struct s3_call *call, int rc, const char *message)
{
    unsend(call);
    move(call, NULL);
    s3_verdict_set(&call->verdict, rc, S3_NEVER, "%s", message);
    call->done(call, rc);
}

void s3_call_fed(struct s3_call *call)
{
    if (call->list == &call->s3->feeding) {
        if (call->feed->rc)
            fail(call, call->feed->rc, "the body could not be read here");
        else
            move(call, &call->s3->waiting);
    } else if (call->starved && call->easy) {
        call->starved = false;
        (void)curl_easy_pause(call->easy, call->paused ? CURLPAUSE_RECV : CURLPAUSE_CONT);
    }
}

/* ---- Sending ---- */

static int send_now(struct s3_call *call)
{
    struct s3 *s3 = call->s3;

    call->easy = s3->spare_count > 0 ? s3->spare[--s3->spare_count] : curl_easy_init();
    if (!call->easy)
        return ERR_NO_MEMORY;
    s3->connections++;
    if (call->get)
        s3->connections_get++;
    call->tries++;
    call->progress_ms = s3->now_ms;
    int rc = s3_send_prepare(call);
    if (rc == 0 && curl_multi_add_handle(s3->multi, call->easy) != CURLM_OK)
        rc = ERR_NO_MEMORY;
    if (rc)
        return rc;
    move(call, &s3->sent);
    if (call->op)
        s3_count(s3, call->op, false);
    return 0;
}

/* The first that may go; NULL: none. Those that ask for credentials stand first, and need none. */
static struct s3_call *next_to_go(struct s3 *s3)
{
    struct s3_call *call;

    TAILQ_FOREACH(call, &s3->waiting, link)
    {
        /* cppcheck-suppress uninitvar; the macro sets it */
        if (call->url)
            return call;
        if (s3->connections >= S3_CONNECTIONS)
            return NULL;
        if (call->get && s3->connections_get >= S3_CONNECTIONS_GET)
            continue;
        if (s3_keys_ready(s3) != S3_KEYS_ASKED)
            return call;
        call = TAILQ_FIRST(&s3->waiting);
        return call->url ? call : NULL;
    }
    return NULL;
}

void s3_calls_go(struct s3 *s3)
{
    struct s3_call *call;

    while ((call = next_to_go(s3))) {
        if (!call->url && s3_keys_ready(s3) == S3_KEYS_NONE) {
            fail(call, s3->keys.rc, s3->keys.message);
            continue;
        }
        int rc = send_now(call);
        if (rc)
            fail(call, rc, "no memory for the cloud, or a name that is too long for an address");
    }
}

/* ---- After a try ---- */

bool s3_region_fine(const char *region)
{
    size_t len = strlen(region);

    return len > 0 && len < CREDENTIALS_REGION_BYTES &&
           strspn(region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") ==
               len;
}

/* Scheme and host of URL into THERE; never from TLS to none. */
static bool take_location(char there[S3_HOST_BYTES], const struct s3_call *call, const char *url)
{
    size_t scheme = strncmp(url, "https://", 8) == 0 ? 8 : strncmp(url, "http://", 7) == 0 ? 7 : 0;
    size_t host = strcspn(url + scheme, "/?#");

    if (scheme == 0 || host == 0 || (call->tls && scheme == 7) || scheme + host >= S3_HOST_BYTES ||
        memchr(url + scheme, '@', host))
        return false;
    memcpy(there, url, scheme + host);
    there[scheme + host] = '\0';
    return true;
}

/* Where the cloud says that the bucket lives; false: nothing new was learned. */
static bool learn_region(struct s3_call *call)
{
    struct s3 *s3 = call->s3;
    const struct s3_answer *answer = &call->answer;
    struct s3_error error = {.code = ""};
    bool own = call->bucket.len == strlen(s3->bucket_name) &&
               memcmp(call->bucket.ptr, s3->bucket_name, call->bucket.len) == 0;
    const char *known = call->region[0] ? call->region : s3->region;
    bool learned = false;

    if (call->redirects++ >= S3_REDIRECTS)
        return false;
    if (answer->body.len > 0 && s3_xml_error(&error, answer->body.data, answer->body.len))
        error.region[0] = '\0';
    const char *region = answer->region[0] ? answer->region : error.region;
    if (region[0] && strcmp(region, known) != 0 && s3_region_fine(region)) {
        (void)snprintf(call->region, sizeof call->region, "%s", region);
        if (own)
            (void)snprintf(s3->region, sizeof s3->region, "%s", region);
        learned = true;
    }
    /* AWS's hosts follow from the region, but for the days in which a new bucket's name is not
     * known everywhere yet (307). */
    char there[S3_HOST_BYTES];
    if (answer->status >= 300 && answer->location[0] && (!learned || s3->endpoint[0]) &&
        take_location(there, call, answer->location) && strcmp(there, call->elsewhere) != 0) {
        (void)snprintf(call->elsewhere, sizeof call->elsewhere, "%s", there);
        if (own && (answer->status == 301 || answer->status == 308))
            (void)snprintf(s3->elsewhere, sizeof s3->elsewhere, "%s", there);
        learned = true;
    }
    return learned;
}

/* Whether another try may help and is safe, and after which pause. */
static bool may_try_again(struct s3_call *call, uint32_t *pause_ms)
{
    struct s3 *s3 = call->s3;
    const struct s3_verdict *verdict = &call->verdict;

    *pause_ms = 0;
    if (call->given || call->last || verdict->rc == 0)
        return false;
    if (verdict->again == S3_REGION)
        return learn_region(call);
    if (verdict->again == S3_KEYS) {
        bool first = !call->renewed;

        call->renewed = true;
        return first && !call->url && s3_keys_renew(s3);
    }
    if (verdict->again == S3_NEVER || (verdict->again == S3_LOST && !call->repeatable) ||
        call->tries >= s3->tries || (verdict->rc == ERR_MISMATCH && call->tries >= 2))
        return false;
    if (verdict->wait_ms > S3_PATIENCE_MS)
        return false;
    *pause_ms = verdict->wait_ms + s3_pause_ms(s3, call->tries);
    return true;
}

/* The server closed a connection that it had kept while we began to use it: that says nothing about
 * it, and the next try needs no pause. */
static bool was_stale(const struct s3_call *call, CURLcode code)
{
    long fresh = 1;

    if (code != CURLE_GOT_NOTHING && code != CURLE_SEND_ERROR && code != CURLE_RECV_ERROR &&
        code != CURLE_SEND_FAIL_REWIND)
        return false;
    (void)curl_easy_getinfo(call->easy, CURLINFO_NUM_CONNECTS, &fresh);
    return fresh == 0 && call->answer.status == 0;
}

static void settle(struct s3_call *call, bool stale)
{
    struct s3 *s3 = call->s3;
    uint32_t pause_ms;

    s3_count_bytes(s3, call->sent_bytes, 0);
    if (call->op && (call->answer.status == 0 || call->answer.status >= 500))
        s3_count(s3, call->op, true);
    unsend(call);
    move(call, NULL);
    if (!may_try_again(call, &pause_ms)) {
        call->done(call, call->verdict.rc);
        return;
    }
    if (call->op)
        s3_count_retry(s3);
    if (stale && call->tries == 1)
        pause_ms = 0;
    call->due_ms = s3->now_ms + pause_ms;
    move(call, &s3->resting);
}

void s3_call_ended(struct s3_call *call, CURLcode code)
{
    struct s3 *s3 = call->s3;
    bool stale = was_stale(call, code);

    assert(call->list == &s3->sent);
    s3_judge(&call->verdict, call, code, (int64_t)(env_wall_ms(s3->env) / 1000));
    settle(call, stale);
}

/* ---- The clock ---- */

static void give_up(struct s3_call *call)
{
    s3_verdict_set(&call->verdict, ERR_TIMEOUT, S3_LOST, "%s was silent for too long", call->host);
    settle(call, false);
}

uint64_t s3_calls_tick(struct s3 *s3)
{
    uint64_t next_ms = s3->now_ms + 60000;
    struct s3_call *call, *after;

    for (call = TAILQ_FIRST(&s3->resting); call; call = after) {
        after = TAILQ_NEXT(call, link);
        if (call->due_ms <= s3->now_ms)
            begin_try(call);
        else if (call->due_ms < next_ms)
            next_ms = call->due_ms;
    }
    if (!TAILQ_EMPTY(&s3->sent) && next_ms > s3->now_ms + LOOK_MS)
        next_ms = s3->now_ms + LOOK_MS;
    if (s3->now_ms < s3->looked_ms + LOOK_MS)
        return next_ms;
    s3->looked_ms = s3->now_ms;
    /* Ending one may end others of its work: begin anew after each. */
    for (bool found = true; found;) {
        found = false;
        TAILQ_FOREACH(call, &s3->sent, link)
        {
            uint32_t bound = call->patience_ms ? call->patience_ms : s3->stall_ms;

            if (!call->paused && !call->starved && s3->now_ms >= call->progress_ms + bound) {
                found = true;
                give_up(call);
                break;
            }
        }
    }
    return next_ms;
}
