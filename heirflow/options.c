/* Owns the tables of subcommands and options, and the text of every --help. Never reads the configuration. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "commands.h"
#include "errand.h"
#include "estate_files.h"
#include "follow.h"
#include "keeper.h"
#include "migrate.h"
#include "operate.h"
#include "output.h"
#include "runnable.h"
#include "wrapper.h"

static int run_wrapper(const struct config *config, const struct options *options)
{
    struct error error;
    if (runnable_check(config, &error))
        return wrapper_run((struct config *)config, &options->flags); /* main's own, which nobody else uses meanwhile */
    fprintf(stderr, "heirflow run: %s\n", error.text);
    return error.exit_code;
}

static int run_check(const struct config *config, const struct options *options)
{
    return check_run(config, options->hook);
}

static int run_migrate(const struct config *config, const struct options *options)
{
    return migrate_run(config);
}

static int run_errand(const struct options *options)
{
    static const struct errand_body bodies[] = {
        {"estate-read", estate_files_read_main},
        {"estate-write", estate_files_write_main},
        {0},
    };
    return errand_main(bodies);
}

static int run_output(const struct options *options)
{
    return output_main();
}

static int run_keeper(const struct options *options)
{
    return keeper_main();
}

#define EXIT_DATABASE "0 fine, 2 usage or configuration, 3 database"
#define EXIT_OPERATE "0 done, or so already, 1 refused or not done in time, 2 usage or\nconfiguration, 3 database"
#define EXIT_GROUP "0 fine, 1 no such group, 2 usage or configuration, 3 database"

