/* Bytes sent to the real server over loopback, and whatever it answers read to its end. */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "config.h"
#include "fuzz.h"
#include "http.h"

static uv_loop_t loop;
static struct sockaddr_in address;

static void describe(void *data, struct vitals *ret_vitals)
{
    (void)data;
    *ret_vitals = (struct vitals){.state = "heir", .scheduler = "running", .lease_ms = 1000, .held_term = 3, .term = 3};
}

static void on_terminate(void *data)
{
    (void)data;
}

static void on_event(void *data, const char *event, const char *detail)
{
    (void)data;
    (void)event;
    for (const char *c = detail; *c; c++) /* it goes to the log */
        fuzz_require((unsigned char)*c >= ' ');
}

static int free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t length = sizeof address;
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    fuzz_require(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    fuzz_require(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    (void)close(fd);
    return ntohs(address.sin_port);
}

static void *run(void *data)
{
    (void)data;
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    return NULL;
}

/* No database there: what needs one says so at once. */
static void start(void)
{
    static char listen[32];
    static struct config config = {.group = "g", .node = "n", .schema = "heirflow", .postgres = "host=/nonexistent"};
    static const struct http_callbacks callbacks = {.describe = describe, .terminate = on_terminate, .on_event = on_event};
    pthread_t thread;
    (void)signal(SIGPIPE, SIG_IGN);
    (void)snprintf(listen, sizeof listen, "127.0.0.1:%d", free_port());
    config.http.listen = listen;
    config.http.token = "0123456789abcdef";
    fuzz_require(uv_loop_init(&loop) == 0);
    fuzz_require(http_create(&loop, &config, &callbacks) != NULL);
    fuzz_require(pthread_create(&thread, NULL, run, NULL) == 0);
}

/* libFuzzer's timer interrupts it: then it goes on by itself, and asking again tells how. */
static bool connect_to_server(int fd)
{
    while (connect(fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EISCONN) {
        if (errno != EINTR && errno != EALREADY)
            return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int started;
    char answer[4096];
    const struct timeval patience = {.tv_usec = 20000}; /* an unfinished request gets no answer */
    const struct linger no_wait = {.l_onoff = 1};       /* and leaves no port behind */
    if (!started++)
        start();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || !connect_to_server(fd)) {
        perror("fuzz_http: cannot connect");
        abort();
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &no_wait, sizeof no_wait);
    (void)!write(fd, data, size);
    (void)shutdown(fd, SHUT_WR);
    ssize_t length = read(fd, answer, sizeof answer - 1);
    if (length > 0)
        fuzz_require(strncmp(answer, "HTTP/1.", 7) == 0 || length < 7);
    (void)close(fd);
    return 0;
}
