/*
 * objctl's own: what its commands share. A command is a function of its arguments that returns an
 * exit code; it says what went wrong on stderr before.
 */
#ifndef CMD_OBJCTL_H
#define CMD_OBJCTL_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes (sysexits.h); objctl(1) lists them. */
enum ctl_exit {
    CTL_OK = 0,
    CTL_SOME_FAILED = 1,  /* of several, some; or something damaged was found */
    CTL_USAGE = 64,       /* a wrong command line */
    CTL_NOT_FOUND = 66,   /* no such object, or no such file to read */
    CTL_UNREACHABLE = 69, /* no node answers */
    CTL_EXISTS = 73,      /* what is to be made is there already */
    CTL_IO = 74,          /* a local file or the disk fails */
    CTL_LOCKED = 75,      /* the node runs: stop it first */
    CTL_REFUSED = 76,     /* the node says no, or what it sends is not what it promised */
    CTL_PERMISSION = 77,  /* not allowed */
    CTL_CONFIG = 78,      /* directories of another store or version */
};

/* What every command understands. */
struct ctl {
    const char *addr; /* "host:port" as given; NULL: the default */
    const char *state_dir, *files_dir;
    bool quiet; /* no progress, no summaries */
};

/* Long options that commands share; a command's table ends with those that mean something to it. */
enum {
    CTL_OPT_ADDR = 1000,
    CTL_OPT_STATE,
    CTL_OPT_FILES,
    CTL_OPT_FIRST, /* commands number their own from here */
};
/* Of the commands that call a node, and of those that work on its directories. */
#define CTL_NODE_OPTIONS {"addr", required_argument, NULL, CTL_OPT_ADDR}, CTL_OPTIONS
#define CTL_BOTH_OPTIONS                                                                           \
    {"addr", required_argument, NULL, CTL_OPT_ADDR},                                               \
        {"state-dir", required_argument, NULL, CTL_OPT_STATE}, CTL_OPTIONS
#define CTL_DIR_OPTIONS                                                                            \
    {"state-dir", required_argument, NULL, CTL_OPT_STATE},                                         \
        {"files-dir", required_argument, NULL, CTL_OPT_FILES}, CTL_OPTIONS
#define CTL_OPTIONS                                                                                \
    {"quiet", no_argument, NULL, 'q'}, {"help", no_argument, NULL, 'h'},                           \
    {                                                                                              \
        NULL, 0, NULL, 0                                                                           \
    }

/*
 * The next option of a command, as getopt_long with LETTERS and OPTIONS; the common ones are taken
 * care of. -1: no more, the arguments begin at optind. '?': a wrong one (getopt has said so), or
 * help was asked for and shown: *CODE is what to return.
 */
int ctl_option(struct ctl *ctl, int argc, char **argv, const char *letters,
               const struct option *options, int *code);

/* Say "objctl: …" on stderr; returns CODE. Thread-safe: one line is one write. */
int ctl_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same, where quiet has not been asked for. */
void ctl_say(const struct ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The exit code that fits an enum err of the local disk or store. */
int ctl_exit_of(int rc);

/* "12.3 MiB" into OUT. */
#define SIZE_TEXT_BYTES 32
void ctl_size(char out[SIZE_TEXT_BYTES], uint64_t bytes);

/* The two commands' usage, and the functions that main calls: argv[0] is the command's name. */
int ctl_put(struct ctl *ctl, int argc, char **argv);
int ctl_get(struct ctl *ctl, int argc, char **argv);
int ctl_meta(struct ctl *ctl, int argc, char **argv);
int ctl_rm(struct ctl *ctl, int argc, char **argv);
int ctl_stats(struct ctl *ctl, int argc, char **argv);
int ctl_cluster(struct ctl *ctl, int argc, char **argv);
int ctl_journal(struct ctl *ctl, int argc, char **argv);
int ctl_verify(struct ctl *ctl, int argc, char **argv);
int ctl_node(struct ctl *ctl, int argc, char **argv);
int ctl_cloud(struct ctl *ctl, int argc, char **argv);
int ctl_backup(struct ctl *ctl, int argc, char **argv);

#endif
