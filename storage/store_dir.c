/*
 * Two directories, one store: locks, identity, generations.
 *
 * Happy path: take the locks that exist, look at both sides, decide whether they fit each other,
 * make what is missing, and write STORE with the next generation, files before state. Looking comes
 * before making, so that a start which is refused leaves nothing behind; where a LOCK had to be
 * made, both sides are looked at again under it.
 *
 *   state       files       decision
 *   nothing     nothing     a fresh store (generation 1)
 *   G           G, G + 1    G + 1 (one ahead: a crash came between the two writes)
 *   G           < G, none   files lost or old: refused, or accepted as a loss
 *   G           > G + 1     state is an old one: refused
 *   nothing     G           state lost: refused
 *   other files and no STORE on either side: refused, it is not ours
 *
 * A loss is written state first: a crash between then leaves the files behind, so the next start
 * refuses again rather than forgets that bodies are missing.
 *
 * Failure: every refusal leaves one line for the operator in MESSAGE. STORE and LOCK files made by
 * this call are removed. Directories cannot be (struct io has no call for it), therefore whether
 * they can be made is tried out on both sides before the first is.
 */
#include "storage/store_dir.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/text.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORE_BYTES      64
#define STORE_VERSION    1
#define LIMIT_GENERATION (UINT64_C(1) << 62)
#define STORE_MAGIC      UINT64_C(0x65726f74736a626f) /* "objstore" */

enum { STATE, FILES, SIDES };

static const char *const side_names[SIDES] = {"state directory", "files directory"};

struct side {
    const char *path;
    char *store_path, *lock_path;
    const char *guest; /* the other side's name in this one, where it is nested; else NULL */
    size_t guest_len;
    int lock_fd;
    bool exists, has_store, has_others;
    bool made_lock, wrote_store;
    struct id128 store;
    uint64_t generation;
};

struct opening {
    struct env *env;
    struct side sides[SIDES];
    bool inspect, accept_loss;
    bool fresh, behind;
    char *message;
    size_t cap;
};

