/* Words for numbers and times. Pure, but for localtime_r(3). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WORDS_TEXT = 640, WORDS_SPAN = 24, WORDS_DATE = 64 };

enum words_date { WORDS_TIME, WORDS_MINUTE, WORDS_CORNER, WORDS_DAY, WORDS_LONG_DAY };

void words_print(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* "0.4s", "12s", "3m12s", "2h14m", "12d4h"; six columns at most below 1000 days. */
void words_duration(char text[WORDS_SPAN], int64_t ms);

/* Whole seconds: for what lasts, where tenths would only flicker. */
void words_span(char text[WORDS_SPAN], int64_t ms);
void words_lease(char text[WORDS_SPAN], int64_t ms);
void words_time(char text[WORDS_DATE], enum words_date date, int64_t wall_ms);
bool words_same_day(int64_t a_ms, int64_t b_ms);
