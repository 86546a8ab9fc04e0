/*
 * One row for each option, and how its text is read and judged. A new option is a row here and a
 * member in options.h; the command line, the environment, the configuration file and --help follow.
 */
#include "cmd/options_table.h"

#include "base/limits.h"
#include "base/text.h"
#include "cmd/common_addr.h"
#include "journal/ulid.h"
#include "storage/cloud.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* ---- What texts may be ---- */

static const char *check_address(const char *text)
{
    struct addr addr;

    return addr_parse(&addr, text, 0) ? "must be HOST:PORT, [V6]:PORT or :PORT" : NULL;
}

static const char *check_address_or_none(const char *text)
{
    return *text ? check_address(text) : NULL;
}

/* Others are to connect to it, so it must say where. */
static const char *check_advertised(const char *text)
{
    struct addr addr;

    if (!*text)
        return NULL;
    return addr_parse(&addr, text, 0) || !*addr.host || addr.port == 0
               ? "must be HOST:PORT or [V6]:PORT"
               : NULL;
}

static const char *check_node(const char *text)
{
    struct id128 id;

    if (!*text)
        return NULL;
    return ulid_parse(&id, text, strlen(text)) ? "must be a node's id of 26 characters" : NULL;
}

static const char *check_directory(const char *text)
{
    return *text ? NULL : "must name a directory";
}

static const char *check_any(const char *text)
{
    (void)text;
    return NULL;
}

static const char *check_tag(const char *text)
{
    size_t len = strlen(text);

    if (len == 0 || len > 64 || !utf8_valid(text, len) || text_has_control(text, len))
        return "must be 1 to 64 bytes of text";
    return NULL;
}

static const char *check_region(const char *text)
{
    size_t len = strlen(text);

    if (len == 0 || len > 64 || strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") != len)
        return "must be a region name such as us-east-1";
    return NULL;
}

static const char *check_bucket(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789.-_";
    size_t len = strlen(text);

    if (len == 0)
        return NULL;
    if (len < 3 || len > 255 || strspn(text, allowed) != len)
        return "must be a bucket name: 3 to 255 letters, digits, dots, hyphens";
    return NULL;
}

static const char *check_cloud(const char *text)
{
    static const char dir[] = "dir:";

    if (!*text || strcmp(text, "s3") == 0 || strcmp(text, "none") == 0)
        return NULL;
    if (strncmp(text, dir, strlen(dir)) != 0)
        return "must be s3, dir:PATH or none";
    return text[strlen(dir)] && strlen(text) - strlen(dir) <= LIMIT_CLOUD_BUCKET_BYTES
               ? NULL
               : "dir: needs a path of at most 255 bytes";
}

static const char *check_cloud_prefix(const char *text)
{
    size_t len = strlen(text);

    if (len > OPTIONS_CLOUD_PREFIX_BYTES || !utf8_valid(text, len) || text_has_control(text, len))
        return "must be at most 256 bytes of text";
    return *text == '/' ? "must not begin with '/': keys do not" : NULL;
}

static const char *check_endpoint(const char *text)
{
    static const char *const schemes[] = {"http://", "https://"};

    if (!*text)
        return NULL;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t len = strlen(schemes[i]);
        const char *host = text + len;

        if (strncmp(text, schemes[i], len) == 0 && *host &&
            strcspn(host, "/?#@ \t") == strlen(host))
            return NULL;
    }
    return "must be http://HOST[:PORT] or https://HOST[:PORT]";
}

/* Money for a gigabyte, as 0.09. */
static const char *check_price(const char *text)
{
    size_t whole = strspn(text, "0123456789");
    const char *rest = text + whole;
    size_t parts = *rest == '.' ? strspn(rest + 1, "0123456789") : 0;

    if (whole == 0 || whole > 6 || parts > 6 || (*rest == '.' && (parts == 0 || rest[1 + parts])) ||
        (*rest && *rest != '.'))
        return "must be a price such as 0.09";
    return NULL;
}

/* ---- The table ---- */

#define AT(member) .offset = offsetof(struct options, member)

