/*
 * Writes the generated part of the corpora (make fuzz-seeds): for each target a few inputs that it
 * accepts, so that a fuzzer begins where a format is right. What a fuzzer has found lies beside
 * them and is left alone.
 *   usage: fuzz-seeds DIRECTORY
 */
#include "base/buf.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "cluster/wire.h"
#include "journal/event.h"
#include "journal/usermeta.h"
#include "storage/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_seeds.h"
#include "tests/fuzz/memory_io.h"

#include <errno.h>
#include <sys/stat.h>

#define TEXT(s) ((struct text){s, sizeof(s) - 1})
#define ETAG    "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\""

static const char *root;

void seed(const char *target, const char *name, const void *data, size_t len)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", root, target);
    CHECK(mkdir(path, 0777) == 0 || errno == EEXIST);
    (void)snprintf(path, sizeof path, "%s/%s/seed-%s", root, target, name);
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(data, 1, len, file) == len && fclose(file) == 0);
}

void seed_text(const char *target, const char *name, const char *head, size_t head_len,
               const char *text)
{
    struct buf out = {0};

    buf_add(&out, head, head_len);
    buf_text(&out, text);
    CHECK(buf_check(&out) == 0);
    seed(target, name, out.data, out.len);
    buf_release(&out);
}

#define H "Host: a.example:80\r\n"

static const struct {
    const char *name, *text;
} requests[] = {
    {"get", "GET /x?a=b HTTP/1.1\r\n" H "Accept: */*\r\nRange: bytes=0-1,-5\r\n\r\n"},
    {"old", "GET /c HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /n HTTP/1.0\r\n\r\n"},
    {"put", "PUT /echo HTTP/1.1\r\n" H "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"},
    {"pipeline", "GET /a HTTP/1.1\r\n" H "\r\nHEAD /r HTTP/1.1\r\n" H "\r\nPOST /p HTTP/1.1\r\n" H
                 "Content-Length: 3\r\n\r\nabc"
                 "DELETE /s HTTP/1.1\r\n" H "\r\n\r\nOPTIONS /w HTTP/1.1\r\n" H "\r\n"},
    {"chunked", "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
                "5;a=b\r\nhello\r\n1F\r\n0123456789012345678901234567890\r\n0\r\nX: y\r\n\r\n"
                "GET /b HTTP/1.1\r\n" H "Connection: close\r\n\r\n"},
    {"absolute", "GET http://a.example/p%20q?r HTTP/1.1\r\n" H "User-Agent: t\r\n\r\n"},
    {"early", "PUT /q HTTP/1.1\r\n" H "Content-Length: 12\r\n\r\nhello, world"
              "PUT /z HTTP/1.1\r\n" H "Content-Length: 4\r\n\r\nrestGET /l HTTP/1.1\r\n" H "\r\n"},
    {"waits", "POST /b HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
              "POST /l HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nxyGET /f HTTP/1.1\r\n" H "\r\n"},
    {"two-lengths", "POST /e HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"},
    {"both",
     "POST /e HTTP/1.1\r\n" H "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {"folded", "GET /a HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n"},
    {"two-chunked",
     "PUT /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
     "PUT /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
    {"large", "PUT /echo HTTP/1.1\r\n" H "Content-Length: 9999\r\n\r\nabc"},
};

static void seed_http(void)
{
    static const struct {
        const char *name, *text;
    } bodies[] = {
        {"plain", "5\r\nhello\r\n0\r\n\r\n"},
        {"trailer", "00a;x=\"y\"\r\n0123456789\r\n0\r\nA: b\r\nC: d\r\n\r\nnext"},
        {"hex", "fF\r\nabc"},
        {"none", "0\r\n\r\n"},
        {"bad", "5 \r\nhello\r\n0\r\n\r\n"},
    };

    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        seed_text("http_head", requests[i].name, "\x07", 1, requests[i].text);
        seed_text("http_conn", requests[i].name, i % 2 ? "\x06\x01" : "\x00\x02", 2,
                  requests[i].text);
    }
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        seed_text("http_chunked", bodies[i].name, "\x02", 1, bodies[i].text);
}

static void seed_range(void)
{
    static const struct {
        const char *name;
        uint64_t size;
        const char *text;
    } all[] = {
        {"one", 1000, "bytes=0-499"},
        {"suffix", 1000, "bytes=-500"},
        {"open", 1000, "bytes=999-"},
        {"many", 1 << 30, "bytes=0-1, 100000-200000 ,  ,500000-600000,-1"},
        {"blocks", 200000, "bytes=65535-65536,131072-131072,0-0,150000-"},
        {"outside", 10, "bytes=10-20,30-"},
        {"huge", UINT64_MAX, "bytes=0-18446744073709551615,18446744073709551614-"},
        {"seventeen", 1 << 30,
         "bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8,9-9,10-10,11-11,12-12,"
         "13-13,14-14,15-15,16-16"},
        {"empty", 0, "bytes=-1"},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        uint8_t head[8];

        put_u64(head, all[i].size);
        seed_text("range", all[i].name, (const char *)head, sizeof head, all[i].text);
    }
}

static void seed_small(void)
{
    static const char when[] = "\x49\xd4\xbc\x2e\x00"; /* 784715849: the RFC's example */
    char head[6];

    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"dates", "tags", "all"};
        static const char *const texts[] = {
            "\n\nSun, 06 Nov 1994 08:49:37 GMT\nSunday, 06-Nov-94 08:49:37 GMT\n"
            "Sun Nov  6 08:49:37 1994",
            ETAG "\nW/" ETAG ", \"x\"\n\n\n" ETAG,
            "*\n*\nThu, 29 Feb 2024 23:59:60 GMT\nFri, 31 Dec 9999 23:59:59 GMT\nW/" ETAG,
        };
        static const char which[] = {28, 19, 31};

        memcpy(head, when, 5);
        head[5] = which[i];
        seed_text("conditional", names[i], head, sizeof head, texts[i]);
    }
    seed_text("ulid", "upper", "", 0, "01BRNMMS1DK3CBD4ZZM2TQ8C5B");
    seed_text("ulid", "lower", "", 0, "01brnmms1dk3cbd4zzm2tq8c5b");
    seed_text("ulid", "last", "", 0, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
    seed_text("ulid", "above", "", 0, "80000000000000000000000000");
    seed_text("ulid", "two", "", 0, "0123456789abcdef0123456789abcdeF");
    seed_text("usermeta", "plain", "", 0, "{\"b\":\"1\",\"a\":\"x y\"}");
    seed_text("usermeta", "empty", "", 0, " { } ");
    seed_text("usermeta", "unicode", "", 0,
              "{\"gr\xc3\xbc\xc3\x9f\":\"\\ud83d\\ude00\xf0\x9f\x98\x80\\n\\\"\\u007f\x7f\"}");
    seed_text("usermeta", "twice", "", 0, "{\"a\":\"1\",\"a\":\"2\"}");
    seed_text("usermeta", "number", "", 0, "{\"a\":1}");
}

