/*
 * What lies in the bucket, page by page: its keys, what each of them is, and which of them bear a
 * mark of having been deleted.
 *
 * Marks are listed beside the keys: both come in the order of their ids, so one more list, of which
 * one page is kept, answers for every key of a folder.
 *
 * Failure: a page that does not come is asked for again, with delays; then the import ends.
 */
#include "cluster/cloud_import_internal.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARKS ".deleted/"

/* ---- Keys: pure ---- */

static bool ends_in(const char *text, size_t len, const char *with)
{
    size_t with_len = strlen(with);

    return len >= with_len && memcmp(text + len - with_len, with, with_len) == 0;
}

enum import_kind cloud_import_kind(struct id128 *id, size_t *folder, struct text key, uint64_t size)
{
    size_t at = key.len;

    while (at > 0 && key.ptr[at - 1] != '/')
        at--;
    *folder = at;
    enum cloud_key_kind kind = cloud_key_read(id, NULL, key.ptr + at, key.len - at);
    if (kind == CLOUD_KEY_OBJECT)
        return ends_in(key.ptr, at, "/" MARKS) ||
                       (at == strlen(MARKS) && ends_in(key.ptr, at, MARKS))
                   ? IMPORT_MARK
                   : IMPORT_OBJECT;
    if (kind == CLOUD_KEY_SIDECAR && !id_is_zero(id))
        return IMPORT_SIDECAR;
    return at == key.len && size == 0 ? IMPORT_FOLDER : IMPORT_OTHER;
}

struct id128 cloud_import_id(struct text key, struct text etag, int64_t modified_s)
{
    uint64_t ms = modified_s > 0 ? (uint64_t)modified_s * 1000 : 0;
    char text[LIMIT_CLOUD_KEY_BYTES + 1 + 256];
    uint8_t sha[SHA256_BYTES];
    struct id128 id;
    uint32_t etag_len = etag.len < 255 ? etag.len : 255;

    assert(key.len <= LIMIT_CLOUD_KEY_BYTES);
    if (ms < ULID_MIN_MS || ms >= ULID_MAX_MS)
        ms = ULID_MIN_MS;
    memcpy(text, key.ptr, key.len);
    text[key.len] = 0; /* no key has one */
    if (etag_len)
        memcpy(text + key.len + 1, etag.ptr, etag_len);
    sha256(text, key.len + 1 + etag_len, sha);
    for (unsigned i = 0; i < 6; i++)
        id.bytes[i] = (uint8_t)(ms >> (8 * (5 - i)));
    memcpy(id.bytes + 6, sha, 10);
    return id;
}

/* ---- Pages ---- */

static struct import_page *page_of(struct cloud_request *request)
{
    return container_of(container_of(request, struct cloud_wait, request), struct import_page,
                        wait);
}

static void on_entry(struct cloud_request *request, const struct cloud_entry *found)
{
    struct import_page *page = page_of(request);
    struct import_entry *entry = calloc(1, sizeof *entry + found->key.len + found->etag.len);

    if (!entry || page->count == LIMIT_CLOUD_LIST || found->key.len > LIMIT_CLOUD_KEY_BYTES) {
        page->failed |= !entry;
        free(entry);
        return;
    }
    entry->size = found->size;
    entry->modified_s = found->modified_s;
    entry->key_len = found->key.len;
    entry->etag_len = found->etag.len;
    memcpy(entry->text, found->key.ptr, found->key.len);
    if (found->etag.len)
        memcpy(entry->text + found->key.len, found->etag.ptr, found->etag.len);
    page->entries[page->count++] = entry;
}

void import_clear(struct import_page *page)
{
    while (page->count > 0)
        free(page->entries[--page->count]);
    page->failed = false;
}

int import_list(struct cloud_import *import, struct import_page *page, struct cloud_text prefix,
                struct cloud_text after)
{
    for (unsigned tries = 0;; tries++) {
        import_clear(page);
        page->wait.request = (struct cloud_request){
            .op = CLOUD_LIST, .key = prefix, .after = after, .entry = on_entry};
        int rc = cloud_wait_for(import->cloud, &page->wait, &import->stop);
        if (rc == 0 && page->failed)
            rc = ERR_NO_MEMORY;
        if (rc == 0 || import_stopping(import))
            return rc ? ERR_CLOSED : 0;
        if (import_may_pass(rc) && tries < CLOUD_IMPORT_TRIES) {
            if (!import_rest(import, tries))
                return ERR_CLOSED;
        } else {
            const char *said = page->wait.request.message;

            import_give_up(import, *said ? said : err_text(rc));
            return rc;
        }
    }
}

struct cloud_text import_last_key(const struct import_page *page, struct cloud_text otherwise)
{
    if (page->count == 0)
        return otherwise;
    const struct import_entry *last = page->entries[page->count - 1];
    return (struct cloud_text){last->text, last->key_len};
}

/* ---- Marks ---- */

/* The page of marks that ID's would be in. */
static int turn_to(struct cloud_import *import, const struct import_entry *entry, size_t folder)
{
    struct import_marks *marks = import->marks;
    char prefix[LIMIT_CLOUD_KEY_BYTES + sizeof MARKS], after[LIMIT_CLOUD_KEY_BYTES + 64];
    int len = snprintf(prefix, sizeof prefix, "%.*s" MARKS, (int)folder, entry->text);
    char ulid[ULID_TEXT_BYTES + 1];

    /* The mark itself is above its key without the last character. */
    ulid_format(ulid, &entry->id);
    int after_len = snprintf(after, sizeof after, "%s%.*s", prefix, ULID_TEXT_BYTES - 1, ulid);
    int rc = import_list(import, &marks->page, (struct cloud_text){prefix, (uint32_t)len},
                         (struct cloud_text){after, (uint32_t)after_len});
    marks->open = rc == 0;
    marks->more = marks->page.wait.request.more;
    marks->folder_len = folder;
    memcpy(marks->folder, entry->text, folder);
    return rc;
}

int import_is_marked(struct cloud_import *import, const struct import_entry *entry, size_t folder,
                     bool *marked)
{
    struct import_marks *marks = import->marks;
    char key[LIMIT_CLOUD_KEY_BYTES + sizeof MARKS + ULID_TEXT_BYTES];
    struct cloud_text none = {"", 0};

    *marked = false;
    int key_len = snprintf(key, sizeof key, "%.*s" MARKS "%.*s", (int)folder, entry->text,
                           (int)(entry->key_len - folder), entry->text + folder);
    bool here = marks->open && marks->folder_len == folder &&
                memcmp(marks->folder, entry->text, folder) == 0;
    if (here && marks->more) {
        struct cloud_text last = import_last_key(&marks->page, none);
        size_t len = last.len < (uint32_t)key_len ? last.len : (size_t)key_len;

        here = memcmp(last.ptr, key, len) >= 0;
    }
    int rc = here ? 0 : turn_to(import, entry, folder);
    for (size_t i = 0; i < marks->page.count && rc == 0 && !*marked; i++)
        *marked = marks->page.entries[i]->key_len == (uint32_t)key_len &&
                  memcmp(marks->page.entries[i]->text, key, (size_t)key_len) == 0;
    return rc;
}