/* clang-format off */
const struct option_spec option_specs[OPTION_COUNT] = {
    {.name = "debug", .letter = 'd', .variable = "APP_DEBUG_LEVEL", .argument = "LEVEL",
     .standard = "0", .kind = KIND_NUMBER, .max = 1, AT(debug),
     .help = "Debug level: 0, or 1 for more log lines"},
    {.name = "nodes", .letter = 'N', .variable = "APP_CLUSTER_NODES",
     .argument = "HOST[:PORT],...", .kind = KIND_NODES, AT(nodes),
     .help = "Nodes of the cluster to join, one is enough; repeat it, or separate them by commas"},
    {.name = "tag", .letter = 'T', .variable = "APP_CLUSTER_TAGNAME", .argument = "NAME",
     .standard = "default", .kind = KIND_TEXT, .check = check_tag, AT(tag),
     .help = "Cluster tag name"},
    {.name = "cluster-secret-file", .argument = "FILE", .standard = "", .kind = KIND_TEXT,
     .check = check_any, AT(cluster_secret_file),
     .help = "File with the cluster's secret; without it nodes on this machine alone are let in"},
    {.name = "private-addr", .variable = "NET_PRIVATE_ADDR", .argument = "ADDRESS",
     .standard = "0.0.0.0:11999", .kind = KIND_TEXT, .check = check_address, AT(private_addr),
     .help = "Listen address for the other nodes"},
    {.name = "advertise-addr", .argument = "ADDRESS", .standard = "", .kind = KIND_TEXT,
     .check = check_advertised, AT(advertise_addr),
     .help = "Where the other nodes reach this one, if not at the address that they see"},
    {.name = "replace", .argument = "ID", .standard = "", .kind = KIND_TEXT, .check = check_node,
     AT(replace),
     .help = "Once it has joined, take the place of this member, which is dead: it is forgotten"},
    {.name = "debug-addr", .variable = "NET_DEBUG_ADDR", .argument = "ADDRESS", .standard = "",
     .kind = KIND_TEXT, .check = check_address_or_none, AT(debug_addr),
     .help = "Listen address for the private API over HTTP; this machine alone, unless it names an "
             "address"},
    {.name = "public-addr", .variable = "NET_PUBLIC_ADDR", .argument = "ADDRESS",
     .standard = "0.0.0.0:10999", .kind = KIND_TEXT, .check = check_address, AT(public_addr),
     .help = "Listen address for the public HTTP API"},
    {.name = "state-dir", .variable = "APP_STATE_DIR", .argument = "DIR", .standard = "state/",
     .kind = KIND_TEXT, .check = check_directory, AT(state_dir),
     .help = "Directory of the node's state and journal"},
    {.name = "files-dir", .variable = "APP_FILES_DIR", .argument = "DIR", .standard = "files/",
     .kind = KIND_TEXT, .check = check_directory, AT(files_dir),
     .help = "Directory of the log and the objects' bodies"},
    {.name = "region", .letter = 'R', .variable = "S3_REGION_NAME", .argument = "NAME",
     .standard = "us-east-1", .kind = KIND_TEXT, .check = check_region, AT(region),
     .help = "Amazon S3 region name"},
    {.name = "bucket", .letter = 'B', .variable = "S3_BUCKET_NAME", .argument = "NAME",
     .standard = "", .kind = KIND_TEXT, .check = check_bucket, AT(bucket),
     .help = "Amazon S3 bucket name"},
    {.name = "cloud", .argument = "s3|dir:PATH|none", .standard = "", .kind = KIND_TEXT,
     .check = check_cloud, AT(cloud),
     .help = "Where bodies of levels 1 and 2 go: S3, a directory, or nowhere; unless said, S3 where "
             "a bucket is given"},
    {.name = "commit", .argument = "writethrough|writeback", .standard = "writethrough",
     .kind = KIND_WORD, .words = "writethrough|writeback", AT(commit),
     .help = "What a put of level 1 or 2 waits for: that the cloud has the body, or that a second "
             "node has it"},
    {.name = "outbox-copies", .argument = "N", .standard = "2", .kind = KIND_NUMBER, .min = 1,
     .max = 2, AT(outbox_copies),
     .help = "Nodes that have a body for as long as it is owed to the cloud: 1 or 2"},
    {.name = "cloud-prefix", .argument = "TEXT", .standard = "", .kind = KIND_TEXT,
     .check = check_cloud_prefix, AT(cloud_prefix),
     .help = "What the keys that this cluster makes in the cloud begin with, before a '/'"},
    {.name = "s3-endpoint", .argument = "URL", .standard = "", .kind = KIND_TEXT,
     .check = check_endpoint, AT(s3_endpoint),
     .help = "Where S3 is, http[s]://HOST[:PORT], if not at Amazon's for the region"},
    {.name = "s3-path-style", .argument = "yes|no", .standard = "no", .kind = KIND_FLAG,
     AT(s3_path_style), .help = "Name the bucket in the path, not in the host's name"},
    {.name = "s3-ca-file", .argument = "FILE", .standard = "", .kind = KIND_TEXT,
     .check = check_any, AT(s3_ca_file),
     .help = "Certificates (PEM) by which S3's is judged, instead of the system's"},
    {.name = "s3-download-concurrency", .argument = "N", .standard = "1", .kind = KIND_NUMBER,
     .min = 1, .max = 16, AT(s3_download_concurrency),
     .help = "Parts of a large object that are fetched from S3 at once"},
    {.name = "egress-price", .argument = "PRICE", .standard = "0.09", .kind = KIND_TEXT,
     .check = check_price, AT(egress_price),
     .help = "What a gigabyte (10^9 bytes) out of the cloud costs, for the estimate in stats"},
    {.name = "memory", .argument = "SIZE", .standard = "64MiB", .kind = KIND_SIZE, .min = MIB,
     .max = UINT64_C(1) << 46, AT(memory_bytes),
     .help = "Memory for hot objects and slow readers"},
    {.name = "disk-cache", .argument = "SIZE", .standard = "1GiB", .kind = KIND_SIZE,
     .max = UINT64_C(1) << 46, AT(disk_cache_bytes),
     .help = "Disk for copies of bodies that clients asked for and other nodes have; 0: none"},
    {.name = "range-cache", .argument = "on|off", .standard = "on", .kind = KIND_WORD,
     .words = "on|off", AT(range_cache),
     .help = "What a range of a large body that only the cloud has brings into the disk cache: the "
             "parts of 8 MiB that it needs, or (off) all of the body, in the background"},
    {.name = "durability", .argument = "full|async", .standard = "full", .kind = KIND_WORD,
     .words = "full|async", AT(durability),
     .help = "full: an answer follows the disk's sync; async: it does not wait, and a crash of the "
             "machine loses what was answered last"},
    {.name = "max-body", .argument = "SIZE", .standard = "0", .kind = KIND_SIZE,
     .max = UINT64_C(1) << 62, AT(max_body_bytes), .help = "Largest body accepted; 0: any"},
    {.name = "anonymous", .argument = "none|read|write", .standard = "none", .kind = KIND_WORD,
     .words = "none|read|write", AT(anonymous),
     .help = "What clients beyond this machine may do"},
    {.name = "isolated", .argument = "serve|refuse", .standard = "serve", .kind = KIND_WORD,
     .words = "serve|refuse", AT(isolated),
     .help = "What a node does that hears less than half of its cluster: serve what it knows, or "
             "refuse, as that may be outdated"},
    {.name = "config", .argument = "FILE", .standard = "", .kind = KIND_TEXT, .check = check_any,
     AT(config), .help = "File of lines 'option = value'"},
    {.name = "log-format", .argument = "text|json", .standard = "text", .kind = KIND_WORD,
     .words = "text|json", AT(log_format), .help = "How log lines on stderr look"},
    {.name = "scrub-interval", .argument = "DURATION", .standard = "7d", .kind = KIND_DURATION,
     .max = UINT64_C(3650) * 86400000, AT(scrub_interval_ms),
     .help = "Read and verify every body once in this time; 0: never"},
    {.name = "access-log", .argument = "yes|no", .standard = "no", .kind = KIND_FLAG,
     AT(access_log), .help = "Log every request"},
    {.name = "accept-data-loss", .argument = "yes|no", .standard = "no", .kind = KIND_FLAG,
     AT(accept_data_loss),
     .help = "Start although files were lost, are older, or cannot be read"},
    {.name = "workers", .argument = "N", .standard = "0", .kind = KIND_NUMBER, .max = 64,
     AT(workers), .help = "Threads that serve HTTP; 0: one per CPU"},
    {.name = "segment-bytes", .argument = "SIZE", .standard = "0", .kind = KIND_SIZE,
     .min = 64 * KIB, .max = SEGMENT_BYTES, .zero = true, AT(segment_bytes), .hidden = true,
     .help = "Size of a log segment, for tests; 0: the default"},
    {.name = "http-deadline", .argument = "DURATION", .standard = "0", .kind = KIND_DURATION,
     .max = 3600000, AT(http_deadline_ms), .hidden = true,
     .help = "Each deadline of a connection, for tests; 0: the defaults"},
};
/* clang-format on */