const struct command commands[] = {
    {.name = "run",
     .purpose = "Join the group; run the scheduler whenever this member is the heir.",
     .letters = "cgn",
     .takes_command = true,
     .details = "The command after -- goes before \"scheduler.command\" of the configuration.\n"
                "SIGTERM or SIGINT stops the scheduler, hands over and leaves; a second\n"
                "SIGINT does so at once. SIGHUP reads the configuration again.",
     .exit_codes = "0 left in peace, 1 cannot run on this node as it is, 2 usage or\nconfiguration, 3 database",
     .example = "heirflow run --group airflow-scheduler -- airflow scheduler",
     .run = run_wrapper},
    {.name = "status",
     .purpose = "Show the roster in succession order; why each standby is not heir.",
     .letters = "cgj",
     .exit_codes = EXIT_GROUP,
     .example = "heirflow status --group airflow-scheduler",
     .run = commands_status},
    {.name = "history",
     .purpose = "Show the latest terms, newest first, and the gap before each.",
     .letters = "cgjl",
     .exit_codes = EXIT_GROUP,
     .example = "heirflow history --limit 5",
     .run = commands_history},
    {.name = "audit",
     .purpose = "Show how every term began and ended; find any recorded overlap.",
     .letters = "cgj",
     .details = "Oldest first, with the gap to the next, by the database's clock. The end of a\n"
                "deposed heir is presumed: its last renewal plus the lease.",
     .exit_codes = "0 no overlap, 1 an overlap or no such group, 2 usage or\nconfiguration, 3 database",
     .example = "heirflow audit --group airflow-scheduler",
     .run = commands_audit},
    {.name = "news",
     .purpose = "Show what happened in the group, one event a line.",
     .letters = "cgjlfF",
     .details = "Begins with the latest --limit events, or after --from. With --follow new ones\n"
                "come from RabbitMQ where it can be reached and else from Postgres, each once\n"
                "and in order; it ends with its reader, or in peace on SIGINT and SIGTERM.",
     .exit_codes = EXIT_GROUP,
     .example = "heirflow news --follow --json | jq .type",
     .run = follow_run},
    {.name = "switchover",
     .purpose = "Hand over to the next in line, or to --to; report the gap.",
     .letters = "cgtTj",
     .details = "The heir stops its scheduler gracefully while it renews its lease. Refused if\n"
                "the target cannot lead; after --timeout the request still stands.",
     .exit_codes = EXIT_OPERATE,
     .example = "heirflow switchover --to scheduler-b",
     .run = operate_switchover},
    {.name = "pause",
     .purpose = "Let nobody take over, e.g. while the database is maintained.",
     .letters = "cg",
     .details = "The scheduler runs on as long as its lease is renewed. If it stops meanwhile,\n"
                "only the same node starts it again.",
     .exit_codes = EXIT_OPERATE,
     .example = "heirflow pause --group airflow-scheduler",
     .run = operate_pause},
    {.name = "resume",
     .purpose = "End a pause.",
     .letters = "cg",
     .exit_codes = EXIT_OPERATE,
     .example = "heirflow resume --group airflow-scheduler",
     .run = operate_resume},
    {.name = "retire",
     .purpose = "Take a node out of the line; as the heir it hands over first.",
     .letters = "cgnT",
     .details = "It stays retired, restarts included, until heirflow enlist.",
     .exit_codes = EXIT_OPERATE,
     .example = "heirflow retire --node scheduler-b",
     .run = operate_retire},
    {.name = "enlist",
     .purpose = "Put a retired node at the end of the line.",
     .letters = "cgn",
     .exit_codes = EXIT_OPERATE,
     .example = "heirflow enlist --node scheduler-b",
     .run = operate_enlist},
    {.name = "lease",
     .purpose = "Change the group's lease from the next accession on.",
     .letters = "cg",
     .takes_lease = true,
     .details = "Should the database restart or fail over before that, everybody waits the\n"
                "longest lease that was to come. Members whose own timings do not fit the new\n"
                "lease say so and cannot lead. At least 200 ms.",
     .exit_codes = EXIT_OPERATE,
     .example = "heirflow lease 3000 --group airflow-scheduler",
     .run = operate_lease},
    {.name = "check",
     .purpose = "Check configuration, database, broker, command; OK or the remedy.",
     .letters = "cgnk",
     .takes_command = true,
     .exit_codes = "0 all OK, 1 something is BAD, 2 usage or configuration",
     .example = "heirflow check --config /etc/heirflow/heirflow.json",
     .run = run_check},
    {.name = "migrate",
     .purpose = "Create or upgrade the schema; safe to run from many nodes at once.",
     .letters = "c",
     .details = "The database user needs CREATE on the database the first time, and owns\n"
                "the schema from then on.",
     .exit_codes = EXIT_DATABASE,
     .example = "HEIRFLOW_POSTGRES='dbname=airflow user=owner' heirflow migrate",
     .run = run_migrate},
    {.name = "version",
     .purpose = "Print the version of the program and of its schema.",
     .letters = "",
     .exit_codes = "0",
     .example = "heirflow version",
     .run_bare = commands_version},
    {.name = "help",
     .purpose = "Print this, or the help of one command.",
     .letters = "",
     .exit_codes = "0, 2 no such command",
     .example = "heirflow help status",
     .run_bare = commands_help},
    {.name = "keeper",
     .purpose = "The process between wrapper and scheduler; started by `heirflow run`.",
     .letters = "",
     .exit_codes = "0",
     .example = "heirflow run",
     .hidden = true,
     .run_bare = run_keeper},
    {.name = "errand",
     .purpose = "The process between wrapper and a command beside the scheduler; started by\n`heirflow run`.",
     .letters = "",
     .exit_codes = "0 the command's was 0, 1 it was not, 2 usage",
     .example = "heirflow run",
     .hidden = true,
     .run_bare = run_errand},
    {.name = "output",
     .purpose = "The process that writes the scheduler's output to a file; started by\n`heirflow run`.",
     .letters = "",
     .exit_codes = "0",
     .example = "heirflow run",
     .hidden = true,
     .run_bare = run_output},
    {0},
};

