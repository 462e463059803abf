/* Owns how durations and times are worded. Never draws. */
#include "words.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

void words_print(char *text, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, size, format, arguments); /* what is cut would not fit a line either */
    va_end(arguments);
}

void words_duration(char text[WORDS_SPAN], int64_t ms)
{
    if (ms < 0)
        ms = 0;
    int64_t s = ms / 1000;
    if (ms < 10000)
        (void)snprintf(text, WORDS_SPAN, "%d.%ds", (int)s, (int)(ms / 100 % 10));
    else if (s < 60)
        (void)snprintf(text, WORDS_SPAN, "%ds", (int)s);
    else if (s < 3600)
        (void)snprintf(text, WORDS_SPAN, "%dm%02ds", (int)(s / 60), (int)(s % 60));
    else if (s < 86400)
        (void)snprintf(text, WORDS_SPAN, "%dh%02dm", (int)(s / 3600), (int)(s / 60 % 60));
    else if (s < 86400 * INT64_C(1000))
        (void)snprintf(text, WORDS_SPAN, "%dd%dh", (int)(s / 86400), (int)(s / 3600 % 24));
    else
        (void)snprintf(text, WORDS_SPAN, "%lldd", (long long)(s / 86400));
}

void words_span(char text[WORDS_SPAN], int64_t ms)
{
    if (ms >= 0 && ms < 10000)
        (void)snprintf(text, WORDS_SPAN, "%ds", (int)(ms / 1000));
    else
        words_duration(text, ms);
}

void words_lease(char text[WORDS_SPAN], int64_t ms)
{
    if (ms % 1000 == 0)
        (void)snprintf(text, WORDS_SPAN, "%llds", (long long)(ms / 1000));
    else
        (void)snprintf(text, WORDS_SPAN, "%lldms", (long long)ms);
}

static struct tm local(int64_t wall_ms)
{
    time_t at = (time_t)(wall_ms / 1000);
    struct tm parts = {0};
    (void)localtime_r(&at, &parts); /* a year beyond an int leaves it zeroed */
    return parts;
}

bool words_same_day(int64_t a_ms, int64_t b_ms)
{
    struct tm a = local(a_ms), b = local(b_ms);
    return a.tm_yday == b.tm_yday && a.tm_year == b.tm_year;
}

void words_time(char text[WORDS_DATE], enum words_date date, int64_t wall_ms)
{
    struct tm parts = local(wall_ms);
    text[0] = '\0';
    switch (date) {
    case WORDS_TIME:
        (void)strftime(text, WORDS_DATE, "%H:%M:%S", &parts);
        break;
    case WORDS_MINUTE:
        (void)strftime(text, WORDS_DATE, "%H:%M", &parts);
        break;
    case WORDS_CORNER:
        (void)strftime(text, WORDS_DATE, "%a %e %b  %H:%M:%S", &parts);
        break;
    case WORDS_DAY:
        (void)strftime(text, WORDS_DATE, "%a %e %b", &parts);
        break;
    case WORDS_LONG_DAY:
        (void)strftime(text, WORDS_DATE, "%A %e %B", &parts);
        break;
    }
}