const struct option_spec *option_by_name(const char *name, size_t len)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (strlen(option_specs[i].name) == len && memcmp(option_specs[i].name, name, len) == 0)
            return &option_specs[i];
    }
    return NULL;
}

void option_variable(char out[VARIABLE_BYTES], const struct option_spec *spec)
{
    size_t at = strlen(VARIABLE_PREFIX);

    memcpy(out, VARIABLE_PREFIX, at);
    for (const char *c = spec->name; *c; c++) {
        assert(at < VARIABLE_BYTES - 1);
        out[at++] = *c == '-' ? '_' : (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    }
    out[at] = 0;
}

bool option_is_directory(const struct option_spec *spec)
{
    return spec->check == check_directory;
}

/* ---- Numbers ---- */

static int parse_flag(uint64_t *out, const char *text)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i]) == 0) {
            *out = i % 2;
            return 0;
        }
    }
    return ERR_INVALID;
}

static int parse_word(uint64_t *out, const char *words, const char *text)
{
    size_t len = strlen(text);
    uint64_t index = 0;

    for (const char *at = words;; at++, index++) {
        size_t here = strcspn(at, "|");

        if (here == len && memcmp(at, text, len) == 0) {
            *out = index;
            return 0;
        }
        at += here;
        if (*at == 0)
            return ERR_INVALID;
    }
}

