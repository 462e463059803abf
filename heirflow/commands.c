/* Owns the commands that read; never changes anything in the database. */
#include "commands.h"

#include <stdio.h>
#include <string.h>

#include "migrate.h"

int commands_status(const struct config *config, const struct options *options)
{
    return EXIT_CODE_NEGATIVE;
}

int commands_history(const struct config *config, const struct options *options)
{
    return EXIT_CODE_NEGATIVE;
}

int commands_news(const struct config *config, const struct options *options)
{
    return EXIT_CODE_NEGATIVE;
}

int commands_version(const struct options *options)
{
    printf("heirflow %s (schema %d)\n", HEIRFLOW_VERSION, migrate_newest_version());
    return EXIT_CODE_OK;
}

int commands_help(const struct options *options)
{
    const struct command *command = NULL;
    if (options->topic) {
        for (command = commands; command->name && strcmp(command->name, options->topic) != 0; command++)
            ;
        if (!command->name) {
            fprintf(stderr, "heirflow: unknown command \"%.60s\"; see heirflow --help\n", options->topic);
            return EXIT_CODE_USAGE;
        }
    }
    options_print_help(command, stdout);
    return EXIT_CODE_OK;
}
