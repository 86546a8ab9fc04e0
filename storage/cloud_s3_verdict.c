/*
 * What an exchange came to: the error code that the caller gets, whether a further try can help and
 * would be safe, and one line for the operator. From libcurl's code where there is no whole answer,
 * else from the status and the code in S3's XML.
 *
 * The line names hosts, buckets and S3's own words, which never hold a secret; where S3 would quote
 * what was signed (SignatureDoesNotMatch) it has words of ours instead.
 */
#include "storage/cloud_s3_internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKEW_S 600 /* S3 refuses 900; two clocks so far apart are worth a word before that */

struct outcome {
    int rc;
    enum s3_again again;
};

static __attribute__((format(printf, 3, 4))) void
say(struct s3_verdict *out, struct outcome outcome, const char *format, ...)
{
    va_list args;

    out->rc = outcome.rc;
    out->again = outcome.again;
    va_start(args, format);
    (void)vsnprintf(out->message, sizeof out->message, format, args);
    va_end(args);
}

void s3_verdict_set(struct s3_verdict *out, int rc, enum s3_again again, const char *format, ...)
{
    va_list args;

    *out = (struct s3_verdict){.rc = rc, .again = again};
    va_start(args, format);
    (void)vsnprintf(out->message, sizeof out->message, format, args);
    va_end(args);
}

#define OUTCOME(rc, again)                                                                         \
    (struct outcome)                                                                               \
    {                                                                                              \
        (rc), (again)                                                                              \
    }

/* ---- No whole answer ---- */

static void judge_transport(struct s3_verdict *out, const struct s3_call *call, CURLcode code)
{
    const char *why = call->curl_message[0] ? call->curl_message : curl_easy_strerror(code);
    const char *host = call->host;

    switch (code) {
    case CURLE_WRITE_ERROR:
        if (call->refused == 0 || call->refused == ERR_INVALID)
            say(out, OUTCOME(ERR_INVALID, S3_NEVER), "%s answers what no S3 would", host);
        else
            say(out, OUTCOME(call->refused, S3_NEVER), "not wanted: %s", err_text(call->refused));
        break;
    case CURLE_ABORTED_BY_CALLBACK:
        say(out, OUTCOME(call->feed && call->feed->rc ? call->feed->rc : ERR_CLOSED, S3_NEVER),
            "the body could not be read here: %s",
            err_text(call->feed && call->feed->rc ? call->feed->rc : ERR_CLOSED));
        break;
    case CURLE_OUT_OF_MEMORY:
        say(out, OUTCOME(ERR_NO_MEMORY, S3_NEVER), "no memory for the cloud");
        break;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        say(out, OUTCOME(ERR_CLOSED, S3_UNSENT), "%s is not known: %s", host, why);
        break;
    case CURLE_COULDNT_CONNECT:
        say(out, OUTCOME(ERR_CLOSED, S3_UNSENT), "no connection to %s: %s", host, why);
        break;
    case CURLE_OPERATION_TIMEDOUT: /* we limit the connecting alone */
        say(out, OUTCOME(ERR_TIMEOUT, S3_UNSENT), "no connection to %s in time: %s", host, why);
        break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
        say(out, OUTCOME(ERR_CLOSED, S3_NEVER), "the certificate of %s is not trusted: %s", host,
            why);
        break;
    case CURLE_SSL_CACERT_BADFILE:
        say(out, OUTCOME(ERR_CLOSED, S3_NEVER), "the file with trusted certificates: %s", why);
        break;
    case CURLE_SSL_CONNECT_ERROR:
        say(out, OUTCOME(ERR_CLOSED, S3_UNSENT), "no TLS with %s: %s", host, why);
        break;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        say(out, OUTCOME(ERR_INVALID, S3_NEVER), "no address: %s", why);
        break;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_HTTP2:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_FILESIZE_EXCEEDED:
        say(out, OUTCOME(ERR_INVALID, S3_LOST), "%s answers what no S3 would: %s", host, why);
        break;
    default: /* reset, cut, nothing at all */
        say(out, OUTCOME(ERR_CLOSED, S3_LOST), "the connection to %s broke: %s", host, why);
        break;
    }
}

/* ---- S3's own codes ---- */

