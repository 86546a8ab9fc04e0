/*
 * What the files of the S3 backend share. Everything here belongs to the cloud's thread, unless it
 * says otherwise.
 *
 *   work  one cloud_request: which exchanges it takes, and what its owner gets
 *   call  one HTTP exchange of it: signed, sent, repeated where that is safe
 *   feed  the bytes of a body on their way from the owner into a call
 */
#ifndef STORAGE_CLOUD_S3_INTERNAL_H
#define STORAGE_CLOUD_S3_INTERNAL_H

#include "base/buf.h"
#include "base/env.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pool.h"
#include "storage/cloud_credentials.h"
#include "storage/cloud_s3.h"
#include "storage/s3_xml.h"
#include "storage/sigv4.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#define S3_CONNECTIONS     64 /* at once … */
#define S3_CONNECTIONS_GET 48 /* … of which readers that are slow may hold so many */
#define S3_PART_BYTES      (16 * MIB)
#define S3_PARTS           10000 /* S3's limit */
#define S3_PARTS_AT_ONCE   4
#define S3_OBJECT_BYTES    (5 * 1024 * GIB) /* S3's limit */
#define S3_FEED_BYTES      (256 * KIB)      /* read at once; a call has two of them */
#define S3_RANGE_BYTES     (4 * MIB)        /* of a download in parts */
#define S3_AHEAD_BYTES     (128 * MIB)      /* that all downloads in parts may hold */
#define S3_TRIES           4
#define S3_BACKOFF_MS      100 /* the first pause is up to this, doubled up to … */
#define S3_BACKOFF_MAX_MS  10000
#define S3_PATIENCE_MS     5000 /* a longer Retry-After is the caller's to keep */
#define S3_SLOW_DOWN_MS    1000 /* asked to slow down, but not for how long */
#define S3_CONNECT_MS      10000
#define S3_STALL_MS        30000
#define S3_COMPLETE_MS     300000 /* putting the parts together may take the cloud so long */
#define S3_FAREWELL_MS     3000   /* for the last aborts when the cloud is closed */
#define S3_ABORTS          4   /* of one upload, whose last parts may arrive after an abort … */
#define S3_ABORT_PAUSE_MS  300 /* … between them */
#define S3_ANSWER_BYTES    (8 * MIB)  /* of XML: 1,000 keys of 1 KiB, each byte as "%XX" */
#define S3_PAIRS_BYTES     (16 * KIB) /* of metadata, as received */
#define S3_REDIRECTS       3
#define S3_QUERY           6
#define S3_UPLOAD_ID_BYTES 1024
#define S3_HOST_BYTES      300
#define S3_POOL_THREADS    4

struct s3;
struct s3_call;
struct s3_work;

/* ---- Answers ---- */

struct s3_answer {
    long status;
    uint64_t length; /* Content-Length, for a HEAD the object's */
    bool has_length, has_range;
    uint64_t range_first, range_last, range_total;
    int64_t date_s, modified_s;
    uint32_t retry_after_s;
    unsigned tag_count;
    char etag[128], type[256], region[CREDENTIALS_REGION_BYTES], location[512];
    struct buf text; /* of the pairs */
    struct cloud_pair pairs[LIMIT_CLOUD_PAIRS];
    size_t pair_count;
    struct buf body; /* what is not given to `data`: errors, lists */
    bool complete;   /* its header is */
    bool incomplete; /* … but for some of its pairs, for which there was no memory */
};

/* Whether an exchange that failed may be tried again, and what is known of it. */
enum s3_again {
    S3_NEVER,    /* it would fail again */
    S3_UNSENT,   /* it never reached the cloud */
    S3_ANSWERED, /* the cloud said that it did not do it */
    S3_LOST,     /* it may have been done */
    S3_REGION,   /* elsewhere: the region or host was learned */
    S3_KEYS,     /* with other credentials */
};

/* What came of one try. */
struct s3_verdict {
    int rc;
    enum s3_again again;
    uint32_t wait_ms; /* the cloud asked for it */
    char message[CLOUD_MESSAGE_BYTES];
    char code[64]; /* S3's, for those who know what to do about it */
};

/* ---- Calls ---- */

struct s3_feed;

