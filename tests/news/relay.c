/* The relay alone, told what to do by lines on standard input: `wake MEMBER`, `reign MEMBER`, `stop MS` (and end of input:
 * stop 2000). Prints each state as a JSON line, and at the end how long news_stop took. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "config.h"
#include "news.h"

static void on_state(void *data, const char *state, const char *detail, int64_t published)
{
    json_t *line = json_pack("{s:s, s:s?, s:I}", "state", state, "detail", detail, "published", (json_int_t)published);
    (void)json_dumpf(line, stdout, JSON_COMPACT);
    (void)puts("");
    (void)fflush(stdout);
    json_decref(line);
}

int main(int argc, char **argv)
{
    struct config_flags flags = {.path = argc > 1 ? argv[1] : NULL};
    struct config *config = NULL;
    struct news *news = NULL;
    struct error error;
    if (!config_load(&flags, &config, &error) || !news_start(config, on_state, NULL, &news, &error)) {
        (void)fprintf(stderr, "%s\n", error.text);
        config_free(config);
        return error.exit_code;
    }
    config_free(config);
    char line[64];
    int64_t stop_ms = 2000;
    while (fgets(line, sizeof line, stdin)) {
        int64_t number = strtoll(line + strcspn(line, " "), NULL, 10);
        if (strncmp(line, "wake ", 5) == 0)
            news_wake(news, number);
        else if (strncmp(line, "reign ", 6) == 0)
            news_reign(news, number);
        else if (strncmp(line, "stop ", 5) == 0 && (stop_ms = number))
            break;
    }
    int64_t before_ms = clock_now_ms();
    news_stop(news, stop_ms);
    (void)printf("{\"state\": \"stopped\", \"after_ms\": %lld}\n", (long long)(clock_now_ms() - before_ms));
    return 0;
}
