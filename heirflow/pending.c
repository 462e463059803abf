/* Stands in for modules that are not there yet, so that everything links. */
#include "keeper.h"
#include "news.h"
#include "seat.h"

#define STAND_IN __attribute__((weak))

STAND_IN int keeper_main(void)
{
    return EXIT_CODE_NEGATIVE;
}

STAND_IN const char *keeper_containment(void)
{
    return "subreaper";
}

STAND_IN bool keeper_start(uv_loop_t *loop, const struct keeper_spec *spec, keeper_report_cb *on_report, void *data,
                           struct keeper **ret_keeper, struct error *error)
{
    return error_set(error, EXIT_CODE_NEGATIVE, "not built yet");
}

STAND_IN void keeper_set_deadline(struct keeper *self, int64_t deadline_ms)
{
}

STAND_IN void keeper_restart(struct keeper *self)
{
}

STAND_IN void keeper_stop(struct keeper *self, int64_t kill_at_ms)
{
}

STAND_IN void keeper_kill(struct keeper *self)
{
}

STAND_IN void keeper_drain(struct keeper *self)
{
}

STAND_IN void keeper_free(struct keeper *self)
{
}

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

STAND_IN bool seat_take(const char *run_directory, const char *group, int64_t wait_ms, struct seat *ret_seat,
                        struct error *error)
{
    return error_set(error, EXIT_CODE_NEGATIVE, "not built yet");
}

STAND_IN bool seat_raise(struct seat *seat, struct error *error)
{
    return error_set(error, EXIT_CODE_NEGATIVE, "not built yet");
}

STAND_IN void seat_release(struct seat *seat)
{
}
