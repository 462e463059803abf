/* What the fuzz targets share: each file is a program of its own around one of the places where text from outside comes in.
 * Whatever the text, the place may refuse it, and must neither crash, leak, hang nor let a control character out. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Zero-terminated copy, the caller's to free. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        abort();
    memcpy(text, data, size);
    text[size] = '\0';
    return text;
}

static inline void fuzz_require(int holds)
{
    if (!holds)
        abort();
}
