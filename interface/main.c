/* Owns the arguments and the exit code. */
#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "app.h"
#include "streams.h"

static const char help[] =
    "heirflow-interface - who runs the scheduler, who is next, and the news of the group\n"
    "\n"
    "usage: heirflow-interface [--config FILE] [--group G] [--once] [--record FILE | --replay FILE]\n"
    "\n"
    "  --config FILE   configuration (default: $HEIRFLOW_CONFIG, else /etc/heirflow/heirflow.json)\n"
    "  --group G       group to show (default: the configuration's)\n"
    "  --once          print the same view as plain text and exit\n"
    "  --record FILE   write down all that is shown, as JSON lines, to look at it again\n"
    "  --replay FILE   show a recording; no server is asked\n"
    "  --help          this text\n"
    "  --version       print the version\n"
    "\n"
    "keys: ? shows them all; q quits\n"
    "\n"
    "The roster comes from PostgreSQL, the news from RabbitMQ, or from PostgreSQL while RabbitMQ is away. Without\n"
    "PostgreSQL the last roster stays on the screen, greyed and with its age. To look, the database role heirflow_viewer\n"
    "will do; to stop, start, switch over or pause, heirflow_operator. Colours are left out if NO_COLOR is set.\n"
    "\n"
    "exit codes: 0 fine; 1 recording not written; 2 usage, configuration or no terminal; 3 database not reached (--once)\n"
    "example:    heirflow-interface --config /etc/heirflow/heirflow.json --group airflow-scheduler\n";

static bool begin(struct app *app, struct error *error)
{
    static const char *const no_command[] = {NULL};
    if (uv_loop_init(&app->loop) != 0 || !model_init(&app->model, app->group))
        return error_set(error, EXIT_CODE_USAGE, "out of memory");
    (void)uv_timer_init(&app->loop, &app->timer); /* cannot fail */
    app->timer.data = app;
    desk_init(&app->desk, app->config ? app->config->interface.start_command : no_command, app->replay);
    return app->once ? app_begin_once(app, error) : app_begin_terminal(app, error);
}

static int run(struct app *app)
{
    struct error error = {0};
    bool begun = begin(app, &error);
    if (!begun)
        app_stop(app, error.exit_code);
    (void)uv_run(&app->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&app->loop);
    layout_finish(&app->frame);
    model_finish(&app->model);
    struct error unwritten = {0};
    if (!intake_finish(&app->intake, &unwritten) && begun) {
        error = unwritten;
        app->exit_code = error.exit_code;
    }
    if (error.text[0])
        fprintf(stderr, "heirflow-interface: %s\n", error.text);
    return app->exit_code;
}

static bool parse(int argc, char **argv, struct config_flags *flags, struct app *app, const char **ret_print)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"group", required_argument, NULL, 'g'},
        {"once", no_argument, NULL, 'o'},         {"record", required_argument, NULL, 'r'},
        {"replay", required_argument, NULL, 'p'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},      {0},
    };
    for (int option; (option = getopt_long(argc, argv, "c:g:h", options, NULL)) != -1;) {
        if (option == 'c')
            flags->path = optarg;
        else if (option == 'g')
            flags->group = optarg;
        else if (option == 'o')
            app->once = true;
        else if (option == 'r')
            app->record = optarg;
        else if (option == 'p')
            app->replay_path = optarg;
        else if (option == 'h')
            *ret_print = help;
        else if (option == 'v')
            *ret_print = "heirflow-interface " HEIRFLOW_VERSION "\n";
        else
            return false; /* getopt has said why */
    }
    bool both = app->record && app->replay_path;
    if (optind < argc)
        fprintf(stderr, "heirflow-interface: unexpected argument \"%s\"\n", argv[optind]);
    if (both)
        fprintf(stderr, "heirflow-interface: --record and --replay do not go together\n");
    return optind == argc && !both;
}

static bool load(struct app *app, const struct config_flags *flags, struct error *error)
{
    if (app->replay_path)
        return replay_open(app->replay_path, app->group, &app->replay, error);
    if (!config_load(flags, &app->config, error))
        return false;
    (void)snprintf(app->group, sizeof app->group, "%s", app->config->group);
    return true;
}

int main(int argc, char **argv)
{
    static struct app app; /* its broker thread may outlive main by a name look-up */
    struct config_flags flags = {0};
    const char *print = NULL;
    streams_open_missing();
    (void)prctl(PR_SET_DUMPABLE, 0); /* no core dump: memory holds passwords */
    (void)setlocale(LC_CTYPE, "");   /* an unknown locale leaves "C": ASCII */
    (void)signal(SIGPIPE, SIG_IGN);
    if (!parse(argc, argv, &flags, &app, &print)) {
        fprintf(stderr, "heirflow-interface: see heirflow-interface --help\n");
        return EXIT_CODE_USAGE;
    }
    if (print)
        return fputs(print, stdout) < 0 || fflush(stdout) != 0 ? EXIT_CODE_NEGATIVE : EXIT_CODE_OK;
    if (!app.once && !isatty(STDOUT_FILENO)) {
        fprintf(stderr, "heirflow-interface: the output is no terminal; for plain text use --once\n");
        return EXIT_CODE_USAGE;
    }
    struct error error = {0};
    if (!load(&app, &flags, &error)) {
        fprintf(stderr, "heirflow-interface: %s\n", error.text);
        return error.exit_code;
    }
    return run(&app);
}
