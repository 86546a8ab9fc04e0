/*
 * Calendar arithmetic on days since 1970-01-01 in the proleptic Gregorian calendar, in eras of 400
 * years. Source of the two conversions: Howard Hinnant, "chrono-Compatible Low-Level Date
 * Algorithms".
 */
#include "api/http/date.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define DAY_S      UINT64_C(86400)
#define ERA_DAYS   146097 /* 400 years */
#define SHIFT_DAYS 719468 /* from 0000-03-01 to 1970-01-01 */
/* The end of the year 9999, the last that four digits can name. */
#define LAST_S UINT64_C(253402300799)

static const char month_names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
static const char day_names[7][10] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                      "Thursday", "Friday", "Saturday"};

struct civil {
    unsigned year, month, day, hour, minute, second; /* month and day from 1 */
};

static void civil_from_days(struct civil *civil, uint64_t days)
{
    uint64_t shifted = days + SHIFT_DAYS, era = shifted / ERA_DAYS;
    unsigned doe = (unsigned)(shifted % ERA_DAYS);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned month = (5 * doy + 2) / 153; /* from March */

    civil->day = doy - (153 * month + 2) / 5 + 1;
    civil->month = month < 10 ? month + 3 : month - 9;
    civil->year = (unsigned)(era * 400) + yoe + (civil->month <= 2);
}

static uint64_t days_from_civil(const struct civil *civil)
{
    unsigned year = civil->year - (civil->month <= 2), era = year / 400, yoe = year % 400;
    unsigned doy =
        (153 * (civil->month > 2 ? civil->month - 3 : civil->month + 9) + 2) / 5 + civil->day - 1;
    unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

    return (uint64_t)era * ERA_DAYS + doe - SHIFT_DAYS;
}

static char *two(char *to, unsigned number)
{
    to[0] = (char)('0' + number / 10);
    to[1] = (char)('0' + number % 10);
    return to + 2;
}

void http_date_format(char out[HTTP_DATE_BYTES + 1], uint64_t unix_s)
{
    struct civil civil;
    char *to = out;
    unsigned of_day;

    if (unix_s > LAST_S)
        unix_s = LAST_S;
    of_day = (unsigned)(unix_s % DAY_S);
    civil_from_days(&civil, unix_s / DAY_S);
    memcpy(to, day_names[(unix_s / DAY_S + 4) % 7], 3);
    memcpy(to + 3, ", ", 2);
    to = two(to + 5, civil.day);
    *to++ = ' ';
    memcpy(to, month_names[civil.month - 1], 3);
    to[3] = ' ';
    to = two(to + 4, civil.year / 100);
    to = two(to, civil.year % 100);
    *to++ = ' ';
    to = two(to, of_day / 3600);
    *to++ = ':';
    to = two(to, of_day / 60 % 60);
    *to++ = ':';
    to = two(to, of_day % 60);
    memcpy(to, " GMT", 5);
    assert(to + 4 == out + HTTP_DATE_BYTES);
}

void date_rfc3339_format(char out[DATE_RFC3339_BYTES + 1], uint64_t unix_ms)
{
    uint64_t unix_s = unix_ms / 1000 < LAST_S ? unix_ms / 1000 : LAST_S;
    unsigned of_day = (unsigned)(unix_s % DAY_S), ms = (unsigned)(unix_ms % 1000);
    struct civil civil;
    char *to = out;

    civil_from_days(&civil, unix_s / DAY_S);
    to = two(to, civil.year / 100);
    to = two(to, civil.year % 100);
    *to++ = '-';
    to = two(to, civil.month);
    *to++ = '-';
    to = two(to, civil.day);
    *to++ = 'T';
    to = two(to, of_day / 3600);
    *to++ = ':';
    to = two(to, of_day / 60 % 60);
    *to++ = ':';
    to = two(to, of_day % 60);
    *to++ = '.';
    *to++ = (char)('0' + ms / 100);
    to = two(to, ms % 100);
    memcpy(to, "Z", 2);
    assert(to + 1 == out + DATE_RFC3339_BYTES);
}

