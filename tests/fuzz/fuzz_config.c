/* A configuration file, and what connects by it. */
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "config.h"
#include "fuzz.h"
#include "hosts.h"

static void on_resolved(void *data, struct host *host)
{
    (void)data;
    (void)host;
}

static void use(const struct config *config)
{
    uv_loop_t loop;
    struct hosts hosts = {0};
    struct error error;
    fuzz_require(config->lease_ms > 0 && config_worst_gap_ms(config, config->lease_ms) > config->lease_ms);
    fuzz_require(*config->group && *config->node);
    fuzz_require(uv_loop_init(&loop) == 0);
    (void)hosts_init(&hosts, &loop, config->postgres, on_resolved, NULL, &error);
    hosts_finish(&hosts);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&loop);
}

/* One line for people. */
static void check_error(const struct error *error)
{
    fuzz_require(error->exit_code == EXIT_CODE_USAGE && *error->text);
    for (const char *c = error->text; *c; c++)
        fuzz_require((unsigned char)*c >= ' ');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct config *config = NULL;
    struct error error = {0};
    int fd = memfd_create("configuration", 0);
    fuzz_require(fd >= 0 && fchmod(fd, 0600) == 0 && write(fd, data, size) == (ssize_t)size);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const struct config_flags flags = {.path = path};
    if (config_load(&flags, &config, &error))
        use(config);
    else
        check_error(&error);
    config_free(config);
    (void)close(fd);
    return 0;
}
