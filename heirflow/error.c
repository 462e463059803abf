/* Owns error texts; never prints them. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void clean(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = *text == '\n' ? ' ' : '?';
    }
}

static void set(struct error *error, bool retryable, enum exit_code code, const char *format, va_list arguments)
{
    char text[sizeof error->text];
    (void)vsnprintf(text, sizeof text, format, arguments); /* a text too long is cut */
    size_t length = strlen(text);
    while (length && (text[length - 1] == '\n' || text[length - 1] == ' '))
        text[--length] = '\0';
    clean(text);
    error->retryable = retryable;
    error->exit_code = code;
    memcpy(error->text, text, sizeof text);
}

bool error_set(struct error *error, enum exit_code code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set(error, false, code, format, arguments);
    va_end(arguments);
    return false;
}

bool error_set_retryable(struct error *error, enum exit_code code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set(error, true, code, format, arguments);
    va_end(arguments);
    return false;
}

bool error_wrap(struct error *error, const char *format, ...)
{
    char what[256], text[sizeof error->text];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    clean(what);
    memcpy(text, error->text, sizeof text);
    (void)snprintf(error->text, sizeof error->text, "%.255s: %.760s", what, text);
    return false;
}
