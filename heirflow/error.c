/* Owns error texts; never prints them. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void error_clean(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c; c++) {
        if (*c < ' ' || *c == 0x7f)
            *c = *c == '\n' ? ' ' : '?';
        else if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f)
            c[0] = c[1] = '?';
    }
}

__attribute__((format(printf, 4, 0))) static void set(struct error *error, bool retryable, enum exit_code code,
                                                      const char *format, va_list arguments)
{
    char text[sizeof error->text];
    (void)vsnprintf(text, sizeof text, format, arguments); /* a text too long is cut */
    size_t length = strlen(text);
    while (length && (text[length - 1] == '\n' || text[length - 1] == ' '))
        text[--length] = '\0';
    error_clean(text);
    error->retryable = retryable;
    error->exit_code = code;
    memcpy(error->text, text, sizeof text);
}

bool(error_set)(struct error *error, enum exit_code code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set(error, false, code, format, arguments);
    va_end(arguments);
    return false;
}

bool(error_set_retryable)(struct error *error, enum exit_code code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set(error, true, code, format, arguments);
    va_end(arguments);
    return false;
}

bool(error_wrap)(struct error *error, const char *format, ...)
{
    char what[256], text[sizeof error->text];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    error_clean(what);
    memcpy(text, error->text, sizeof text);
    (void)snprintf(error->text, sizeof error->text, "%.255s: %.760s", what, text);
    return false;
}
