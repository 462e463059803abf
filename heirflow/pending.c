/* Stands in for modules that are not there yet, so that everything links. */
#include "keeper.h"
#include "postgres.h"

int wrapper_run(const struct config *config);

__attribute__((weak)) int keeper_main(void)
{
    return EXIT_CODE_NEGATIVE;
}

__attribute__((weak)) const char *keeper_containment(void)
{
    return "subreaper";
}

__attribute__((weak)) int wrapper_run(const struct config *config)
{
    return EXIT_CODE_NEGATIVE;
}

__attribute__((weak)) bool postgres_session_open(const struct postgres_settings *settings, int64_t timeout_ms,
                                                 struct postgres_session **ret_session, struct error *error)
{
    return error_set(error, EXIT_CODE_DATABASE, "not built yet");
}

__attribute__((weak)) bool postgres_session_call(struct postgres_session *self, const char *sql, int count,
                                                 const char *const *values, int64_t timeout_ms, PGresult **ret_result,
                                                 struct error *error)
{
    return error_set(error, EXIT_CODE_DATABASE, "not built yet");
}

__attribute__((weak)) bool postgres_session_wait(struct postgres_session *self, int64_t timeout_ms, struct error *error)
{
    return error_set(error, EXIT_CODE_DATABASE, "not built yet");
}

__attribute__((weak)) void postgres_session_close(struct postgres_session *self)
{
}
