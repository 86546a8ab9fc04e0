/*
 * From the cluster secret's file to CURVE keys.
 *
 * The happy path: secret_load checks who may read the file, reads it into a buffer of its own on
 * the stack, and wipes that; secret_parse splits the lines and derives. Each failure leaves no key
 * behind and one sentence in the caller's message, which never holds a byte of the secret: it goes
 * to logs.
 *
 * The private keys are HKDF's output as it is: X25519 clamps when it multiplies, and so does
 * libsodium under libzmq, so both sides compute the same public keys.
 */
#include "cluster/secret.h"

#include "base/io.h"
#include "base/text.h"

#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define FILE_MAX_BYTES (SECRET_LINES * (SECRET_MAX_BYTES + 2)) /* with CR and LF */

static int fails(int rc, char *message, size_t cap, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int fails(int rc, char *message, size_t cap, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, cap, format, args);
    va_end(args);
    return rc;
}

/* HKDF-SHA256 of the line, for the use that INFO names. */
static int derive(uint8_t out[SECRET_KEY_BYTES], const char *line, size_t len, const char *info)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)line, len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, strlen(info)),
        OSSL_PARAM_construct_end(),
    };
    bool good = context && EVP_KDF_derive(context, out, SECRET_KEY_BYTES, params) == 1;

    EVP_KDF_CTX_free(context);
    EVP_KDF_free(kdf);
    return good ? 0 : ERR_NO_MEMORY;
}

static int public_of(uint8_t out[SECRET_KEY_BYTES], const uint8_t private[SECRET_KEY_BYTES])
{
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, private, SECRET_KEY_BYTES);
    size_t len = SECRET_KEY_BYTES;
    bool good = key && EVP_PKEY_get_raw_public_key(key, out, &len) == 1;

    assert(!good || len == SECRET_KEY_BYTES);
    EVP_PKEY_free(key);
    return good ? 0 : ERR_NO_MEMORY;
}

static int derive_line(struct secret_keys *out, const char *line, size_t len)
{
    int rc = derive(out->server_private, line, len, "objstore cluster server v1");

    if (!rc)
        rc = derive(out->client_private, line, len, "objstore cluster client v1");
    if (!rc)
        rc = public_of(out->server_public, out->server_private);
    if (!rc)
        rc = public_of(out->client_public, out->client_private);
    return rc;
}

/* NULL, or what is wrong with the line. */
static const char *misfit(const char *line, size_t len)
{
    if (len < SECRET_MIN_BYTES)
        return "is shorter than 16 bytes";
    if (len > SECRET_MAX_BYTES)
        return "is longer than 256 bytes";
    for (size_t i = 0; i < len; i++)
        if (line[i] < ' ' || line[i] > '~')
            return "has a character that is not printable ASCII";
    if (line[0] == ' ' || line[len - 1] == ' ')
        return "begins or ends with a blank";
    return NULL;
}

int secret_parse(struct secret *out, const char *text, size_t len, char *message, size_t cap)
{
    const char *first = NULL;
    size_t first_len = 0;
    int rc = ERR_INVALID;

    assert(message && cap > 0);
    *out = (struct secret){0};
    if (len == 0)
        return fails(ERR_INVALID, message, cap, "the cluster secret is empty");
    while (len > 0) {
        const char *end = memchr(text, '\n', len);
        size_t used = end ? (size_t)(end - text) + 1 : len;
        size_t line_len = end ? used - 1 : len;
        const char *wrong;

        if (line_len > 0 && text[line_len - 1] == '\r')
            line_len--;
        if (out->count == SECRET_LINES) {
            rc = fails(ERR_INVALID, message, cap, "the cluster secret has more than two lines");
            goto out;
        }
        wrong = misfit(text, line_len);
        if (!wrong && first && first_len == line_len && !memcmp(first, text, line_len))
            wrong = "is the same as line 1";
        if (wrong) {
            rc = fails(ERR_INVALID, message, cap, "line %zu of the cluster secret %s",
                       out->count + 1, wrong);
            goto out;
        }
        rc = derive_line(&out->lines[out->count], text, line_len);
        if (rc) {
            (void)fails(rc, message, cap, "cannot derive the cluster's keys: OpenSSL refused");
            goto out;
        }
        first = out->count == 0 ? text : first;
        first_len = out->count == 0 ? line_len : first_len;
        out->count++;
        text += used;
        len -= used;
    }
    assert(out->count >= 1 && out->count <= SECRET_LINES);
    rc = 0;
out:
    if (rc)
        secret_release(out);
    return rc;
}

int secret_load(struct secret *out, struct io *io, const char *path, char *message, size_t cap)
{
    char text[FILE_MAX_BYTES], wrong[128] = "";
    struct io_stat stat = {0};
    int fd, rc;

    assert(message && cap > 0);
    *out = (struct secret){0};
    fd = rc = io_open(io, path, IO_READ);
    if (rc < 0)
        return fails(rc, message, cap, "cannot open the cluster secret %s: %s", path, err_text(rc));
    /* Of the open file, so that what was checked is what is read. */
    rc = io->stat_fd(io, fd, &stat);
    if (rc) {
        (void)fails(rc, message, cap, "cannot read the cluster secret %s: %s", path, err_text(rc));
        goto out;
    }
    if (stat.is_dir) {
        rc = fails(ERR_INVALID, message, cap, "the cluster secret %s is a directory", path);
        goto out;
    }
    if (stat.mode & 077) {
        rc = fails(ERR_PERMISSION, message, cap,
                   "the cluster secret %s is open to others (mode %04o): chmod 600 it", path,
                   (unsigned)stat.mode);
        goto out;
    }
    if (stat.size_bytes > sizeof text) {
        rc = fails(ERR_TOO_BIG, message, cap, "the cluster secret %s is longer than %zu bytes",
                   path, sizeof text);
        goto out;
    }
    rc = io_read(io, fd, text, (size_t)stat.size_bytes, 0, false);
    if (rc) {
        (void)fails(rc, message, cap, "cannot read the cluster secret %s: %s", path, err_text(rc));
        goto out;
    }
    rc = secret_parse(out, text, (size_t)stat.size_bytes, wrong, sizeof wrong);
    if (rc)
        (void)fails(rc, message, cap, "%s: %s", path, wrong);
out:
    OPENSSL_cleanse(text, sizeof text);
    (void)io_close(io, &fd);
    return rc;
}

void secret_release(struct secret *secret)
{
    OPENSSL_cleanse(secret, sizeof *secret);
}

void secret_make(struct env *env, char out[SECRET_TEXT_BYTES])
{
    uint8_t bytes[32];
    char text[4 * ((sizeof bytes + 2) / 3) + 1];

    env->random(env, bytes, sizeof bytes);
    base64_encode(text, bytes, sizeof bytes);
    for (size_t i = 0; i < SECRET_TEXT_BYTES - 1; i++)
        out[i] = (char)(text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i]);
    assert(text[SECRET_TEXT_BYTES - 1] == '=');
    out[SECRET_TEXT_BYTES - 1] = 0;
    OPENSSL_cleanse(bytes, sizeof bytes);
    OPENSSL_cleanse(text, sizeof text);
}