TAILQ_HEAD(s3_calls, s3_call);

struct s3_call {
    TAILQ_ENTRY(s3_call) link;
    struct s3_calls *list; /* where it is; NULL: not under way */
    struct s3 *s3;

    /* The owner's: from s3_call_start until `done`, or s3_call_cancel. */
    struct s3_work *work; /* whose; NULL: the backend's own */
    enum cloud_op op;     /* what it counts as; 0: as nothing */
    const char *method;
    struct cloud_text bucket, key; /* lent; key empty: the bucket itself */
    struct cloud_pair query[S3_QUERY];
    size_t query_count;
    const char *url;   /* of the credentials' endpoints: as it is, and not signed; else NULL */
    const char *extra; /* with `url`: a header; NULL: none */
    char range[64];
    struct cloud_text if_match;
    const struct cloud_request *describe; /* its type, pairs and tags are sent */
    uint8_t sha256[SHA256_BYTES];         /* of the body */
    bool has_body;
    struct s3_feed *feed;   /* the body, … */
    struct cloud_text body; /* … or all of it at once */
    bool last;              /* no further try */
    bool repeatable;        /* may be sent again though it may have been done */
    uint32_t patience_ms;   /* for the answer to begin; 0: stall_timeout_ms */
    /* 2xx and its header is here; non-zero ends it. Within curl. */
    int (*head)(struct s3_call *call);
    /* Bytes of a 2xx body, 0; or ERR_FULL: not now (s3_call_resume); else it ends. Within curl.
     * NULL: into answer.body. */
    int (*data)(struct s3_call *call, const void *bytes, size_t len);
    /* At the end, the answer still there; may free or start the call again. Not within curl. */
    void (*done)(struct s3_call *call, int rc);

    /* ---- */
    CURL *easy; /* while it is sent */
    struct curl_slist *headers;
    struct s3_answer answer;
    struct s3_verdict verdict;
    char curl_message[CURL_ERROR_SIZE];
    unsigned tries, redirects;
    bool tls;
    uint64_t sent_bytes;
    bool renewed;                          /* other credentials were asked for already */
    bool get;                              /* counts among S3_CONNECTIONS_GET */
    bool paused, starved;                  /* data not wanted now; nothing to send yet */
    bool given;                            /* something of the answer went to the owner */
    int refused;                           /* what `head` or `data` returned */
    uint64_t due_ms;                       /* resting: until then */
    uint64_t progress_ms;                  /* when something moved last */
    char host[S3_HOST_BYTES];              /* where it was sent */
    char region[CREDENTIALS_REGION_BYTES]; /* learned for this one call; empty: the bucket's */
    char elsewhere[S3_HOST_BYTES];         /* likewise, with its scheme */
};

/* Zeroed but for its owner's parts, which are set after this. */
void s3_call_init(struct s3_call *call, struct s3 *s3, struct s3_work *work, enum cloud_op op,
                  const char *method);
/* `done` comes later, never from within this. */
void s3_call_start(struct s3_call *call);
/* … and after a pause. */
void s3_call_start_later(struct s3_call *call, uint32_t pause_ms);
/* A random one, before another try after so many. */
uint32_t s3_pause_ms(struct s3 *s3, unsigned tries);
/* No `done` any more; NULL-safe in what was never started. Not within curl. */
void s3_call_cancel(struct s3_call *call);
/* Frees what it holds; it must not be under way. */
void s3_call_release(struct s3_call *call);
/* Data is wanted again. Not within curl; `data` may be called from within. */
void s3_call_resume(struct s3_call *call);
/* Its feed has something to send, or an error. */
void s3_call_fed(struct s3_call *call);
void s3_call_query(struct s3_call *call, const char *name, struct cloud_text value);

/* Making the easy handle of CALL ready to go, with everything signed (cloud_s3_send.c). */
int s3_send_prepare(struct s3_call *call) MUST_CHECK;
void s3_send_release(struct s3_call *call);
void s3_answer_reset(struct s3_answer *answer);
void s3_answer_release(struct s3_answer *answer);
/* One line of the header; at its end `complete` is set. */
void s3_answer_line(struct s3_answer *answer, const char *line, size_t len);