static void seed_config(void)
{
    seed_text("config", "file", "", 1,
              "# a comment\nstate-dir = \"/var/lib/o s/\"\nfiles-dir=/srv/o\r\n"
              "nodes = a, b:12, [::1]:13\nnodes=c\nmemory = 1GiB\nscrub-interval=12h\n"
              "anonymous = read\nworkers=2\naccess-log=on\n");
    seed_text("config", "more", "", 1,
              "debug=1\ntag=t\nprivate-addr=[::]:1\ndebug-addr=\npublic-addr=:80\nregion=eu-1\n"
              "bucket=b.c-d\ndurability=async\nmax-body=1T\nlog-format=json\n"
              "accept-data-loss=no\nsegment-bytes=64k\n");
    seed_text("config", "twice", "", 1, "workers=1\nworkers=2\n");
    seed_text("config", "unknown", "", 1, "colour = red\n");
    seed_text("config", "variables", "\x01", 1,
              "OBJSTORE_TAG=x\nAPP_CLUSTER_NODES=a,b\nOBJSTORE_NODES=c\nNET_PUBLIC_ADDR=0.0.0.0:1\n"
              "OBJSTORE_MEMORY=2M\nOBJSTORE_STRANGE=1\nOBJSTORE_ACCESS_LOG=yes\n");
}

