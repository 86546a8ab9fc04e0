/*
 * Goal: whatever the two STORE files hold, opening the pair ends with a verdict: taken as they
 * stand, or refused with one line that says why and not a byte changed. What was taken is of one
 * store, and the next start finds what this one has written.
 * Input: flags (1 byte), then for the state and for the files directory a STORE file: its length
 * (1), its bytes.
 */
#include "storage/store_dir.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory_io.h"

#define STORE_BYTES     64
#define LAST_GENERATION (UINT64_C(1) << 62) /* and none is so high */

enum flags { REPAIR = 1, NO_STATE = 2, NO_FILES = 4, ACCEPT_LOSS = 8, STRANGER = 16, BEGIN = 32 };

static struct memory_io memory;

static int stat_directories(struct io *io, const char *path, struct io_stat *out)
{
    if (strcmp(path, "/s") != 0 && strcmp(path, "/f") != 0)
        return memory_stat(io, path, out);
    *out = (struct io_stat){.is_dir = true};
    return 0;
}

static void add_store(struct feed *feed, const char *path, bool repair)
{
    size_t len = (size_t)feed_number(feed, 1), got;
    const uint8_t *bytes = feed_some(feed, len, &got);
    struct memory_file *file = memory_make(&memory, path);

    memory_resize(file, got);
    if (got > 0)
        memcpy(file->data, bytes, got);
    if (repair && got == STORE_BYTES)
        put_u64(file->data + 56, xxh64(file->data, 56, 0));
}

/* All files but the locks, as one sum. */
static uint64_t sum_of_files(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < MEMORY_FILES; i++) {
        const struct memory_file *file = &memory.files[i];

        if (file->path[0] && !strstr(file->path, "LOCK"))
            sum += xxh64(file->data, file->len, xxh64(file->path, strlen(file->path), 0));
    }
    return sum;
}

static int open_pair(struct store_dirs *dirs, bool accept_loss)
{
    char message[512];

    memset(message, 'x', sizeof message);
    int rc = store_dirs_open(dirs, &memory.env, "/s", "/f", accept_loss, message, sizeof message);
    if (rc) {
        CHECK(memchr(message, 0, sizeof message) && *message && !strchr(message, '\n'));
        CHECK(rc == ERR_WRONG_STORE || rc == ERR_FORMAT || rc == ERR_CORRUPT || rc == ERR_INVALID);
    }
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    unsigned flags = (unsigned)feed_number(&feed, 1);
    struct store_dirs dirs, again;
    char message[512] = "";

    if (!memory.io.open) {
        memory_init(&memory);
        memory.io.stat = stat_directories;
    }
    memory.dice = 1;
    memory_clear(&memory);
    if (!(flags & NO_STATE))
        add_store(&feed, "/s/STORE", flags & REPAIR);
    if (!(flags & NO_FILES))
        add_store(&feed, "/f/STORE", flags & REPAIR);
    if (flags & STRANGER)
        memory_resize(memory_make(&memory, "/f/stranger"), 1);
    uint64_t before = sum_of_files();
    int rc = open_pair(&dirs, flags & ACCEPT_LOSS);
    if (rc) {
        CHECK(sum_of_files() == before);
        store_dirs_close(&dirs);
        CHECK(memory.open_now == 0);
        return 0;
    }
    CHECK(dirs.generation > 0 && (!dirs.fresh || !dirs.files_behind));
    CHECK(!dirs.files_behind || flags & ACCEPT_LOSS);
    CHECK(dirs.fresh || sum_of_files() == before);
    if (flags & BEGIN)
        CHECK(store_dirs_begin(&dirs) == 0);
    store_dirs_close(&dirs);
    CHECK(memory.open_now == 0);
    if (flags & BEGIN && dirs.generation + 1 == LAST_GENERATION) {
        CHECK(open_pair(&again, false) == ERR_CORRUPT);
        store_dirs_close(&again);
    } else if (flags & BEGIN) {
        CHECK(open_pair(&again, false) == 0 && !again.fresh && !again.files_behind);
        CHECK(id_equal(&again.store, &dirs.store) && again.generation == dirs.generation + 1);
        store_dirs_close(&again);
    } else if (!dirs.fresh && !dirs.files_behind) {
        CHECK(store_dirs_inspect(&again, &memory.env, "/s", "/f", message, sizeof message) == 0);
        CHECK(id_equal(&again.store, &dirs.store));
        store_dirs_close(&again);
    }
    CHECK(memory.open_now == 0);
    return 0;
}
