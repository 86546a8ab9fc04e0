/*
 * put: files, standard input, and with -r trees (objctl_tree.c). Prints one id a line, in the order
 * of the arguments, each as soon as the node has answered.
 */
#include "cmd/objctl_tree.h"

#include "base/env.h"
#include "base/limits.h"
#include "base/text.h"
#include "cmd/objctl_meta.h"
#include "cmd/objctl_progress.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_JOBS     8
#define DEFAULT_RETRY_MS 30000

struct put {
    struct ctl *ctl;
    struct upload_options options;
    struct user_meta user_meta;
    bool recursive, has_id;
    unsigned jobs; /* 0: not said */
    struct id128 id;
    const char *name;
};

enum { OPT_ID = CTL_OPT_FIRST, OPT_NAME, OPT_TYPE, OPT_LEVEL, OPT_META, OPT_RETRY };

static const struct option options[] = {
    {"recursive", no_argument, NULL, 'r'},
    {"jobs", required_argument, NULL, 'j'},
    {"id", required_argument, NULL, OPT_ID},
    {"name", required_argument, NULL, OPT_NAME},
    {"type", required_argument, NULL, OPT_TYPE},
    {"level", required_argument, NULL, OPT_LEVEL},
    {"meta", required_argument, NULL, OPT_META},
    {"retry", required_argument, NULL, OPT_RETRY},
    CTL_NODE_OPTIONS,
};

static int take_option(struct put *put, int key)
{
    uint64_t number;

    switch (key) {
    case 'r':
        put->recursive = true;
        return CTL_OK;
    case 'j':
        if (parse_u64(&number, optarg, strlen(optarg), TREE_MAX_JOBS) || number == 0)
            return ctl_fail(CTL_USAGE, "--jobs: '%s' is not 1 to %d", optarg, TREE_MAX_JOBS);
        put->jobs = (unsigned)number;
        return CTL_OK;
    case OPT_ID:
        if (ulid_parse(&put->id, optarg, strlen(optarg)) || ulid_check_time(&put->id))
            return ctl_fail(CTL_USAGE, "--id: '%s' is not an id", optarg);
        put->has_id = true;
        return CTL_OK;
    case OPT_NAME:
        put->name = optarg;
        return CTL_OK;
    case OPT_TYPE:
        put->options.type = optarg;
        return ctl_check_line("--type", optarg);
    case OPT_LEVEL:
        put->options.level = optarg;
        return ctl_check_level(optarg);
    case OPT_META:
        return user_meta_add(&put->user_meta, optarg);
    case OPT_RETRY:
        if (parse_duration_ms(&put->options.retry_ms, optarg))
            return ctl_fail(CTL_USAGE, "--retry: '%s' is not a duration such as 30s", optarg);
        return CTL_OK;
    default:
        return CTL_USAGE;
    }
}

static int put_one(struct put *put, struct uploader *uploader, const char *path)
{
    bool standard = strcmp(path, "-") == 0;
    const char *slash = strrchr(path, '/');
    const char *name = put->name ? put->name : standard ? NULL : slash ? slash + 1 : path;
    struct upload upload = {.path = standard ? "standard input" : path};
    struct stat stat;

    upload.fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (upload.fd < 0)
        return ctl_fail(errno == EACCES ? CTL_PERMISSION : CTL_NOT_FOUND, "%s: %s", path,
                        strerror(errno));
    char *fitting = name ? upload_name(name) : NULL;
    int code = CTL_OK;
    if (name && !fitting) {
        code = ctl_fail(CTL_USAGE, "%s: the name is too long", path);
        goto out;
    }
    upload.name = fitting;
    upload.id = put->has_id ? put->id : ulid_make(env_system(), env_wall_ms(env_system()));
    bool sized = fstat(upload.fd, &stat) == 0 && S_ISREG(stat.st_mode);
    progress_begin(put->ctl, name ? name : upload.path, sized ? (uint64_t)stat.st_size : 0, false);
    code = upload_file(uploader, &upload);
    progress_end();
    if (code == CTL_OK) {
        (void)puts(upload.id_text);
        (void)fflush(stdout);
    }
    if (code == CTL_OK && upload.pending)
        ctl_say(put->ctl, "%s: stored on the node; what its level promises beyond is queued",
                upload.path);
out:
    free(fitting);
    if (!standard)
        (void)close(upload.fd);
    return code;
}

static int put_files(struct put *put, int count, char **paths)
{
    struct uploader uploader;
    int failures = 0, last = CTL_OK;

    int code = uploader_open(&uploader, put->ctl->addr, &put->options);
    for (int i = 0; code == CTL_OK && i < count; i++) {
        int one = put_one(put, &uploader, paths[i]);

        failures += one != CTL_OK;
        last = one ? one : last;
        if (one == CTL_UNREACHABLE)
            code = one;
    }
    uploader_close(&uploader);
    if (code || failures == 0)
        return code;
    return failures == count ? last : CTL_SOME_FAILED;
}

int ctl_put(struct ctl *ctl, int argc, char **argv)
{
    struct put put = {.ctl = ctl, .options = {.retry_ms = DEFAULT_RETRY_MS}};
    int key, code = CTL_OK;

    while (code == CTL_OK && (key = ctl_option(ctl, argc, argv, "rj:", options, &code)) != -1) {
        if (key == '?') {
            user_meta_release(&put.user_meta);
            return code;
        }
        code = take_option(&put, key);
    }
    int count = argc - optind;
    if (code == CTL_OK && count == 0)
        code = ctl_fail(CTL_USAGE, "put what? Name files, or '-' for standard input");
    if (code == CTL_OK && (put.has_id || put.name) && (count > 1 || put.recursive))
        code = ctl_fail(CTL_USAGE, "--id and --name are for a single file");
    if (code == CTL_OK && put.jobs && !put.recursive)
        code = ctl_fail(CTL_USAGE, "--jobs is for trees: put -r");
    if (code == CTL_OK)
        code = user_meta_text(&put.user_meta, &put.options.user_meta);
    if (code == CTL_OK && put.recursive)
        code =
            tree_put(ctl, &put.options, put.jobs ? put.jobs : DEFAULT_JOBS, count, argv + optind);
    else if (code == CTL_OK)
        code = put_files(&put, count, argv + optind);
    user_meta_release(&put.user_meta);
    return code;
}