static void seed_headers(void)
{
    static const struct {
        const char *name, *text;
    } all[] = {
        {"digests", "Digest: SHA-256=ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=,"
                    "md5=kAFQmDzST7DWlj99KOF/cg==, x=y\nContent-MD5: kAFQmDzST7DWlj99KOF/cg==\n"
                    "X-Amz-Checksum-Sha256: ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=\n"},
        {"meta", "X-Meta-ID: 01BRNMMS1DK3CBD4ZZM2TQ8C5B\nX-Meta-Name: a b.txt\n"
                 "X-Meta-UserMeta: {\"k\":\"v\"}\nX-Meta-ConsistencyLevel: full\n"
                 "X-Meta-Ack: quorum\nX-Meta-Timeout: 1.5\nContent-Type: text/plain; q=1\n"},
        {"name", "X-Meta-Name*: UTF-8'de'gr%C3%BC%C3%9F%20\nX-Meta-ConsistencyLevel: 1\n"
                 "X-Meta-Ack: cloud\nContent-Type: application/x-www-form-urlencoded\n"},
        {"disagree",
         "Digest: md5=kAFQmDzST7DWlj99KOF/cg==\nContent-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==\n"},
        {"utf8", "X-Meta-Name:  gr\xc3\xbc\xc3\x9f \nX-Meta-UserMeta: {\"\xc3\xbc\":\"\\n\"}\n"},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        seed_text("headers", all[i].name, i == 4 ? "\x01" : "", 1, all[i].text);
    seed_text("headers", "purge", "\x02", 1, "X-Meta-Purge: true\n");
    seed_text("headers", "conditions", "\x02", 1,
              "If-Match: \"x\", "
              "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n"
              "If-None-Match: *\nIf-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\n");
}

/* ---- Events ---- */

static struct event event_of(uint32_t kind)
{
    struct event event = {.origin = {{1, 2}},
                          .node = {{3, 4}},
                          .id = {{5, 6}},
                          .seq = 2,
                          .stamp = UINT64_C(1763700000000) << 16,
                          .kind = kind};

    memset(event.prev, 7, sizeof event.prev);
    memset(event.sha256, 8, sizeof event.sha256);
    return event;
}

static void fill(struct event *event, const struct event_item *items)
{
    event->size = 100;
    event->level = 1;
    event->name = TEXT("gr\xc3\xbc\xc3\x9f.txt");
    event->type = TEXT("text/plain");
    event->user_meta = TEXT("{\"k\":\"v\"}");
    event->sums = TEXT("\x81\xa3md5\xc4\x01x");
    event->items = items;
    event->item_count = 2;
    event->backend = TEXT("s3");
    event->bucket = TEXT("photos");
    event->key = TEXT("a/b");
    event->etag = TEXT("\"e\"");
    event->address = TEXT("10.0.0.1:11999");
    event->cloud_state = CLOUD_UPLOADED;
    event->member_state = MEMBER_JOINED;
    event->subject = (struct id128){{9}};
    event->feature = 3;
    event->follows = (struct event_ref){.origin = {{1}}, .seq = 5};
}

static void seed_events(void)
{
    static const struct {
        uint32_t kind, fields;
    } all[] = {
        {EVENT_PUT, EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL | EVENT_HAS_NAME |
                        EVENT_HAS_TYPE | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES | EVENT_HAS_SUMS |
                        EVENT_HAS_FOLLOWS},
        {EVENT_META, EVENT_HAS_LEVEL | EVENT_HAS_NAME | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES},
        {EVENT_DELETE, EVENT_HAS_REASON | EVENT_HAS_PURGE},
        {EVENT_HOLD, EVENT_HAS_ITEMS},
        {EVENT_DROP, EVENT_HAS_ITEMS | EVENT_HAS_FOLLOWS},
        {EVENT_CLOUD, EVENT_HAS_CLOUD | EVENT_HAS_SHA256},
        {EVENT_BIND, EVENT_HAS_BIND},
        {EVENT_UNBIND, EVENT_HAS_BIND},
        {EVENT_MEMBER, EVENT_HAS_MEMBER},
        {EVENT_FREEZE, EVENT_HAS_FREEZE | EVENT_HAS_FOLLOWS},
        {EVENT_FEATURE, EVENT_HAS_FEATURE},
    };
    static const struct event_item items[2] = {{.id = {{1}}}, {.id = {{2}}}};

    struct event purged = event_of(EVENT_CLOUD);
    struct buf bytes = {0};

    fill(&purged, items);
    purged.fields = EVENT_HAS_CLOUD;
    purged.cloud_state = CLOUD_PURGED;
    purged.removed = (struct reg){77, {{3}}};
    event_encode(&bytes, &purged);
    CHECK(buf_check(&bytes) == 0);
    seed("event", "cloud-purged", bytes.data, bytes.len);
    buf_release(&bytes);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct event event = event_of(all[i].kind);
        struct buf out = {0};

        fill(&event, items);
        event.fields = all[i].fields;
        event_encode(&out, &event);
        CHECK(buf_check(&out) == 0);
        seed("event", event_kind_name(event.kind), out.data, out.len);
        if (event.kind == EVENT_PUT) {
            out.data[out.len - 1] ^= 1;
            seed("event", "put-other-hash", out.data, out.len);
        }
        buf_release(&out);
    }
}

/* ---- Messages between nodes ---- */

static void seed_message(const char *name, struct wire_message *message)
{
    struct buf out = {0};

    message->tag = TEXT("default");
    message->from = (struct id128){{1, 2}};
    wire_encode(&out, message);
    CHECK(buf_check(&out) == 0);
    seed("wire", name ? name : wire_type_name(message->type), out.data, out.len);
    buf_release(&out);
}

static void seed_probes(void)
{
    struct wire_probe probe = {.nonce = 7,
                               .to = {{3}},
                               .address = TEXT("10.0.0.1:11999"),
                               .wall_ms = UINT64_C(1763700000000),
                               .feature = 1,
                               .summary = {.vector = {1, 2}, .digest = {3, 4}, .events = 500}};
    struct wire_probe_for ask = {.nonce = 8, .subject = {{4}}, .answered = 1};

    seed_message(NULL, &(struct wire_message){.type = WIRE_PROBE, .probe = probe});
    probe.leaving = 1;
    probe.seen = TEXT("[fd00::1]:40000");
    probe.version = TEXT("0.1.0");
    probe.level = 2;
    probe.draining = 1;
    seed_message(NULL, &(struct wire_message){.type = WIRE_PROBE_ACK, .probe = probe});
    seed_message(NULL, &(struct wire_message){.type = WIRE_PROBE_FOR, .probe_for = ask});
    seed_message(NULL, &(struct wire_message){.type = WIRE_PROBE_SAW, .probe_for = ask});
}

