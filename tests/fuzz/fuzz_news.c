/* What a broker delivers and the database tells: a message's body as the interface and `heirflow news` take it. */
#include <stdio.h>

#include "cleanup.h"
#include "decode.h"
#include "event.h"
#include "fuzz.h"

static void print(json_t *body)
{
    char *text = NULL;
    size_t length = 0;
    for (int as_json = 0; as_json < 2; as_json++) {
        FILE *stream = open_memstream(&text, &length);
        fuzz_require(stream != NULL);
        event_print(body, as_json, stream);
        (void)fclose(stream);
        for (size_t i = 0; i + 1 < length; i++) /* nothing may act on a terminal, nor begin a line of its own */
            fuzz_require((unsigned char)text[i] >= ' ' && text[i] != 0x7f);
        free(text);
    }
}

static void check_text(const char *text, size_t size)
{
    size_t length = strnlen(text, size);
    fuzz_require(length < size);
    for (size_t i = 0; i < length; i++)
        fuzz_require((unsigned char)text[i] >= ' ' && text[i] != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_event event = {0};
    int64_t sequence;
    const char *id;
    char *text = fuzz_text(data, size);
    if (decode_event(text, size, "g", &event) == DECODE_NEWS) {
        check_text(event.event, sizeof event.event);
        check_text(event.node, sizeof event.node);
        check_text(event.detail, sizeof event.detail);
    }
    cleanup_json json_t *body = json_loadb(text, size, 0, NULL);
    if (body && event_identify(body, "g", &sequence, &id))
        fuzz_require(sequence > 0 && *id);
    if (body)
        print(body);
    free(text);
    return 0;
}
