/* What keeper and wrapper say to each other: the specification, and each message of any size and content. Both files are
 * included whole, for what reads the messages is their own. */
#include "../../heirflow/keeper.c"
#include "../../heirflow/keeper_process.c"
#include "fuzz.h"

static void on_report(void *data, const struct keeper_report *report)
{
    (void)data;
    fuzz_require(strnlen(report->text, sizeof report->text) < sizeof report->text);
}

/* To the wrapper. */
static void tell_wrapper(const uint8_t *data, size_t size)
{
    static uv_loop_t loop;
    int pair[2], on = 1;
    struct keeper keeper = {.on_report = on_report};
    fuzz_require(uv_loop_init(&loop) == 0);
    fuzz_require(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0);
    (void)setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    keeper.control = pair[0];
    fuzz_require(uv_poll_init(&loop, &keeper.control_poll, keeper.control) == 0);
    (void)!send(pair[1], data, size, MSG_NOSIGNAL);
    if (size >= sizeof(struct keeper_message))
        (void)!send(pair[1], data + (size - sizeof(struct keeper_message)), sizeof(struct keeper_message), MSG_NOSIGNAL);
    keeper_drain(&keeper);
    uv_close((uv_handle_t *)&keeper.control_poll, NULL);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    fuzz_require(uv_loop_close(&loop) == 0);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

/* To a keeper that waits, and to one that is stopping: it must never take a deadline back, nor un-stop. */
static void tell_keeper(const uint8_t *data, size_t size)
{
    struct keeper_process self = {.life = WAITING, .stop_by_ms = INT64_MAX, .deadline_ms = 1000, .start = -1};
    self.final = size & 1;
    for (; size >= sizeof(struct keeper_order); data += sizeof(struct keeper_order), size -= sizeof(struct keeper_order)) {
        struct keeper_order order;
        bool final = self.final;
        int64_t deadline_ms = self.deadline_ms;
        memcpy(&order, data, sizeof order);
        if (order.word == KEEPER_ORDER_RESTART) /* would start a scheduler */
            order.word = KEEPER_ORDER_STOP;
        obey(&self, &order);
        fuzz_require(self.deadline_ms >= deadline_ms && (!final || self.final));
    }
}

static void read_specification(const uint8_t *data, size_t size)
{
    struct keeper_process self = {0};
    int fd = memfd_create("specification", 0);
    fuzz_require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    fuzz_require(dup2(fd, KEEPER_SPEC_FD) == KEEPER_SPEC_FD);
    if (unpack_spec(&self))
        fuzz_require(self.scheduler.group && self.will.postgres && json_is_array(self.scheduler.command));
    json_decref(self.text);
    if (fd != KEEPER_SPEC_FD)
        (void)close(fd);
    (void)close(KEEPER_SPEC_FD);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool reserved;
    if (!reserved) { /* so that what libFuzzer opens is not there */
        for (int fd = KEEPER_CONTROL_FD; fd < KEEPER_FIRST_FREE_FD; fd++)
            (void)fcntl(STDERR_FILENO, F_DUPFD, fd);
        reserved = true;
    }
    tell_wrapper(data, size);
    tell_keeper(data, size);
    read_specification(data, size);
    return 0;
}