static void seed_sync(void)
{
    struct wire_flow flow = {.session = 9, .bytes = 1 << 20, .end = WIRE_END_BEHIND};
    struct buf runs = {0}, events = {0};

    for (uint8_t i = 1; i <= 3; i++) {
        wire_run_add(&runs, &(struct wire_run){.origin = {{i}}, .seq = 300u * i});
        wire_event_add(&events, "an event", 2u * i);
    }
    CHECK(buf_check(&runs) == 0 && buf_check(&events) == 0);
    struct text run_text = {runs.data, (uint32_t)runs.len};
    struct text event_text = {events.data, (uint32_t)events.len};
    seed_message(NULL, &(struct wire_message){.type = WIRE_SYNC_ASK,
                                              .sync_ask = {9, {1, 2}, 1000, 1 << 20, run_text}});
    seed_message("sync-ask-empty",
                 &(struct wire_message){.type = WIRE_SYNC_ASK, .sync_ask = {.session = 9}});
    seed_message(
        NULL, &(struct wire_message){.type = WIRE_SYNC_VECTOR, .sync_vector = {9, 2, 1, run_text}});
    seed_message(NULL, &(struct wire_message){.type = WIRE_SYNC_EVENTS,
                                              .sync_events = {9, {{5}}, 70, 3, event_text}});
    seed_message("sync-push", &(struct wire_message){.type = WIRE_SYNC_EVENTS,
                                                     .sync_events = {0, {{5}}, 1, 3, event_text}});
    seed_message(NULL, &(struct wire_message){.type = WIRE_SYNC_MORE, .flow = flow});
    seed_message(NULL, &(struct wire_message){.type = WIRE_SYNC_CREDIT, .flow = flow});
    seed_message(NULL, &(struct wire_message){.type = WIRE_SYNC_END, .flow = flow});
    buf_release(&runs);
    buf_release(&events);
}

static void seed_merge_messages(void)
{
    struct buf runs = {0}, known = {0}, sums = {0}, chunks = {0};

    for (uint8_t i = 1; i < 3; i++) {
        wire_merge_run_add(&runs, &(struct wire_merge_run){
                                      .origin = {{i}}, .node = {{9}}, .seq = 300u * i, .ended = 1});
        wire_run_add(&known, &(struct wire_run){.origin = {{i}}, .seq = 300u * i});
        wire_sum_add(&sums, &(struct wire_sum){{i, 2}, i});
        wire_event_add(&chunks, "a chunk", 3u * i);
    }
    seed_message(NULL, &(struct wire_message){.type = WIRE_MERGE_ASK,
                                              .merge_ask = {9, 1, {{1}}, {{2}}, 1 << 20}});
    seed_message(
        NULL, &(struct wire_message){.type = WIRE_MERGE_VECTOR,
                                     .merge_vector = {9, 2, 1, {runs.data, (uint32_t)runs.len}}});
    seed_message(NULL, &(struct wire_message){
                           .type = WIRE_MERGE_CHUNK,
                           .merge_chunk = {9, 3, {{2}}, 1, {chunks.data, (uint32_t)chunks.len}}});
    seed_message(NULL,
                 &(struct wire_message){.type = WIRE_MERGE_SUMS_ASK,
                                        .merge_sums_ask = {9, {{1}}, TEXT("abcdefghijklmnop")}});
    seed_message(NULL,
                 &(struct wire_message){.type = WIRE_MERGE_SUMS,
                                        .merge_sums = {9, 4, {sums.data, (uint32_t)sums.len}}});
    seed_message(NULL, &(struct wire_message){
                           .type = WIRE_MERGE_CUT_ASK,
                           .merge_cut = {.nonce = 5, .runs = {known.data, (uint32_t)known.len}}});
    seed_message(NULL, &(struct wire_message){.type = WIRE_MERGE_CUT_KNOWN,
                                              .merge_cut = {.nonce = 5, .known = 1}});
    buf_release(&runs);
    buf_release(&known);
    buf_release(&sums);
    buf_release(&chunks);
}

static void seed_operate(void)
{
    static const struct event_item items[2] = {{.id = {{1}}}, {.id = {{2}}}};
    static const char rows[2 * WIRE_ROW_SUM_BYTES] = {1};
    struct wire_inquiry inquiry = {
        .nonce = 7, .id = {{1}}, .until = {{9}}, .rows = 4096, .list = 1};
    struct wire_finding finding = {7, 1, {{9}}, 2, {1, 2}, {rows, sizeof rows}};
    struct wire_adopt adopt = {.items = {(const char *)items, sizeof items}};

    seed_message(NULL, &(struct wire_message){.type = WIRE_ADOPT, .adopt = adopt});
    seed_message(NULL, &(struct wire_message){.type = WIRE_RANGE_ASK, .inquiry = inquiry});
    seed_message(NULL, &(struct wire_message){.type = WIRE_ROW_ASK, .inquiry = inquiry});
    seed_message(NULL, &(struct wire_message){.type = WIRE_KNOWN_ASK, .inquiry = inquiry});
    seed_message(NULL, &(struct wire_message){.type = WIRE_RANGE, .finding = finding});
    seed_message(NULL, &(struct wire_message){.type = WIRE_KNOWN, .finding = finding});
    finding.data = TEXT("{\"level\":2}");
    seed_message(NULL, &(struct wire_message){.type = WIRE_ROW, .finding = finding});
}

