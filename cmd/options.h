/*
 * The daemon's settings: command line, environment, configuration file, defaults; the earlier wins.
 * Every value is checked, those that are overridden too.
 */
#ifndef CMD_OPTIONS_H
#define CMD_OPTIONS_H

#include "base/limits.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define OPTIONS_MAX_NODES   LIMIT_SEEDS
#define OPTIONS_MAX_STRANGE 16

#define OPTIONS_CLOUD_PREFIX_BYTES 256

/* Exit codes of the daemon (sysexits.h). */
enum exit_code {
    EXIT_USAGE = 64,         /* a wrong command line */
    EXIT_UNAVAILABLE = 69,   /* an address cannot be listened on */
    EXIT_CANNOT_CREATE = 73, /* a directory or file cannot be made */
    EXIT_IO = 74,            /* the disk fails, or what lies on it is damaged */
    EXIT_LOCKED = 75,        /* another process runs on these directories */
    EXIT_CONFIG = 78,        /* a wrong setting, or files of another store or version */
};

enum options_action { OPTIONS_RUN, OPTIONS_SHOW_HELP, OPTIONS_SHOW_VERSION };
enum options_commit { COMMIT_WRITETHROUGH, COMMIT_WRITEBACK };
enum options_range_cache { RANGE_CACHE_ON, RANGE_CACHE_OFF };
enum options_isolated { ISOLATED_SERVE, ISOLATED_REFUSE };
enum options_durability { DURABILITY_FULL, DURABILITY_ASYNC };

/* Texts are owned by the options; never NULL unless it says so. */
struct options {
    enum options_action action;
    uint64_t debug;                 /* 0 or 1 */
    char *nodes[OPTIONS_MAX_NODES]; /* "host:port" each */
    unsigned node_count;
    char *tag, *private_addr, *debug_addr, *public_addr; /* debug_addr: "" = none */
    char *replace;                                       /* "" = nobody */
    char *advertise_addr;                                /* "" = what others see */
    char *cluster_secret_file;                           /* "" = none */
    char *state_dir, *files_dir;                         /* without a slash at the end */
    char *region, *bucket;                               /* bucket: "" = none */
    char *cloud;     /* s3, dir:PATH, none; "" = S3 where there is a bucket */
    uint64_t commit; /* enum options_commit */
    uint64_t outbox_copies;
    char *cloud_prefix;                    /* "" = none */
    char *s3_endpoint;                     /* "" = Amazon's */
    char *s3_ca_file;                      /* "" = the system's */
    char *egress_price;                    /* of 10^9 bytes, decimal */
    char *config;                          /* the file read, "" = none */
    uint64_t memory_bytes, max_body_bytes; /* max_body_bytes: 0 = unlimited */
    uint64_t disk_cache_bytes;             /* 0: none */
    uint64_t range_cache;                  /* enum options_range_cache */
    uint64_t durability;                   /* enum options_durability */
    uint64_t anonymous;                    /* enum anonymous of api/guard.h */
    uint64_t isolated;                     /* enum options_isolated */
    uint64_t log_format;                   /* enum log_format */
    uint64_t scrub_interval_ms;            /* 0 = off */
    uint64_t workers;                      /* 0 = one per CPU */
    uint64_t segment_bytes;                /* 0 = the default */
    uint64_t http_deadline_ms;             /* 0 = the defaults */
    uint64_t s3_download_concurrency;      /* at least 1 */
    uint64_t access_log, accept_data_loss; /* booleans … */
    uint64_t s3_path_style;                /* … likewise */

    /* Variables named OBJSTORE_… that are no option: worth a warning. Lent from the environment,
     * without their values. */
    const char *strange[OPTIONS_MAX_STRANGE];
    unsigned strange_count;
    void *given; /* who said what: see options_describe */
};

/*
 * Read all sources: ENVIRONMENT is a NULL-terminated list of NAME=VALUE. 0, or the exit code to end
 * with: EXIT_USAGE (command line) or EXIT_CONFIG (environment, file); MESSAGE (CAP bytes) is then
 * one line that names the setting and where it stands, or empty where getopt has printed one.
 * Release OUT in every case.
 */
int options_read(struct options *out, int argc, char **argv, char *const *environment,
                 char *message, size_t cap);
void options_release(struct options *options);

void options_print_help(FILE *to);

/* Somebody set option NAME: it is not the default. */
bool options_given(const struct options *options, const char *name);

/* What the two options about it come to. */
enum options_cloud { CLOUD_NONE, CLOUD_S3, CLOUD_DIRECTORY };
enum options_cloud options_cloud(const struct options *options);
/* The path behind "dir:"; CLOUD_DIRECTORY alone. */
const char *options_cloud_directory(const struct options *options);

/* What was set, with its source, as "name=value (source), …" into OUT (CAP bytes; cut where it is
 * longer); "" where all are defaults. */
void options_describe(const struct options *options, char *out, size_t cap);

#endif