static const struct option_spec {
    char letter; /* in struct command.letters, and getopt's value; not itself an option */
    const char *name, *argument, *help;
} specs[] = {
    {'c', "config", "FILE", "configuration; default: see Files"},
    {'g', "group", "GROUP", "default: \"group\" of the configuration"},
    {'n', "node", "NODE", "the member's name; default: this host's"},
    {'j', "json", NULL, "JSON instead of a table"},
    {'l', "limit", "N", "at most so many; default: 20"},
    {'f', "follow", NULL, "go on as events happen"},
    {'F', "from", "SEQUENCE", "begin after that sequence number"},
    {'t', "to", "NODE", "who is to be the heir; default: the next in line"},
    {'T', "timeout", "SECONDS", "wait at most so long for the outcome; default: 60"},
    {'k', "hook", NULL, "send a test event through the hooks, too"},
    {'h', "help", NULL, "print this"},
};
enum { SPEC_COUNT = sizeof specs / sizeof *specs };

static const struct command *find(const char *name)
{
    for (const struct command *command = commands; command->name; command++) {
        if (strcmp(command->name, name) == 0)
            return command;
    }
    return NULL;
}

static bool takes(const struct command *command, char letter)
{
    return letter == 'h' || strchr(command->letters, letter);
}

/* ---- parsing */

static bool take_number(const char *what, const char *text, int64_t least, int64_t *ret_number, struct error *error)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (!*text || *end || errno || number < least || number > 1000000000000)
        return error_set(error, EXIT_CODE_USAGE, "%s takes a whole number from %lld, not \"%.40s\"", what, (long long)least,
                         text);
    *ret_number = number;
    return true;
}

static bool take_option(struct options *options, int letter, struct error *error)
{
    switch (letter) {
    case 'c':
        options->flags.path = optarg;
        return true;
    case 'g':
        options->flags.group = optarg;
        return true;
    case 'n':
        options->flags.node = optarg;
        return true;
    case 'j':
        return options->json = true;
    case 'f':
        return options->follow = true;
    case 'k':
        return options->hook = true;
    case 'h':
        return options->help = true;
    case 't':
        options->to = optarg;
        return true;
    case 'T':
        return take_number("--timeout", optarg, 0, &options->timeout_s, error);
    case 'l':
        return take_number("--limit", optarg, 1, &options->limit, error);
    default: /* 'F', the last of the table */
        return take_number("--from", optarg, 0, &options->from, error);
    }
}

static bool parse_options(int argc, char **argv, struct options *options, struct error *error)
{
    struct option known[SPEC_COUNT + 1] = {0};
    int count = 0, letter;
    const char *name = options->command->name;
    for (int i = 0; i < SPEC_COUNT; i++) {
        if (takes(options->command, specs[i].letter))
            known[count++] = (struct option){specs[i].name, specs[i].argument != NULL, NULL, specs[i].letter};
    }
    opterr = 0;
    optind = 0; /* starts afresh, also in a test's second run */
    while ((letter = getopt_long(argc, argv, "+:", known, NULL)) != -1) {
        if (letter == '?')
            return error_set(error, EXIT_CODE_USAGE, "unknown option \"%.60s\"; see heirflow %s --help", argv[optind - 1],
                             name);
        if (letter == ':')
            return error_set(error, EXIT_CODE_USAGE, "option \"%.60s\" needs a value; see heirflow %s --help",
                             argv[optind - 1], name);
        if (!take_option(options, letter, error))
            return false;
    }
    return true;
}

static bool take_lease(const char *text, struct options *options, struct error *error)
{
    return take_number("lease", text, 200, &options->lease_ms, error);
}

static const char *place_of_arguments(const struct command *command)
{
    if (command->takes_command)
        return "the scheduler's command goes after --; ";
    if (takes(command, 't'))
        return "a node goes after --to; ";
    return takes(command, 'n') ? "a node goes after --node; " : "";
}