static void seed_bodies(void)
{
    struct wire_flow flow = {.session = 10, .bytes = 1 << 20, .end = WIRE_END_ABSENT};
    struct wire_body_ask ask = {.transfer = 10,
                                .id = {{6}},
                                .sha256 = {7},
                                .offset = 65536,
                                .length = UINT64_MAX,
                                .credit_bytes = 1 << 20,
                                .background = 1,
                                .delegated = 1};

    seed_message(NULL, &(struct wire_message){.type = WIRE_BODY_ASK, .body_ask = ask});
    seed_message(NULL, &(struct wire_message){.type = WIRE_BODY_DATA,
                                              .body_data = {10, 95, 100, 8, TEXT("bytes")}});
    seed_message(NULL, &(struct wire_message){.type = WIRE_BODY_CREDIT, .flow = flow});
    seed_message(NULL, &(struct wire_message){.type = WIRE_BODY_END, .flow = flow});
    seed_message(NULL, &(struct wire_message){.type = WIRE_BODY_COMING, .flow = flow});
    seed_message(NULL, &(struct wire_message){.type = WIRE_NOTE,
                                              .note = {{{8}}, TEXT("hello, nodes"), {{9}}, 70000}});
    seed_message(NULL,
                 &(struct wire_message){
                     .type = WIRE_NOTE_IDS,
                     .note_ids = {TEXT("aaaaaaaaaaaaaaaa"), {NULL, 0}, TEXT("bbbbbbbbbbbbbbbb")}});
    seed_message(NULL,
                 &(struct wire_message){.type = WIRE_PACK, .pack = {TEXT("\3\0\0\0abc\1\0\0\0d")}});
    seed_message(NULL, &(struct wire_message){
                           .type = WIRE_SYNC_FROZEN,
                           .sync_frozen = {12, TEXT("aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb")}});
    seed_message(NULL, &(struct wire_message){.type = WIRE_TWIN,
                                              .process = {{{9}}, TEXT("10.1.2.3:11999")}});
    seed_merge_messages();
}

/* ---- Segments, and logs of them ---- */

static void seed_segment(void)
{
    static const uint8_t body[300] = "the body";
    uint64_t sum = block_checksum(body, sizeof body, 0);
    uint8_t in[5 + 1024] = {2, 0x34, 0x12, 8, 0}, *out = in + 5;
    struct record_header header = {.type = RECORD_EVENT,
                                   .flags = RECORD_HAS_BODY,
                                   .blocks = 1,
                                   .event_bytes = 21,
                                   .body_bytes = sizeof body,
                                   .size = sizeof body,
                                   .id = {{1, 2, 3}}};
    uint64_t whole = record_bytes(&header);

    record_encode(out, &header, 0x1234, 4096, &sum, "twenty-one bytes here");
    memcpy(out + whole - (sizeof body + 7) / 8 * 8, body, sizeof body);
    seed("segment", "record", in, 5 + whole);
    in[0] = 6;
    seed("segment", "record-repaired", in, 5 + whole);

    struct batch_header batch = {.records = 1,
                                 .lsn = 4096,
                                 .length_bytes = BATCH_HEADER_BYTES + whole,
                                 .previous = 5,
                                 .synced_through = 4096,
                                 .hlc = 99};
    record_encode(out + BATCH_HEADER_BYTES, &header, 0x1234, 4096 + BATCH_HEADER_BYTES, &sum,
                  "twenty-one bytes here");
    batch_header_encode(out, &batch, 0x1234, &header.check);
    in[0] = 1;
    seed("segment", "batch", in, 5 + batch.length_bytes);
    in[0] = 5;
    seed("segment", "batch-repaired", in, 5 + batch.length_bytes);

    static uint8_t file[5 + SEGMENT_HEADER_BYTES];
    struct segment_header segment = {.store = {{1, 2}},
                                     .volume = 3,
                                     .disk = 1,
                                     .salt = 7,
                                     .base = 8192,
                                     .features = {.compat = 1}};
    segment_header_encode(file + 5, &segment);
    seed("segment", "header", file, sizeof file);
    file[0] = 4;
    seed("segment", "header-repaired", file, 5 + 64);
}

static struct memory_io memory;

static void write_batch(struct log *log, unsigned records, uint32_t body_bytes)
{
    static uint8_t body[4096];
    uint64_t sum = block_checksum(body, body_bytes, 0);

    CHECK(log_begin(log, 42) == 0);
    for (unsigned i = 0; i < records; i++) {
        bool large = i % 4 == 3;
        struct log_record record = {.type = i % 3 == 1 ? RECORD_MOVE : RECORD_EVENT,
                                    .flags = large ? RECORD_LARGE : RECORD_HAS_BODY,
                                    .id = {{(uint8_t)(i + 1)}},
                                    .event = "some event",
                                    .event_bytes = 10,
                                    .file = 77,
                                    .size = 1 << 20,
                                    .trailer = 3};
        struct place place;

        if (!large) {
            record.body = body;
            record.body_bytes = body_bytes;
            record.sums = &sum;
        }
        CHECK(log_add(log, &record, &place) == 0);
    }
    CHECK(log_write(log) == 0 && log_sync(log) == 0);
}