enum told { REFUSED, RENEW, NO_BUCKET, NO_KEY, COME_BACK, SLOW, CUT, TIMED_OUT, DAMAGED, MOVED };

static const struct told_code {
    const char *code;
    enum told told;
    const char *message; /* NULL: S3's */
} codes[] = {
    {"InvalidAccessKeyId", RENEW, "the access key is not known there"},
    {"XAdminUserNotFound", RENEW, "the access key is not known there"}, /* versitygw's */
    {"ExpiredToken", RENEW, "the session token has expired"},
    {"TokenRefreshRequired", RENEW, "the session token has expired"},
    {"InvalidToken", RENEW, "the session token is not valid there"},
    {"SignatureDoesNotMatch", REFUSED, "the secret key is wrong: signatures do not match"},
    {"AccessDenied", REFUSED, NULL},
    {"AllAccessDisabled", REFUSED, NULL},
    {"AccountProblem", REFUSED, NULL},
    {"NoSuchBucket", NO_BUCKET, NULL},
    {"NoSuchKey", NO_KEY, NULL},
    {"NoSuchVersion", NO_KEY, NULL},
    {"NoSuchUpload", NO_KEY, NULL},
    {"NoSuchTagSet", NO_KEY, NULL},
    {"SlowDown", SLOW, NULL},
    {"SlowDownRead", SLOW, NULL},
    {"SlowDownWrite", SLOW, NULL},
    {"RequestLimitExceeded", SLOW, NULL},
    {"TooManyRequests", SLOW, NULL},
    {"OperationAborted", COME_BACK, NULL},
    {"ConditionalRequestConflict", COME_BACK, NULL},
    {"RequestTimeout", TIMED_OUT, NULL},
    {"IncompleteBody", CUT, NULL},
    {"XAmzContentSHA256Mismatch", DAMAGED, NULL},
    {"BadDigest", DAMAGED, NULL},
    {"AuthorizationHeaderMalformed", MOVED, NULL},
    {"IllegalLocationConstraintException", MOVED, NULL},
    {"PermanentRedirect", MOVED, NULL},
    {"TemporaryRedirect", MOVED, NULL},
};

static const struct told_code *find_code(const char *code)
{
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (strcmp(codes[i].code, code) == 0)
            return &codes[i];
    }
    return NULL;
}

static void say_skew(struct s3_verdict *out, const struct s3_call *call, int64_t skew)
{
    say(out, OUTCOME(ERR_PERMISSION, S3_NEVER),
        "the clock of this machine is %lld s %s that of %s: requests are refused",
        (long long)llabs(skew), skew > 0 ? "ahead of" : "behind", call->host);
}

static void say_code(struct s3_verdict *out, const struct s3_call *call,
                     const struct told_code *told, const struct s3_error *error)
{
    static const struct outcome outcomes[] = {
        [REFUSED] = {ERR_PERMISSION, S3_NEVER},  [RENEW] = {ERR_PERMISSION, S3_KEYS},
        [NO_BUCKET] = {ERR_NOT_FOUND, S3_NEVER}, [NO_KEY] = {ERR_NOT_FOUND, S3_NEVER},
        [COME_BACK] = {ERR_AGAIN, S3_ANSWERED},  [SLOW] = {ERR_AGAIN, S3_ANSWERED},
        [CUT] = {ERR_CLOSED, S3_ANSWERED},       [TIMED_OUT] = {ERR_TIMEOUT, S3_ANSWERED},
        [DAMAGED] = {ERR_MISMATCH, S3_ANSWERED}, [MOVED] = {ERR_INVALID, S3_REGION},
    };
    const char *words = told->message ? told->message : error->message;

    if (told->told == NO_BUCKET)
        say(out, outcomes[NO_BUCKET], "there is no bucket '%.*s' at %s", (int)call->bucket.len,
            call->bucket.ptr, call->host);
    else
        say(out, outcomes[told->told], "%s refuses %s: %s (%s)", call->host, call->method, words,
            error->code);
    if (told->told == SLOW)
        out->wait_ms = S3_SLOW_DOWN_MS;
}

/* ---- By status, where the code says nothing ---- */