static int parse_kind(uint64_t *out, const struct option_spec *spec, const char *text,
                      const char **expected)
{
    switch (spec->kind) {
    case KIND_FLAG:
        *expected = "yes or no";
        return parse_flag(out, text);
    case KIND_NUMBER:
        *expected = "a number";
        return parse_u64(out, text, strlen(text), UINT64_MAX);
    case KIND_SIZE:
        *expected = "a size such as 64MiB";
        return parse_size(out, text);
    case KIND_DURATION:
        *expected = "a duration such as 12h or 7d";
        return parse_duration_ms(out, text);
    case KIND_WORD:
        *expected = spec->argument;
        return parse_word(out, spec->words, text);
    case KIND_TEXT:
    case KIND_NODES:
        break;
    }
    assert(!"not a number");
    return ERR_INVALID;
}

int option_number(uint64_t *out, const struct option_spec *spec, const char *text, char *message,
                  size_t cap)
{
    bool bounded = spec->kind != KIND_FLAG && spec->kind != KIND_WORD;
    const char *unit = "", *expected = NULL;

    int rc = parse_kind(out, spec, text, &expected);
    if (rc == ERR_INVALID) {
        (void)snprintf(message, cap, "'%s' is not %s%s", text,
                       spec->kind == KIND_WORD ? "one of " : "", expected);
        return rc;
    }
    bool off = rc == 0 && *out == 0 && spec->zero;
    if (off || (rc == 0 && (!bounded || (*out >= spec->min && *out <= spec->max))))
        return 0;
    if (spec->kind == KIND_SIZE)
        unit = " bytes";
    else if (spec->kind == KIND_DURATION)
        unit = " milliseconds";
    (void)snprintf(message, cap, "'%s' is outside %llu to %llu%s", text,
                   (unsigned long long)spec->min, (unsigned long long)spec->max, unit);
    return ERR_RANGE;
}
