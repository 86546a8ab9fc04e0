/*
 * How a key of the cloud becomes the path of a file, and back. Pure.
 *
 * Each '/' is a directory's end, and most names stay as they are. What a file system cannot take,
 * or what would lead elsewhere, is written otherwise:
 *
 *     an empty part                     %00
 *     parts "." and ".."                %2E and %2E.
 *     a part named as our own directory %2Eobjstore-cloud
 *     control characters                %01 … %1F, %7F
 *     '%' before 0-9, A-F or '_'        %25
 *     a part over CLOUD_DIR_PART_BYTES  several, one in the other, each but the last ending in %_
 *
 * So every key has exactly one path, no path leaves the directory, and a file that somebody else
 * put there has a key as long as its name is not one of the forms above.
 */
#ifndef STORAGE_CLOUD_DIR_NAME_H
#define STORAGE_CLOUD_DIR_NAME_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define CLOUD_DIR_OWN        ".objstore-cloud"
#define CLOUD_DIR_PART_BYTES 200  /* of one name; file systems take 255 */
#define CLOUD_DIR_PATH_BYTES 4096 /* of a whole path, with its terminator */

/* The path of KEY, terminated, into OUT (CAP bytes). ERR_TOO_BIG where it has no room; ERR_INVALID:
 * a zero byte is in it. A KEY of no bytes is one empty part. */
int cloud_dir_path(char *out, size_t cap, const char *key, size_t len) MUST_CHECK;

/*
 * What file name NAME (terminated, at most 255 bytes) stands for, into OUT (as many bytes).
 * *GOES_ON: it is a directory whose names continue this one. ERR_INVALID: no part is written so;
 * yet a part that is written otherwise may come out as this one, so compare cloud_dir_path of the
 * whole key.
 */
int cloud_dir_name(char *out, size_t *len, bool *goes_on, const char *name) MUST_CHECK;

#endif
