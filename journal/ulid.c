/*
 * ULIDs as text and time. The text is the 128 bits as one big-endian number in base 32: 26 digits
 * of five bits, of which the first has only three to say. Nothing here looks at a clock; what is
 * malformed is refused with ERR_INVALID.
 */
#include "journal/ulid.h"

#include <assert.h>

#define TIME_BYTES 6

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/* Value + 1 of each digit in either case; 0: not one. */
static const uint8_t values[256] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
    ['G'] = 17, ['H'] = 18, ['J'] = 19, ['K'] = 20, ['M'] = 21, ['N'] = 22, ['P'] = 23, ['Q'] = 24,
    ['R'] = 25, ['S'] = 26, ['T'] = 27, ['V'] = 28, ['W'] = 29, ['X'] = 30, ['Y'] = 31, ['Z'] = 32,
    ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16, ['g'] = 17, ['h'] = 18,
    ['j'] = 19, ['k'] = 20, ['m'] = 21, ['n'] = 22, ['p'] = 23, ['q'] = 24, ['r'] = 25, ['s'] = 26,
    ['t'] = 27, ['v'] = 28, ['w'] = 29, ['x'] = 30, ['y'] = 31, ['z'] = 32,
};

struct id128 ulid_make(struct env *env, uint64_t now_ms)
{
    struct id128 id;

    assert(now_ms < UINT64_C(1) << 48);
    for (int i = 0; i < TIME_BYTES; i++)
        id.bytes[i] = (uint8_t)(now_ms >> (8 * (TIME_BYTES - 1 - i)));
    env->random(env, id.bytes + TIME_BYTES, sizeof id.bytes - TIME_BYTES);
    return id;
}

void ulid_format(char out[ULID_TEXT_BYTES + 1], const struct id128 *id)
{
    unsigned have = 2; /* two zero bits in front make 130 */
    uint32_t bits = 0;
    char *at = out;

    for (size_t i = 0; i < sizeof id->bytes; i++) {
        bits = bits << 8 | id->bytes[i];
        for (have += 8; have >= 5; have -= 5)
            *at++ = digits[bits >> (have - 5) & 31];
    }
    assert(at == out + ULID_TEXT_BYTES && have == 0);
    *at = 0;
}

int ulid_parse(struct id128 *out, const char *text, size_t len)
{
    struct id128 id;
    size_t used = 0;
    unsigned have = 0;
    uint32_t bits = 0;

    if (len != ULID_TEXT_BYTES || text[0] > '7')
        return ERR_INVALID;
    for (size_t i = 0; i < ULID_TEXT_BYTES; i++) {
        uint8_t value = values[(uint8_t)text[i]];

        if (value == 0)
            return ERR_INVALID;
        bits = bits << 5 | (value - 1u);
        have += i == 0 ? 3 : 5;
        if (have >= 8) {
            have -= 8;
            id.bytes[used++] = (uint8_t)(bits >> have);
        }
    }
    assert(used == sizeof id.bytes && have == 0);
    *out = id;
    return 0;
}

uint64_t ulid_time_ms(const struct id128 *id)
{
    uint64_t time_ms = 0;

    for (int i = 0; i < TIME_BYTES; i++)
        time_ms = time_ms << 8 | id->bytes[i];
    return time_ms;
}

int ulid_check_time(const struct id128 *id)
{
    uint64_t time_ms = ulid_time_ms(id);

    return time_ms >= ULID_MIN_MS && time_ms < ULID_MAX_MS ? 0 : ERR_RANGE;
}
