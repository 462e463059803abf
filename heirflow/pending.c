/* Stands in for modules that are not there yet, so that everything links. */
#include "keeper.h"

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