/* ---- Parsing: each step takes its text off the front, or fails ---- */

struct text {
    const char *ptr;
    size_t len;
};

static bool take(struct text *text, const char *expected)
{
    size_t len = strlen(expected);

    if (text->len < len || memcmp(text->ptr, expected, len))
        return false;
    text->ptr += len;
    text->len -= len;
    return true;
}

static bool take_number(struct text *text, unsigned digits, unsigned *number)
{
    *number = 0;
    for (unsigned i = 0; i < digits; i++) {
        if (!text->len || *text->ptr < '0' || *text->ptr > '9')
            return false;
        *number = *number * 10 + (unsigned)(*text->ptr - '0');
        text->ptr++;
        text->len--;
    }
    return true;
}

static bool take_month(struct text *text, unsigned *month)
{
    for (*month = 1; *month <= 12; ++*month)
        if (take(text, month_names[*month - 1]))
            return true;
    return false;
}

static bool take_time(struct text *text, struct civil *civil)
{
    return take_number(text, 2, &civil->hour) && take(text, ":") &&
           take_number(text, 2, &civil->minute) && take(text, ":") &&
           take_number(text, 2, &civil->second);
}

/* The name of a day: short, or in full. */
static bool take_day_name(struct text *text, bool *full)
{
    for (int i = 0; i < 7; i++) {
        char brief[4] = {day_names[i][0], day_names[i][1], day_names[i][2], 0};

        *full = take(text, day_names[i]);
        if (*full || take(text, brief))
            return true;
    }
    return false;
}

/* Sun, 06 Nov 1994 08:49:37 GMT */
static bool take_imf(struct text *text, struct civil *civil)
{
    return take(text, ", ") && take_number(text, 2, &civil->day) && take(text, " ") &&
           take_month(text, &civil->month) && take(text, " ") &&
           take_number(text, 4, &civil->year) && take(text, " ") && take_time(text, civil) &&
           take(text, " GMT");
}

/* Sunday, 06-Nov-94 08:49:37 GMT: a year over 50 years ahead is the last century's; "ahead" of a
 * fixed 2030, so that the function stays pure. */
static bool take_rfc850(struct text *text, struct civil *civil)
{
    if (!take(text, ", ") || !take_number(text, 2, &civil->day) || !take(text, "-") ||
        !take_month(text, &civil->month) || !take(text, "-") ||
        !take_number(text, 2, &civil->year) || !take(text, " ") || !take_time(text, civil) ||
        !take(text, " GMT"))
        return false;
    civil->year += civil->year > 80 ? 1900 : 2000;
    return true;
}

/* Sun Nov  6 08:49:37 1994 */
static bool take_asctime(struct text *text, struct civil *civil)
{
    return take(text, " ") && take_month(text, &civil->month) && take(text, " ") &&
           (take(text, " ") ? take_number(text, 1, &civil->day)
                            : take_number(text, 2, &civil->day)) &&
           take(text, " ") && take_time(text, civil) && take(text, " ") &&
           take_number(text, 4, &civil->year);
}

static unsigned days_in(unsigned month, unsigned year)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    return month == 2 && leap ? 29 : days[month - 1];
}

int http_date_parse(uint64_t *unix_s, const char *text, size_t len)
{
    struct text rest = {text, len};
    struct civil civil;
    bool full, ok;

    if (!take_day_name(&rest, &full) || !rest.len)
        return ERR_INVALID;
    if (full)
        ok = take_rfc850(&rest, &civil);
    else
        ok = *rest.ptr == ',' ? take_imf(&rest, &civil) : take_asctime(&rest, &civil);
    if (!ok || rest.len || civil.year < 1970 || !civil.day ||
        civil.day > days_in(civil.month, civil.year) || civil.hour > 23 || civil.minute > 59 ||
        civil.second > 60) /* a leap second is the next one */
        return ERR_INVALID;
    *unix_s =
        days_from_civil(&civil) * DAY_S + civil.hour * 3600u + civil.minute * 60u + civil.second;
    return 0;
}