void s3_verdict_set(struct s3_verdict *out, int rc, enum s3_again again, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* What came of it (cloud_s3_verdict.c). NOW_S: by our clock. */
void s3_judge(struct s3_verdict *out, const struct s3_call *call, CURLcode code, int64_t now_s);

/* ---- Feeds ---- */

/* A job of the pool for WORK; when it ran, `ended` is called on the cloud's thread. */
struct s3_task {
    struct job job;
    struct s3 *s3;
    struct s3_work *work;
    struct s3_task *next;
    void (*run)(struct s3_task *task);
    void (*ended)(struct s3_task *task);
};
void s3_task_start(struct s3_task *task, struct s3_work *work);

struct s3_feed {
    struct s3_task task;
    struct s3_work *work;
    struct cloud_request *request;
    struct s3_call *call; /* NULL: nobody wants it now */
    uint64_t first, end;  /* the bytes of the body that it brings */
    uint64_t next;        /* to be read */
    char *ready, *spare;  /* being sent; being read */
    size_t ready_len, ready_used, spare_len, room, wanted;
    bool reading, again; /* a job runs; what it brings is not wanted any more */
    int rc, read_rc;
};

/* For bytes [first, end) of the body of WORK's request. ERR_NO_MEMORY. */
int s3_feed_init(struct s3_feed *feed, struct s3_work *work, uint64_t first,
                 uint64_t end) MUST_CHECK;
/* No job of it may be running: after the work's last task. */
void s3_feed_release(struct s3_feed *feed);
/* From the beginning; s3_call_fed(call) once there is something. */
void s3_feed_begin(struct s3_feed *feed, struct s3_call *call);
/* Up to CAP bytes: how many; 0: none now. */
size_t s3_feed_take(struct s3_feed *feed, void *out, size_t cap);
static inline bool s3_feed_at_end(const struct s3_feed *feed)
{
    return feed->ready_used == feed->ready_len && feed->spare_len == 0 && feed->next == feed->end &&
           !feed->reading;
}

/* ---- Works ---- */

struct s3_work {
    struct s3 *s3;
    struct cloud_request *request;
    struct s3_work *next, *prev; /* all of them; under the lock */
    struct s3_work *touched_next;
    bool begun, touched, waits; /* under the lock; WAITS: for more to be consumed */
    bool cancel;                /* under the lock */
    _Atomic bool stopping;      /* its tasks may stop early */
    unsigned tasks;             /* in the pool */
    bool ended;
    int rc;
    /* By kind: begin; more was consumed; stop all calls; free it. */
    const struct s3_kind *kind;
};

struct s3_kind {
    void (*begin)(struct s3_work *work);
    void (*consumed)(struct s3_work *work); /* may be NULL */
    void (*stop)(struct s3_work *work);
    void (*destroy)(struct s3_work *work);
};

/* The work is over with RC (and the verdict of CALL, if any): `done` follows once no task of it is
 * left. Not within curl. */
void s3_work_end(struct s3_work *work, int rc, const struct s3_call *call);
/* Whether LEN bytes more than the GIVEN ones fit into the owner's window. If not, its kind's
 * `consumed` is called when the owner has taken some. */
bool s3_work_room(struct s3_work *work, uint64_t given, size_t len);

/* The kinds: each allocates a work for REQUEST. NULL: no memory. */
struct s3_work *s3_simple_create(struct cloud_request *request); /* all but the two below */
struct s3_work *s3_get_create(struct cloud_request *request);
struct s3_work *s3_upload_create(struct cloud_request *request); /* PUT in parts */

/* The bucket that a work is about. */
struct cloud_text s3_bucket(const struct s3_work *work);

/* A multipart upload: made before the first exchange, so that it can outlive the request. */
struct s3_farewell {
    struct s3_farewell *next;
    struct s3_work *work; /* NULL: it is on its own */
    void (*created)(struct s3_work *work);
    struct s3_call call;         /* create, abort */
    char id[S3_UPLOAD_ID_BYTES]; /* empty: not known yet */
    unsigned aborts;
    bool parts; /* some were being sent when it ended */
    char bucket[LIMIT_CLOUD_BUCKET_BYTES + 1];
    char key[LIMIT_CLOUD_KEY_BYTES + 1];
};

/* Create it; CREATED once its id is known, or the work ends with the error. NULL: no memory. */
struct s3_farewell *s3_farewell_begin(struct s3_work *work, void (*created)(struct s3_work *work));
/* The work is over: gives it away, to be aborted unless COMPLETED. */
void s3_farewell_end(struct s3_farewell *farewell, bool completed);
/* The thread has ended: what is left of aborts. */
void s3_farewells_drop(struct s3 *s3);

/* ERR_INVALID: S3 could not take it, or would give it back changed. */
int s3_check_request(const struct cloud_request *request) MUST_CHECK;

/* ---- Credentials ---- */

struct s3_keys {
    struct credentials_plan plan;
    struct credentials now;
    bool good, asking;
    struct s3_call call; /* to an endpoint */
    unsigned step;
    char role[256], session[512], url[CREDENTIALS_URL_BYTES + 300];
    char header[CREDENTIALS_TOKEN_BYTES + 64];
    uint64_t again_ms;   /* not asked before that */
    uint64_t renewed_ms; /* when S3 did not take them */
    int rc;              /* why there are none */
    char message[CLOUD_MESSAGE_BYTES];
};

/* Where they come from; those that need not be asked for at once. As credentials_find. */
int s3_keys_find(struct s3 *s3, char *message, size_t cap) MUST_CHECK;
void s3_keys_release(struct s3 *s3);
/* Whether calls may go. Begins to ask for others where it is time. */
enum s3_keys_state {
    S3_KEYS_GOOD,
    S3_KEYS_ASKED, /* they are being asked for */
    S3_KEYS_NONE,  /* for s3_keys.rc and its message's reason */
};
enum s3_keys_state s3_keys_ready(struct s3 *s3);
/* The cloud did not take these: find others. False where there are none but these. */
bool s3_keys_renew(struct s3 *s3);

/* ---- The backend ---- */

struct s3 {
    struct cloud cloud;
    struct env *env;
    char *bucket_name, *ca_file;
    char region[CREDENTIALS_REGION_BYTES]; /* the bucket's, as far as known */
    char endpoint[S3_HOST_BYTES];          /* scheme://host[:port]; empty: AWS's */
    char elsewhere[S3_HOST_BYTES];         /* where the bucket said that it lives; empty: not */
    bool path_style;
    unsigned download_parts, tries;
    uint32_t connect_ms, stall_ms;
    uint64_t part_bytes;
    struct s3_keys keys;

    pthread_t thread;
    bool running;
    CURLM *multi;
    struct pool *pool;
    CURL *spare[S3_CONNECTIONS];
    unsigned spare_count;
    struct s3_calls feeding, waiting, sent, resting; /* for bytes; a connection; …; until due_ms */
    unsigned connections, connections_get;
    uint64_t ahead; /* bytes that downloads in parts hold */
    uint64_t now_ms, looked_ms, farewell_ms;
    struct s3_farewell *farewell; /* aborts under way … */
    unsigned farewells;           /* … how many */

    pthread_mutex_t lock; /* guards what follows */
    struct s3_work *works, *inbox, **inbox_end;
    struct s3_work *touched;
    struct s3_task *tasks_done;
    unsigned count;
    bool closing;
    struct cloud_figures figures;
};

extern const struct cloud_backend s3_backend; /* its destroy takes what is half made, too */
int s3_begin_thread(struct s3 *s3) MUST_CHECK;
bool s3_region_fine(const char *region);
void s3_count_retry(struct s3 *s3);
uint64_t s3_random(struct s3 *s3, uint64_t below);
void s3_count(struct s3 *s3, enum cloud_op op, bool failed);
void s3_count_bytes(struct s3 *s3, uint64_t up, uint64_t down);
/* Send what waits, as far as there are connections. */
void s3_calls_go(struct s3 *s3);
/* Those whose time has come, or who were silent for too long. Gives the time of the next look. */
uint64_t s3_calls_tick(struct s3 *s3);
/* libcurl is done with one. */
void s3_call_ended(struct s3_call *call, CURLcode code);

static inline struct cloud_text s3_text(const char *text)
{
    return (struct cloud_text){text, (uint32_t)__builtin_strlen(text)};
}

#endif
