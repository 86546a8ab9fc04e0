/*
 * One thread walks the trees and fills a small queue of paths; JOBS threads, each with a connection
 * of its own, take from it. The queue's bound keeps a walk over millions of files small.
 *
 * A line is "ID  PATH", as sha256sum prints them: where the path has a newline or a backslash in
 * it, the line begins with a backslash and they are written \n and \\.
 *
 * Failure: a file that fails is named on stderr and counted, and the others go on. When the node
 * stays away longer than the uploads are patient, the whole command ends, rather than wait that
 * long for every file.
 */
#include "cmd/objctl_tree.h"

#include "base/env.h"
#include "cmd/objctl_progress.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QUEUE_PATHS 256

/* A file to store: where it is, and the part of that which becomes its name. */
struct item {
    char *path;
    size_t name_at;
    bool named; /* on the command line: there a symbolic link is followed */
};

struct tree {
    const struct ctl *ctl;
    const struct upload_options *options;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct item queue[QUEUE_PATHS];
    unsigned first, length;
    bool walked; /* nothing more comes */
    int ended;   /* an exit code: everybody stops */

    uint64_t stored, bytes, failed, skipped, pending;
};

/* ---- The queue ---- */

/* False where the command ends. The item's path is owned by the queue in either case. */
static bool give(struct tree *tree, struct item item)
{
    (void)pthread_mutex_lock(&tree->lock);
    while (tree->length == QUEUE_PATHS && !tree->ended)
        (void)pthread_cond_wait(&tree->changed, &tree->lock);
    bool going = !tree->ended;
    if (going) {
        tree->queue[(tree->first + tree->length++) % QUEUE_PATHS] = item;
        (void)pthread_cond_broadcast(&tree->changed);
    }
    (void)pthread_mutex_unlock(&tree->lock);
    if (!going)
        free(item.path);
    return going;
}

static bool take(struct tree *tree, struct item *out)
{
    (void)pthread_mutex_lock(&tree->lock);
    while (tree->length == 0 && !tree->walked && !tree->ended)
        (void)pthread_cond_wait(&tree->changed, &tree->lock);
    bool got = tree->length > 0 && !tree->ended;
    if (got) {
        *out = tree->queue[tree->first];
        tree->first = (tree->first + 1) % QUEUE_PATHS;
        tree->length--;
        (void)pthread_cond_broadcast(&tree->changed);
    }
    (void)pthread_mutex_unlock(&tree->lock);
    return got;
}

static void count(struct tree *tree, uint64_t *counter)
{
    (void)pthread_mutex_lock(&tree->lock);
    ++*counter;
    (void)pthread_mutex_unlock(&tree->lock);
}

static void end_all(struct tree *tree, int code)
{
    (void)pthread_mutex_lock(&tree->lock);
    if (code && !tree->ended)
        tree->ended = code;
    tree->walked = true;
    (void)pthread_cond_broadcast(&tree->changed);
    (void)pthread_mutex_unlock(&tree->lock);
}

/* ---- The uploads ---- */

/* Called with the lock: lines of several threads must not mix. */
static void print_line(const struct upload *upload)
{
    bool escape = strpbrk(upload->path, "\n\r\\") != NULL;

    (void)printf("%s%s  ", escape ? "\\" : "", upload->id_text);
    for (const char *c = upload->path; *c; c++) {
        if (*c == '\n')
            (void)fputs("\\n", stdout);
        else if (*c == '\r')
            (void)fputs("\\r", stdout);
        else if (*c == '\\')
            (void)fputs("\\\\", stdout);
        else
            (void)putchar(*c);
    }
    (void)putchar('\n');
}

static void store(struct tree *tree, struct uploader *uploader, const struct item *item)
{
    struct upload upload = {.path = item->path};

    upload.fd =
        open(item->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (item->named ? 0 : O_NOFOLLOW));
    if (upload.fd < 0) {
        (void)ctl_fail(0, "%s: %s", item->path, strerror(errno));
        count(tree, &tree->failed);
        return;
    }
    char *name = upload_name(item->path + item->name_at);
    int code = CTL_IO;
    if (name) {
        upload.name = name;
        upload.id = ulid_make(env_system(), env_wall_ms(env_system()));
        code = upload_file(uploader, &upload);
    } else {
        (void)ctl_fail(0, "%s: the name is too long", item->path);
    }
    free(name);
    (void)close(upload.fd);
    progress_add(0, 1);

    (void)pthread_mutex_lock(&tree->lock);
    if (code == CTL_OK) {
        tree->stored++;
        tree->bytes += upload.size;
        tree->pending += upload.pending;
        print_line(&upload);
    } else {
        tree->failed++;
    }
    (void)pthread_mutex_unlock(&tree->lock);
    if (code == CTL_UNREACHABLE)
        end_all(tree, code);
}