static int refuse(struct opening *opening, int rc, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(struct opening *opening, int rc, const char *format, ...)
{
    va_list args;

    assert(rc < 0);
    va_start(args, format);
    (void)vsnprintf(opening->message, opening->cap, format, args);
    va_end(args);
    return rc;
}

/* "cannot VERB WHAT 'PATH': why". What leads nowhere, or through a file, is the system refusing us.
 */
static int cannot(struct opening *opening, int rc, const char *verb, int which)
{
    const char *why = err_text(rc);

    if (rc == ERR_NOT_FOUND || rc == ERR_EXISTS) {
        why = "it, or a part of its path, is not a directory";
        rc = ERR_PERMISSION;
    }
    return refuse(opening, rc, "cannot %s %s '%s': %s", verb, side_names[which],
                  opening->sides[which].path, why);
}

/* ---- The file STORE ---- */

/* magic 8 | version 4 | compat 4 | ro_compat 4 | incompat 4 | store 16 | generation 8 | side 4 |
 * zero 4 | checksum of all before 8 */
static void encode_store(uint8_t out[STORE_BYTES], const struct id128 *store, uint64_t generation,
                         int which)
{
    memset(out, 0, STORE_BYTES);
    put_u64(out, STORE_MAGIC);
    put_u32(out + 8, STORE_VERSION);
    memcpy(out + 24, store->bytes, sizeof store->bytes);
    put_u64(out + 40, generation);
    put_u32(out + 48, (uint32_t)which + 1);
    put_u64(out + 56, xxh64(out, 56, 0));
}

static int decode_store(struct opening *opening, int which, const uint8_t *in, size_t len)
{
    struct side *side = &opening->sides[which];

    if (len != STORE_BYTES || get_u64(in) != STORE_MAGIC || get_u64(in + 56) != xxh64(in, 56, 0))
        return refuse(opening, ERR_CORRUPT, "'%s' is damaged", side->store_path);
    /* Of a later version only its number can be relied on; an unknown ro_compat bit is refused too,
     * since a node writes. */
    if (get_u32(in + 8) != STORE_VERSION || get_u32(in + 16) != 0 || get_u32(in + 20) != 0)
        return refuse(opening, ERR_FORMAT, "'%s' is of a format that this version does not know",
                      side->store_path);
    if (get_u32(in + 48) != (uint32_t)which + 1)
        return refuse(opening, ERR_INVALID, "'%s' is not a %s: are the two swapped?", side->path,
                      side_names[which]);
    memcpy(side->store.bytes, in + 24, sizeof side->store.bytes);
    side->generation = get_u64(in + 40);
    if (side->generation == 0 || side->generation >= LIMIT_GENERATION)
        return refuse(opening, ERR_CORRUPT, "'%s' is damaged", side->store_path);
    side->has_store = true;
    return 0;
}

/* ---- Looking ---- */

static int see_name(void *arg, const char *name)
{
    static const char *const expected[] = {"LOCK", "STORE", "STORE.tmp", "lost+found"};
    struct side *side = arg;

    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        if (strcmp(name, expected[i]) == 0)
            return 0;
    if (side->guest && strlen(name) == side->guest_len &&
        memcmp(name, side->guest, side->guest_len) == 0)
        return 0;
    side->has_others = true;
    return 1;
}

static int look_at(struct opening *opening, int which)
{
    struct io *io = opening->env->io;
    struct side *side = &opening->sides[which];
    struct io_stat stat;
    char *data = NULL;
    size_t len;

    side->exists = side->has_store = side->has_others = false;
    int rc = io->stat(io, side->path, &stat);
    if (rc == ERR_NOT_FOUND)
        return 0;
    if (!rc && !stat.is_dir)
        rc = ERR_EXISTS;
    if (rc)
        return cannot(opening, rc, "use", which);
    side->exists = true;
    rc = io->list(io, side->path, see_name, side);
    if (rc < 0)
        return cannot(opening, rc, "read", which);
    rc = io_read_all(io, side->store_path, STORE_BYTES, &data, &len);
    if (!rc)
        rc = decode_store(opening, which, (const uint8_t *)data, len);
    else if (rc == ERR_TOO_BIG || rc == ERR_INVALID)
        rc = refuse(opening, ERR_CORRUPT, "'%s' is damaged", side->store_path);
    else if (rc != ERR_NOT_FOUND)
        rc = refuse(opening, rc, "cannot read '%s': %s", side->store_path, err_text(rc));
    else
        rc = ERR_NONE; /* a directory that is not in use yet */
    free(data);
    return rc;
}

static int take_lock(struct opening *opening, int which, bool create)
{
    struct io *io = opening->env->io;
    struct side *side = &opening->sides[which];

    if (side->lock_fd >= 0)
        return 0;
    int fd = create ? io_open(io, side->lock_path, IO_WRITE | IO_CREATE | IO_EXCLUSIVE)
                    : io_open(io, side->lock_path, IO_WRITE);
    if (fd == ERR_NOT_FOUND && !create)
        return 0;
    if (fd >= 0)
        side->made_lock = create;
    else if (fd == ERR_EXISTS) /* another process was faster by a moment */
        fd = io_open(io, side->lock_path, IO_WRITE);
    if (fd < 0)
        return refuse(opening, fd, "cannot open '%s': %s", side->lock_path, err_text(fd));
    side->lock_fd = fd;
    int rc = io->lock(io, fd);
    if (rc == ERR_LOCKED)
        return refuse(opening, rc, "%s '%s' is in use by another process", side_names[which],
                      side->path);
    if (rc)
        return refuse(opening, rc, "cannot lock '%s': %s", side->lock_path, err_text(rc));
    return 0;
}

/* ---- Deciding ---- */

static int decide(struct opening *opening)
{
    const struct side *state = &opening->sides[STATE], *files = &opening->sides[FILES];

    opening->fresh = opening->behind = false;
    for (int i = 0; i < SIDES; i++)
        if (!opening->sides[i].has_store && opening->sides[i].has_others)
            return refuse(opening, ERR_WRONG_STORE,
                          "%s '%s' holds files but no STORE: it is not one of ours, or lost it",
                          side_names[i], opening->sides[i].path);
    /* The files' STORE is written first. Where that is all there is, the very first start did not
     * get as far as the state's, let alone to a log. */
    bool unfinished = files->has_store && files->generation == 1 && !files->has_others;
    if (!state->has_store && (!files->has_store || unfinished)) {
        if (opening->inspect)
            return refuse(opening, ERR_WRONG_STORE, "there is no store in '%s' and '%s'",
                          state->path, files->path);
        opening->fresh = true;
        return 0;
    }
    if (!state->has_store)
        return refuse(opening, ERR_WRONG_STORE,
                      "state directory '%s' is missing or empty, but files directory '%s' is not",
                      state->path, files->path);
    if (files->has_store && !id_equal(&state->store, &files->store))
        return refuse(opening, ERR_WRONG_STORE,
                      "state directory '%s' and files directory '%s' belong to different stores",
                      state->path, files->path);
    if (files->has_store && files->generation > state->generation + 1)
        return refuse(opening, ERR_WRONG_STORE,
                      "state directory '%s' is older than files directory '%s'", state->path,
                      files->path);
    opening->behind = !files->has_store || files->generation < state->generation;
    if (opening->behind && !opening->accept_loss)
        return refuse(opening, ERR_WRONG_STORE,
                      "files directory '%s' is %s state directory '%s' (--accept-data-loss starts "
                      "without what is missing)",
                      files->path, files->has_store ? "older than" : "missing or empty, unlike",
                      state->path);
    return 0;
}

static int look_and_decide(struct opening *opening)
{
    int rc = look_at(opening, STATE);

    if (!rc)
        rc = look_at(opening, FILES);
    return rc ? rc : decide(opening);
}

/* ---- Making ---- */

/* Whether names can be made where PATH's first missing directory would be: by making one. */
static int try_parent(struct opening *opening, int which)
{
    struct io *io = opening->env->io;
    char *parent = strdup(opening->sides[which].path), *probe = NULL;
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    struct io_stat stat;
    int rc = ERR_NO_MEMORY;

    if (!parent)
        return rc;
    do {
        char *slash = strrchr(parent, '/');

        if (slash == parent)
            parent[1] = 0;
        else if (slash)
            *slash = 0;
        else
            memcpy(parent, ".", 2); /* in place of a name, which is not empty */
        rc = io->stat(io, parent, &stat);
    } while (rc == ERR_NOT_FOUND && strcmp(parent, ".") != 0 && strcmp(parent, "/") != 0);
    if (rc)
        goto out;
    opening->env->random(opening->env, random, sizeof random);
    hex_encode(hex, random, sizeof random);
    if (asprintf(&probe, "%s/.objstore-%s", parent, hex) < 0) {
        probe = NULL;
        rc = ERR_NO_MEMORY;
        goto out;
    }
    int fd = io_open(io, probe, IO_WRITE | IO_CREATE | IO_EXCLUSIVE);
    if (fd < 0) {
        rc = fd;
        goto out;
    }
    rc = io_close(io, &fd);
    int removed = io->unlink(io, probe);
    if (!rc)
        rc = removed;
out:
    free(probe);
    free(parent);
    return rc;
}

static int make_missing(struct opening *opening)
{
    struct io *io = opening->env->io;
    bool locked_both = opening->sides[STATE].lock_fd >= 0 && opening->sides[FILES].lock_fd >= 0;
    int rc = ERR_NONE;

    for (int i = 0; i < SIDES && !rc; i++)
        if (!opening->sides[i].exists && (rc = try_parent(opening, i)) != 0)
            return cannot(opening, rc, "make", i);
    for (int i = 0; i < SIDES && !rc; i++)
        if (!opening->sides[i].exists && (rc = io_mkdirs(io, opening->sides[i].path)) != 0)
            return cannot(opening, rc, "make", i);
    for (int i = 0; i < SIDES && !rc; i++)
        rc = take_lock(opening, i, true);
    if (rc || locked_both)
        return rc;
    /* Somebody may have begun and ended between our look and our lock. */
    return look_and_decide(opening);
}

static int write_store(struct opening *opening, int which, const struct id128 *store,
                       uint64_t generation)
{
    struct side *side = &opening->sides[which];
    uint8_t bytes[STORE_BYTES];

    encode_store(bytes, store, generation, which);
    side->wrote_store = true;
    int rc = io_replace(opening->env->io, side->store_path, bytes, sizeof bytes);
    if (rc)
        return refuse(opening, rc, "cannot write '%s': %s", side->store_path, err_text(rc));
    return 0;
}

/* A start that died, or whose disk failed, may have left PATH without its name being durable: all
 * that is stored in it from now on would go with it. Where the user may not look there is nothing
 * that an earlier start could have made. */
static int sync_ancestors(struct opening *opening, const char *path)
{
    struct io *io = opening->env->io;
    char *prefix = strdup(path);
    int rc = prefix ? ERR_NONE : ERR_NO_MEMORY;

    for (bool more = true; !rc && more;) {
        char *slash = strrchr(prefix, '/');

        more = slash && slash != prefix;
        if (slash)
            slash[slash == prefix] = 0;
        rc = io->sync_dir(io, slash ? prefix : ".");
        if (rc != ERR_IO)
            rc = 0;
    }
    free(prefix);
    if (rc)
        return refuse(opening, rc, "cannot sync what '%s' lies in: %s", path, err_text(rc));
    return 0;
}

static int choose_generation(struct opening *opening, struct store_dirs *dirs)
{
    dirs->store = opening->sides[STATE].store;
    if (opening->fresh)
        opening->env->random(opening->env, dirs->store.bytes, sizeof dirs->store.bytes);
    /* One above the state's even where the files are ahead: nothing was done in that generation. */
    dirs->generation = opening->fresh ? 1 : opening->sides[STATE].generation + 1;
    if (dirs->generation >= LIMIT_GENERATION) /* what no start would read again is not written */
        return refuse(opening, ERR_CORRUPT, "'%s' is damaged", opening->sides[STATE].store_path);
    if (!opening->fresh)
        return 0; /* store_dirs_begin writes it, once the start has succeeded */
    int rc = 0;

    for (int i = 0; i < SIDES && !rc; i++)
        rc = sync_ancestors(opening, opening->sides[i].path);
    if (!rc)
        rc = write_store(opening, FILES, &dirs->store, dirs->generation);
    return rc ? rc : write_store(opening, STATE, &dirs->store, dirs->generation);
}

/* Remove what this call made. Best effort: what brought us here may be a failing disk. */
static void undo(struct opening *opening)
{
    struct io *io = opening->env->io;

    for (int i = 0; i < SIDES; i++) {
        struct side *side = &opening->sides[i];

        if (side->wrote_store && !side->has_store)
            (void)io->unlink(io, side->store_path);
        if (side->made_lock)
            (void)io->unlink(io, side->lock_path);
        (void)io_close(io, &side->lock_fd);
    }
}

/* ---- The calls ---- */

/* PATH without slashes at its end, in a fresh string; NULL where memory is short. */
static char *without_slash(const char *path)
{
    size_t len = strlen(path);

    while (len > 1 && path[len - 1] == '/')
        len--;
    return strndup(path, len);
}

/* Where INNER lies in SIDE's directory, its name there is no foreign file. */
static void find_guest(struct side *side, const struct side *inner)
{
    size_t len = strlen(side->path);

    if (strncmp(inner->path, side->path, len) != 0)
        return;
    if (inner->path[len] == '/')
        len++;
    else if (side->path[len - 1] != '/')
        return;
    side->guest = inner->path + len;
    side->guest_len = strcspn(side->guest, "/");
}

static int prepare(struct opening *opening, const char *const paths[SIDES])
{
    for (int i = 0; i < SIDES; i++) {
        struct side *side = &opening->sides[i];

        if (!paths[i][0])
            return refuse(opening, ERR_INVALID, "the path of the %s is empty", side_names[i]);
        side->store_path = io_join(paths[i], "STORE");
        side->lock_path = io_join(paths[i], "LOCK");
        if (!side->store_path || !side->lock_path)
            return refuse(opening, ERR_NO_MEMORY, "out of memory");
    }
    if (strcmp(paths[STATE], paths[FILES]) == 0)
        return refuse(opening, ERR_INVALID, "state and files directory are both '%s'",
                      paths[STATE]);
    find_guest(&opening->sides[STATE], &opening->sides[FILES]);
    find_guest(&opening->sides[FILES], &opening->sides[STATE]);
    return 0;
}

static int open_both(struct opening *opening, struct store_dirs *dirs)
{
    int rc = ERR_NONE;

    for (int i = 0; i < SIDES && !rc; i++)
        rc = take_lock(opening, i, false);
    if (!rc)
        rc = look_and_decide(opening);
    if (!rc)
        rc = make_missing(opening);
    if (!rc && opening->inspect) {
        dirs->store = opening->sides[STATE].store;
        dirs->generation = opening->sides[STATE].generation;
    } else if (!rc) {
        rc = choose_generation(opening, dirs);
    }
    return rc;
}

static int open_dirs(struct store_dirs *dirs, struct env *env, const char *state_dir,
                     const char *files_dir, bool inspect, bool accept_loss, char *message,
                     size_t cap)
{
    char *paths[SIDES] = {without_slash(state_dir), without_slash(files_dir)};
    struct opening opening = {
        .env = env,
        .sides = {{.path = paths[STATE], .lock_fd = -1}, {.path = paths[FILES], .lock_fd = -1}},
        .inspect = inspect,
        .accept_loss = accept_loss,
        .message = message,
        .cap = cap,
    };
    int rc;

    assert(cap > 0);
    message[0] = 0;
    *dirs = (struct store_dirs){
        .env = env, .state_dir = state_dir, .files_dir = files_dir, .lock_fds = {-1, -1}};
    if (!paths[STATE] || !paths[FILES])
        rc = refuse(&opening, ERR_NO_MEMORY, "out of memory");
    else
        rc = prepare(&opening, (const char *const *)paths);
    if (!rc)
        rc = open_both(&opening, dirs);
    if (rc) {
        if (!message[0])
            (void)refuse(&opening, rc, "%s, %s: %s", state_dir, files_dir, err_text(rc));
        undo(&opening);
    } else {
        dirs->fresh = opening.fresh;
        dirs->accept_loss = accept_loss;
        dirs->files_behind = opening.behind;
        for (int i = 0; i < SIDES; i++)
            dirs->lock_fds[i] = opening.sides[i].lock_fd;
    }
    for (int i = 0; i < SIDES; i++) {
        free(opening.sides[i].store_path);
        free(opening.sides[i].lock_path);
        free(paths[i]);
    }
    return rc;
}

int store_dirs_begin(const struct store_dirs *dirs)
{
    const char *const paths[SIDES] = {[STATE] = dirs->state_dir, [FILES] = dirs->files_dir};
    int first = dirs->files_behind ? STATE : FILES;
    int rc = 0;

    for (int i = 0; i < SIDES && rc == 0; i++) {
        int which = i == 0 ? first : SIDES - 1 - first;
        uint8_t bytes[STORE_BYTES];
        char *path = io_join(paths[which], "STORE");

        encode_store(bytes, &dirs->store, dirs->generation, which);
        rc = path ? io_replace(dirs->env->io, path, bytes, sizeof bytes) : ERR_NO_MEMORY;
        free(path);
    }
    return rc;
}

int store_dirs_open(struct store_dirs *dirs, struct env *env, const char *state_dir,
                    const char *files_dir, bool accept_loss, char *message, size_t cap)
{
    return open_dirs(dirs, env, state_dir, files_dir, false, accept_loss, message, cap);
}

int store_dirs_inspect(struct store_dirs *dirs, struct env *env, const char *state_dir,
                       const char *files_dir, char *message, size_t cap)
{
    return open_dirs(dirs, env, state_dir, files_dir, true, false, message, cap);
}

void store_dirs_close(struct store_dirs *dirs)
{
    for (int i = 0; i < SIDES; i++)
        (void)io_close(dirs->env->io, &dirs->lock_fds[i]); /* nothing was written to it */
}
