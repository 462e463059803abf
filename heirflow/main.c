/* Owns the way from arguments to a command, and the exit code. */
#include <stdio.h>
#include <sys/prctl.h>

#include "config.h"
#include "log.h"
#include "options.h"
#include "streams.h"

static int run(const struct options *options)
{
    if (options->help) {
        options_print_help(options->command, stdout);
        return EXIT_CODE_OK;
    }
    if (options->command->run_bare)
        return options->command->run_bare(options);
    struct config *config;
    struct error error;
    if (!config_load(&options->flags, &config, &error)) {
        fprintf(stderr, "heirflow %s: %s\n", options->command->name, error.text);
        return error.exit_code;
    }
    log_init(config->log.level, config->log.format);
    int code = options->command->run(config, options);
    config_free(config);
    return code;
}

int main(int argc, char **argv)
{
    streams_open_missing();
    (void)prctl(PR_SET_DUMPABLE, 0); /* no core dump, and nobody who is not root reads our memory or environment */
    struct options options;
    struct error error;
    if (!options_parse(argc, argv, &options, &error)) {
        fprintf(stderr, "heirflow%s%s: %s\n", options.command ? " " : "", options.command ? options.command->name : "",
                error.text);
        return error.exit_code;
    }
    int code = run(&options);
    if (fflush(stdout) != 0 && code == EXIT_CODE_OK) {
        perror("heirflow: standard output");
        return EXIT_CODE_NEGATIVE;
    }
    return code;
}
