/* Stands in for modules that are not there yet, so that everything links. */
#include "news.h"

#define STAND_IN __attribute__((weak))

STAND_IN bool news_start(const struct config *config, news_state_cb *on_state, void *data, struct news **ret_news,
                         struct error *error)
{
    *ret_news = NULL;
    return true;
}

STAND_IN void news_wake(struct news *self, int64_t member_id)
{
}

STAND_IN void news_stop(struct news *self, int64_t timeout_ms)
{
}