static void *work(void *arg)
{
    struct tree *tree = arg;
    struct uploader uploader;
    struct item item;

    int code = uploader_open(&uploader, tree->ctl->addr, tree->options);
    if (code)
        end_all(tree, code);
    while (code == CTL_OK && take(tree, &item)) {
        store(tree, &uploader, &item);
        free(item.path);
    }
    uploader_close(&uploader);
    return NULL;
}

/* ---- The walk ---- */

/* Where in PATH the object's name begins: with the last part of ROOT, as cp would name the copy. */
static size_t name_offset(const char *root)
{
    size_t len = strlen(root);

    while (len > 1 && root[len - 1] == '/')
        len--;
    while (len > 0 && root[len - 1] != '/')
        len--;
    return len;
}

/* One entry of the walk; false: end it. */
static bool visit(struct tree *tree, const FTSENT *entry, const char *root)
{
    size_t name_at = name_offset(root);
    char *path;

    switch (entry->fts_info) {
    case FTS_F:
        path = strdup(entry->fts_path);
        if (path && name_at < strlen(path))
            return give(tree, (struct item){path, name_at, entry->fts_level == FTS_ROOTLEVEL});
        free(path);
        count(tree, &tree->failed);
        return true;
    case FTS_D:
    case FTS_DP:
        return true;
    case FTS_NS:
    case FTS_DNR:
    case FTS_ERR:
        (void)ctl_fail(0, "%s: %s", entry->fts_path, strerror(entry->fts_errno));
        count(tree, &tree->failed);
        return true;
    default: /* symbolic links, pipes, devices, loops */
        count(tree, &tree->skipped);
        return true;
    }
}

static void walk(struct tree *tree, const char *root)
{
    char *copy = strdup(root);
    char *roots[] = {copy, NULL};
    FTS *fts = copy ? fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, NULL) : NULL;
    bool going = fts != NULL;

    if (!fts) {
        (void)ctl_fail(0, "%s: %s", root, strerror(errno));
        count(tree, &tree->failed);
    }
    while (going) {
        FTSENT *entry = fts_read(fts);

        going = entry && visit(tree, entry, root);
    }
    if (fts)
        (void)fts_close(fts);
    free(copy);
}

static int summary(const struct tree *tree)
{
    char size[SIZE_TEXT_BYTES];

    ctl_size(size, tree->bytes);
    ctl_say(tree->ctl, "%llu stored (%s), %llu skipped, %llu failed",
            (unsigned long long)tree->stored, size, (unsigned long long)tree->skipped,
            (unsigned long long)tree->failed);
    if (tree->pending)
        ctl_say(tree->ctl, "%llu wait for what their level promises beyond this node",
                (unsigned long long)tree->pending);
    if (tree->ended)
        return tree->ended;
    return tree->failed ? CTL_SOME_FAILED : CTL_OK;
}

int tree_put(const struct ctl *ctl, const struct upload_options *options, unsigned jobs, int count,
             char **paths)
{
    struct tree *tree = calloc(1, sizeof *tree);
    pthread_t threads[TREE_MAX_JOBS];
    unsigned started = 0;

    assert(jobs > 0 && jobs <= TREE_MAX_JOBS);
    if (!tree)
        return ctl_fail(CTL_IO, "out of memory");
    tree->ctl = ctl;
    tree->options = options;
    (void)pthread_mutex_init(&tree->lock, NULL);
    (void)pthread_cond_init(&tree->changed, NULL);
    progress_begin(ctl, "put", 0, true);
    while (started < jobs && pthread_create(&threads[started], NULL, work, tree) == 0)
        started++;
    if (started == 0)
        end_all(tree, ctl_fail(CTL_IO, "cannot start a thread"));
    for (int i = 0; i < count && started > 0; i++)
        walk(tree, paths[i]);
    end_all(tree, CTL_OK);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL);
    progress_end();
    for (; tree->length > 0; tree->length--, tree->first = (tree->first + 1) % QUEUE_PATHS)
        free(tree->queue[tree->first].path);
    int code = summary(tree);
    (void)pthread_cond_destroy(&tree->changed);
    (void)pthread_mutex_destroy(&tree->lock);
    free(tree);
    return code;
}