/* Why a HEAD is refused no code says: keys from a file may have been replaced there. */
static enum s3_again again_for_head(const struct s3_call *call, bool head)
{
    return head && call->s3->keys.plan.source == CREDENTIALS_FILE ? S3_KEYS : S3_NEVER;
}

/* Whether the answer names another region than the one that was asked. */
static bool is_elsewhere(const struct s3_call *call)
{
    const char *asked = call->region[0] ? call->region : call->s3->region;

    return call->answer.region[0] && strcmp(call->answer.region, asked) != 0;
}

static void judge_status(struct s3_verdict *out, const struct s3_call *call,
                         const struct s3_error *error)
{
    long status = call->answer.status;
    const char *words = error->message[0] ? error->message : "it does not say why";
    bool head = strcmp(call->method, "HEAD") == 0;
    struct outcome outcome;

    if (status >= 300 && status < 400)
        outcome = OUTCOME(ERR_INVALID, S3_REGION);
    else if (status == 401 || status == 403)
        outcome = OUTCOME(ERR_PERMISSION, again_for_head(call, head));
    else if (status == 404 && head) /* any other 404 of S3's bears a code that we know */
        outcome = OUTCOME(ERR_NOT_FOUND, S3_NEVER);
    else if (status == 408 || status == 425)
        outcome = OUTCOME(ERR_TIMEOUT, S3_ANSWERED);
    else if (status == 412)
        outcome = OUTCOME(ERR_PRECONDITION, S3_NEVER);
    else if (status == 416)
        outcome = OUTCOME(ERR_RANGE, S3_NEVER);
    else if (status == 429 || status == 503)
        outcome = OUTCOME(ERR_AGAIN, S3_ANSWERED);
    else if (status >= 500 && status != 501 && status != 505)
        outcome = OUTCOME(ERR_AGAIN, S3_LOST);
    else if (status == 400 && head && is_elsewhere(call))
        outcome = OUTCOME(ERR_INVALID, S3_REGION);
    else if (status == 400 && head) /* so S3 answers to a session that has expired */
        outcome = OUTCOME(ERR_INVALID, again_for_head(call, head));
    else
        outcome = OUTCOME(ERR_INVALID, S3_NEVER);
    say(out, outcome, "%s answers %s with %ld: %s%s%s%s", call->host, call->method, status, words,
        error->code[0] ? " (" : "", error->code, error->code[0] ? ")" : "");
}

static void judge_answer(struct s3_verdict *out, const struct s3_call *call, int64_t now_s)
{
    const struct s3_answer *answer = &call->answer;
    struct s3_error error = {.code = ""};

    if (answer->body.len > 0 &&
        s3_xml_error(&error, answer->body.data, answer->body.len) == ERR_NO_MEMORY)
        error = (struct s3_error){.code = ""}; /* then the status has to do */
    (void)snprintf(out->code, sizeof out->code, "%s", error.code);
    int64_t skew = answer->date_s > 0 ? now_s - answer->date_s : 0;
    const struct told_code *told = find_code(error.code);
    bool refused = answer->status == 403 || answer->status == 401;

    if (strcmp(error.code, "RequestTimeTooSkewed") == 0 ||
        (refused && !told && llabs(skew) > SKEW_S))
        say_skew(out, call, skew);
    else if (told)
        say_code(out, call, told, &error);
    else
        judge_status(out, call, &error);
    if (answer->retry_after_s > 0 && out->rc == ERR_AGAIN)
        out->wait_ms = answer->retry_after_s * 1000;
}

void s3_judge(struct s3_verdict *out, const struct s3_call *call, CURLcode code, int64_t now_s)
{
    *out = (struct s3_verdict){.rc = 0, .again = S3_NEVER};

    /* A refusal whose connection was cut off behind it is a refusal: the server did not want the
     * rest of the body. */
    if (call->answer.complete && call->answer.status / 100 != 2 &&
        code != CURLE_ABORTED_BY_CALLBACK && code != CURLE_OUT_OF_MEMORY)
        judge_answer(out, call, now_s);
    else if (code != CURLE_OK)
        judge_transport(out, call, code);
    else if (!call->answer.complete)
        say(out, OUTCOME(ERR_INVALID, S3_LOST), "%s gives no answer of HTTP", call->host);
    assert(out->rc <= 0);
}