/* A log of some batches, as an input of the target: see recovery_fuzz.c. */
static void seed_log(const char *name, unsigned flags, unsigned repairs, unsigned batches,
                     unsigned records, uint32_t body_bytes, bool rotate)
{
    struct log_config config = {.env = &memory.env,
                                .files_dir = "/f",
                                .store = {{5, 5, 5}},
                                .segment_bytes = 64 * KIB,
                                .sync = true};
    struct log_recovery recovery;
    struct log_segment *segments;
    struct buf out = {0};
    struct log *log;
    size_t count;
    uint64_t base = 0;

    memory_init(&memory);
    CHECK(log_open(&log, &config, NULL, 0) == 0);
    CHECK(log_recover(log, 0, 0, false, NULL, NULL, NULL, &recovery) == 0);
    for (unsigned i = 0; i < batches; i++) {
        write_batch(log, records, body_bytes);
        if (rotate && i == batches / 2)
            CHECK(log_rotate(log) == 0);
    }
    CHECK(log_segments(log, &segments, &count) == 0);
    buf_char(&out, (char)flags);
    buf_char(&out, (char)repairs);
    buf_add(&out, "\0\0\0\0", 4);
    buf_char(&out, (char)(count - 1));
    for (size_t i = 0; i < count; i++) {
        char path[MEMORY_PATH];
        uint8_t number[2];

        (void)snprintf(path, sizeof path, "/f/log/%08x.seg", segments[i].volume);
        struct memory_file *file = memory_find(&memory, path);
        size_t len = (size_t)segments[i].end_bytes - SEGMENT_HEADER_BYTES;
        CHECK(file && len / 8 < 65536 && len + SEGMENT_HEADER_BYTES <= file->len);
        buf_char(&out, 0);
        put_u16(number, (uint16_t)((segments[i].base - base) / SEGMENT_HEADER_BYTES));
        buf_add(&out, number, 2);
        put_u16(number, (uint16_t)(len / 8));
        buf_add(&out, number, 2);
        buf_add(&out, file->data + SEGMENT_HEADER_BYTES, len);
        base = segments[i].base + SEGMENT_HEADER_BYTES;
    }
    free(segments);
    log_close(&log);
    CHECK(buf_check(&out) == 0);
    seed("recovery", name, out.data, out.len);
    buf_release(&out);
}

static void seed_recovery(void)
{
    /* The salts are not those that the target gives: all of them are repaired. */
    seed_log("one", 0, 1, 1, 1, 100, false);
    seed_log("clean", 1, 1, 2, 3, 50, false);
    seed_log("batches", 0, 1, 5, 2, 200, false);
    seed_log("large", 8, 1, 3, 4, 10, false);
    seed_log("two-segments", 16, 1, 4, 2, 64, true);
    seed_log("known", 2, 1, 4, 2, 64, true);
    seed_log("sealed", 6, 1, 4, 2, 64, true);
    seed_log("repair-all", 16, 31, 3, 3, 300, true);
    seed_log("empty-batches", 1, 31, 3, 0, 0, true);
}

static void seed_large(void)
{
    static const uint8_t whole[] = {0, 0x10, 0x27, 0};                  /* 10,000 bytes */
    static const uint8_t blocks[] = {8, 0x01, 0x00, 0x02};              /* 2 blocks and a byte */
    static const uint8_t flip[] = {0, 0x00, 0x00, 0x01, 9, 0x10, 0, 1}; /* in the body */
    static const uint8_t cut[] = {2, 0x10, 0x27, 0, 0, 0x30, 0};
    static const uint8_t other[] = {4, 0x10, 0x27, 0, 0x11, 0x27, 0};
    static const uint8_t raw[] = "\x01\x03\x00\x00objlarge and no more";

    seed("large", "whole", whole, sizeof whole);
    seed("large", "blocks", blocks, sizeof blocks);
    seed("large", "flip", flip, sizeof flip);
    seed("large", "cut", cut, sizeof cut);
    seed("large", "other-size", other, sizeof other);
    seed("large", "raw", raw, sizeof raw - 1);
}