/* What is left after the options: nothing, `-- COMMAND...`, or the topic of help. */
static bool parse_rest(int argc, char **argv, struct options *options, struct error *error)
{
    const struct command *command = options->command;
    bool dashes = optind > 0 && strcmp(argv[optind - 1], "--") == 0;
    if (command->takes_command && dashes) {
        if (optind == argc)
            return error_set(error, EXIT_CODE_USAGE, "no command after --");
        options->flags.command = argv + optind;
        return true;
    }
    if (optind < argc && command->run_bare == commands_help) {
        options->topic = argv[optind];
        return true;
    }
    if (command->takes_lease && !options->lease_ms) {
        if (optind + 1 == argc)
            return take_lease(argv[optind], options, error);
        if (optind == argc)
            return error_set(error, EXIT_CODE_USAGE, "which lease? See heirflow %s --help", command->name);
    }
    if (optind < argc)
        return error_set(error, EXIT_CODE_USAGE, "unexpected argument \"%.60s\"; %ssee heirflow %s --help", argv[optind],
                         place_of_arguments(command), command->name);
    return true;
}

bool options_parse(int argc, char **argv, struct options *ret_options, struct error *error)
{
    *ret_options = (struct options){.limit = -1, .from = -1, .timeout_s = -1};
    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name)
        return error_set(error, EXIT_CODE_USAGE, "no command given; see heirflow --help");
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    if (strcmp(name, "--version") == 0)
        name = "version";
    ret_options->command = find(name);
    if (!ret_options->command)
        return error_set(error, EXIT_CODE_USAGE, "unknown %s \"%.60s\"; see heirflow --help",
                         *name == '-' ? "option" : "command", name);
    if (ret_options->command->hidden) /* started by us; its arguments, if any, are its own */
        return true;
    int skipped = 1;
    if (ret_options->command->takes_lease && argc > 2 && *argv[2] != '-') {
        if (!take_lease(argv[2], ret_options, error))
            return false;
        skipped = 2;
    }
    return parse_options(argc - skipped, argv + skipped, ret_options, error) &&
           (ret_options->help || parse_rest(argc - skipped, argv + skipped, ret_options, error));
}

/* ---- help */

static void print_program_help(FILE *stream)
{
    fputs("Runs one scheduler on one node of many; the oldest live registrant is its heir.\n\n"
          "usage: heirflow COMMAND [OPTION...]\n\n",
          stream);
    for (const struct command *command = commands; command->name; command++) {
        if (!command->hidden)
            fprintf(stream, "  %-10s %s\n", command->name, command->purpose);
    }
    fputs("\nheirflow COMMAND --help says more; docs/configuration.md has every key.\n"
          "Exit codes: 0 fine, 1 a negative answer, 2 usage or configuration,\n"
          "3 database, 4 broker.\n",
          stream);
}

static void print_option(const struct option_spec *spec, FILE *stream)
{
    char left[40];
    (void)snprintf(left, sizeof left, "--%s%s%s", spec->name, spec->argument ? " " : "",
                   spec->argument ? spec->argument : "");
    fprintf(stream, "  %-17s %s\n", left, spec->help);
}

void options_print_help(const struct command *command, FILE *stream)
{
    if (!command) {
        print_program_help(stream);
        return;
    }
    fprintf(stream, "%s\n\nusage: heirflow %s%s%s%s%s\n\n", command->purpose, command->name,
            command->takes_lease ? " MS" : "", *command->letters ? " [OPTION...]" : "",
            command->takes_command ? " [-- COMMAND [ARG...]]" : "", command->run_bare == commands_help ? " [COMMAND]" : "");
    for (int i = 0; i < SPEC_COUNT; i++) {
        if (takes(command, specs[i].letter))
            print_option(&specs[i], stream);
    }
    if (command->details)
        fprintf(stream, "\n%s\n", command->details);
    if (command->run)
        fputs("\nFiles: $HEIRFLOW_CONFIG, else /etc/heirflow/heirflow.json. A variable\n"
              "HEIRFLOW_..., named like a key, goes before the file.\n",
              stream);
    fprintf(stream, "Exit codes: %s.\nExample: %s\n", command->exit_codes, command->example);
}