static void seed_texts(void)
{
    static const struct {
        const char *name, *head, *text;
    } all[] = {
        {"hex", "\x00", "00ffA1b2"},
        {"base64", "\x01", "kAFQmDzST7DWlj99KOF/cg=="},
        {"base64-bits", "\x01", "kAFQmDzST7DWlj99KOF/ch=="},
        {"percent", "\x02", "gr%C3%BC%c3%9f+a%20b!#$&"},
        {"percent-cut", "\x02", "a%2"},
        {"utf8", "\x03", "a\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80\xc2\x85"},
        {"utf8-surrogate", "\x03", "\xed\xa0\x80"},
        {"number", "\x04", "18446744073709551615"},
        {"size", "\x04", "16GiB"},
        {"duration", "\x04", "12h"},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        seed_text("text", all[i].name, all[i].head, 1, all[i].text);
}

struct store_file {
    uint64_t generation; /* 0: no such file */
    uint32_t version;
    uint8_t side, store, len;
};

static void add_store_file(struct buf *out, const struct store_file *file)
{
    uint8_t bytes[64] = "objstore";

    if (!file->generation)
        return;
    put_u32(bytes + 8, file->version);
    bytes[24] = file->store;
    put_u64(bytes + 40, file->generation);
    put_u32(bytes + 48, file->side);
    put_u64(bytes + 56, xxh64(bytes, 56, 0));
    buf_char(out, (char)file->len);
    buf_add(out, bytes, file->len);
}

/* Pairs of STORE files; the flags are those of store_dir_fuzz.c. */
static void seed_store_dirs(void)
{
    static const struct {
        const char *name;
        char flags;
        struct store_file state, files;
    } all[] = {
        {"pair", 33, {3, 1, 1, 7, 64}, {3, 1, 2, 7, 64}},
        {"ahead", 33, {3, 1, 1, 7, 64}, {4, 1, 2, 7, 64}},
        {"behind", 41, {3, 1, 1, 7, 64}, {2, 1, 2, 7, 64}},
        {"older-state", 1, {3, 1, 1, 7, 64}, {5, 1, 2, 7, 64}},
        {"other", 1, {3, 1, 1, 7, 64}, {3, 1, 2, 8, 64}},
        {"swapped", 1, {3, 1, 2, 7, 64}, {3, 1, 1, 7, 64}},
        {"version", 1, {3, 2, 1, 7, 64}, {3, 1, 2, 7, 64}},
        {"short", 1, {3, 1, 1, 7, 63}, {3, 1, 2, 7, 64}},
        {"lost", 45, {3, 1, 1, 7, 64}, {0, 0, 0, 0, 0}},
        {"fresh", 38, {0, 0, 0, 0, 0}, {0, 0, 0, 0, 0}},
        {"stranger", 23, {0, 0, 0, 0, 0}, {0, 0, 0, 0, 0}},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct buf out = {0};

        buf_char(&out, all[i].flags);
        add_store_file(&out, &all[i].state);
        add_store_file(&out, &all[i].files);
        CHECK(buf_check(&out) == 0);
        seed("store_dir", all[i].name, out.data, out.len);
        buf_release(&out);
    }
}

/* Steps of probe_fuzz.c: OPERATION after MS, with the bytes of ARGUMENTS. */
static void probe_op(struct buf *out, int operation, unsigned ms, const char *arguments, size_t len)
{
    char head[3] = {(char)operation, (char)ms, (char)(ms >> 8)};

    buf_add(out, head, sizeof head);
    buf_add(out, arguments, len);
}

enum { TICK = 1, MEMBER, SEED, MESSAGE, HEARD, LOCAL };

/* MEMBERS are there and answer for ANSWERED of 40 ticks, then are silent; one leaves at the end. */
static void seed_probe(const char *name, int members, int answered, bool with_seeds)
{
    struct buf out = {0};

    buf_add(&out, "\1\2", 2);
    for (int i = 1; i <= members; i++)
        probe_op(&out, MEMBER, 0, (const char[]){(char)(i | 16 | 64)}, 1);
    if (with_seeds) {
        probe_op(&out, SEED, 0, "\3\0", 2);
        probe_op(&out, SEED, 0, "\7\0", 2);
    }
    for (int i = 0; i < 40; i++) {
        probe_op(&out, TICK, 250, "", 0);
        for (int j = 0; j < 16 && i < answered; j++) {
            /* An ack of the j-th nonce, a question, and what came of ours. */
            char ack[10] = {(char)(128 | j << 3), (char)(1 + (i + j) % members)};
            if (j >= 8 && j <= 12)
                continue; /* bit 64 would make it leave */
            while ((ack[0] & 255) % 5 != (j == 15 ? 2 : j > 12 ? 3 : 1))
                ack[0]++;
            probe_op(&out, MESSAGE, 3, ack, j > 12 ? 2 : sizeof ack);
        }
    }
    probe_op(&out, HEARD, 1, "\1", 1);
    probe_op(&out, LOCAL, 1, "\5", 1);
    probe_op(&out, MESSAGE, 1, "\x50\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1", 18);
    for (int i = 0; i < 40; i++)
        probe_op(&out, TICK, 400, "", 0);
    probe_op(&out, MEMBER, 0, "\1", 1);
    CHECK(buf_check(&out) == 0);
    seed("probe", name, out.data, out.len);
    buf_release(&out);
}

/* ---- Steps for the cores of the cluster: see the head of each target ---- */

#define STEPS(target, name, text) seed(target, name, text, sizeof(text) - 1)

static void seed_cores(void)
{
    /* Peers, a note said, one heard, one offered, one wanted, and rounds. */
    STEPS("notes", "say-and-hear",
          "\1\2\x09\0\0\x11\0\0\x19\0\0\2\1\0\5\0\0\xc8\0\3\1\0\x31\x31\0"
          "\4\1\0\2\1\x20\0\1\x31\0\1\x31\0\0\xc8\0\0\xc8\0\3\1\0\x31\x31\0\0\xc8\0");
    STEPS("notes", "flood",
          "\1\2\x09\0\0\x11\0\0\3\1\0\xa1\1\0\xff\3\1\0\xb1\1\1\xff\0\xc8\0\0\xff\xff"
          "\3\1\0\xa1\1\0\xff\2\1\0\0\x20\2\1\0\1\x20");
    /* Two questions, their reads, credit, the end; one cancelled; one that nobody reads. */
    STEPS("serve", "two",
          "\0\1\1\0\0\0\0\0\4\0\0\2\0\x0a\1\4\0\0\0\0\1\0\0\0\1\4\0\1\0\0\4\0\1\0\0"
          "\2\1\1\0\0\4\4\0\1\0\0\3\x0a\1\7\0\1");
    STEPS("serve", "ends",
          "\0\1\1\x18\0\0\0\0\0\0\0\4\4\0\1\0\x40\5\0\0\0\2\1\1\0\1\0\4\0\1\0\4\x16\1\1"
          "\xe7\0\xff\xe7\0\xff");
    /* A fetch of three holders: chunks, a wrong one, a dead holder, ticks, the rest. */
    STEPS("fetch", "whole",
          "\1\2\5\1\0\xc5\1\0\xcd\1\x08\1\x0e\0\0\3\1\0\0\7\1\1\1\0\0\0\0\1\4\1\1\0\0\1\0\0\1"
          "\1\1\0\x88\0\4\0\0\1\1\1\0\0\4\7\xff\xc7\xff\1\1\2\0\0\0\4");
    STEPS("fetch", "ends",
          "\1\2\x08\1\x0e\0\1\0\1\0\0\3\1\0\1\3\1\1\3\xc7\xff\xc7\xff\xc7\xff\3\1\2\0\xc7\xff");
    /* Runs of ours, a peer that asks and gets them; a peer that has more and is asked. */
    STEPS("sync", "asked",
          "\1\2\0\1\1\x14\x10\0\1\2\x28\0\x09\1\3\1\0\5\0\0\4\0\5\1\0\0\5\5\1\0\0\5"
          "\7\xff\5\1\0\0\5");
    STEPS("sync", "asks",
          "\1\2\0\1\1\5\0\x09\1\x4a\1\7\7\xff\7\xff\7\xff\3\1\x18\x80\3\6\1\5\1\0\0"
          "\3\1\x28\x80\0\7\xff\x4a\1\1");
    STEPS("sync", "pushed",
          "\1\2\x09\1\x11\1\0\1\2\x05\x10\5\1\0\0\5\0\1\2\x09\x10\5\1\0\0\5\3\1\x20\0\0\1\0\0"
          "\3\1\x18\0\2\1\4\5\1\0\0\3\1\x28\0\0");
}

/* All that a peer gives in session PLAN but for LOST, each part followed by an answer to what is
 * owed. */
static void merge_parts(struct buf *out, unsigned plan, unsigned lost)
{
    for (unsigned part = 0; part < 14; part++) {
        const char bytes[] = {4, 0, (char)plan, (char)part, 7, 0, 0, 0};

        if (part != lost)
            buf_add(out, bytes, sizeof bytes);
    }
}

static void seed_merges(void)
{
    static const char begin[] = "\1\2\1\0\x11\0\2\0\x0f\0", rest[] = "\x0f\0\7\0\0\0\x0f\0";
    struct buf out;

    /* A peer that has compacted: its vector, its chunks, the adoption; with a chunk lost, and its
     * session anew; with a commit that fails. */
    for (unsigned lost = 0; lost < 16; lost += 5) {
        char name[16];

        buf_init(&out, 0);
        buf_add(&out, begin, sizeof begin - 1);
        merge_parts(&out, 0, lost ? lost : 99);
        buf_add(&out, "\x4f\xff\x8f\xff\x4f\xff", 6);
        for (unsigned plan = 1; lost && plan < 4; plan++) {
            merge_parts(&out, plan, 99);
            buf_add(&out, "\x4f\xff\x8f\xff", 4);
        }
        buf_add(&out, rest, sizeof rest - 1);
        CHECK(buf_check(&out) == 0);
        (void)snprintf(name, sizeof name, "taken-%u", lost);
        seed("merge", name, out.data, out.len);
        buf_release(&out);
    }
    /* Rows that differ: our sums, the peer's, a range. */
    buf_init(&out, 0);
    buf_add(&out, "\1\2\1\0\3\0\x8f\x10\3\0\x0f\0\7\0\0\0\x12\x0d\0\7", 20);
    merge_parts(&out, 0, 99);
    buf_add(&out, "\x0f\0\x0d\0\x0b\7\0\0\0\x22", 10);
    merge_parts(&out, 1, 99);
    CHECK(buf_check(&out) == 0);
    seed("merge", "differs", out.data, out.len);
    buf_release(&out);
    /* Asked for all, with credit, by one who then has it; for a range; for sums. */
    STEPS("merge", "given",
          "\1\2\0\0\2\7\1\0\x0a\0\x48\xff\xff\x0f\7\0\0\0\5\7\0\0\0\5\7\0\0\0\x85"
          "\7\0\0\0\x85\7\0\0\0\5\x8b\0\0");
    STEPS("merge", "asked",
          "\1\2\1\0\x0a\0\1\xff\xff\1\7\0\0\0\x90\x0b\0\1\xff\xff\xff\7\0\0\0\x10"
          "\x0c\0\x32\7\0\0\0\x81\7\0\0\0\1");
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    root = argv[1];
    seed_http();
    seed_range();
    seed_small();
    seed_config();
    seed_headers();
    seed_events();
    seed_probes();
    seed_sync();
    seed_bodies();
    seed_operate();
    seed_segment();
    seed_recovery();
    seed_large();
    seed_texts();
    seed_store_dirs();
    seed_cores();
    seed_merges();
    seed_cloud();
    seed_probe("two", 2, 30, false);
    seed_probe("many", 14, 20, true);
    seed_probe("silent", 5, 4, true);
    return 0;
}
