/* Owns which broker is tried when. Never waits, never keeps a connection. */
#include "brokers.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct broker_settings brokers_settings(const struct config *config, const char *client_name)
{
    return (struct broker_settings){
        .exchange = config->rabbitmq.exchange,
        .client_name = client_name,
        .tls = {.ca_file = config->rabbitmq.ca_file,
                .cert_file = config->rabbitmq.cert_file,
                .key_file = config->rabbitmq.key_file},
    };
}

static size_t random_below(size_t limit)
{
    size_t number = 0;
    (void)!getrandom(&number, sizeof number, 0); /* else all nodes begin with the first */
    return number % limit;
}

static const char *copy(const char *text)
{
    return text ? strdup(text) : NULL;
}

void brokers_init(struct brokers *self, const struct config *config, const char *client_name)
{
    struct broker_settings settings = brokers_settings(config, client_name);
    *self = (struct brokers){.count = config->rabbitmq.url_count};
    self->settings = (struct broker_settings){
        .exchange = copy(settings.exchange),
        .client_name = copy(settings.client_name),
        .tls = {copy(settings.tls.ca_file), copy(settings.tls.cert_file), copy(settings.tls.key_file)},
    };
    self->urls = calloc(self->count + 1, sizeof *self->urls);
    for (size_t i = 0; i < self->count; i++) {
        size_t place = random_below(i + 1);
        self->urls[i] = self->urls[place];
        self->urls[place] = strdup(config->rabbitmq.urls[i]);
    }
}

void brokers_pass(struct brokers *self)
{
    self->next = (self->next + 1) % self->count;
}

bool brokers_open(struct brokers *self, int64_t timeout_ms, struct broker **ret_broker, struct error *error)
{
    if (broker_open(self->urls[self->next], &self->settings, timeout_ms, ret_broker, error))
        return true;
    brokers_pass(self);
    return false;
}

void brokers_finish(struct brokers *self)
{
    for (size_t i = 0; self->urls && i < self->count; i++)
        free(self->urls[i]);
    free(self->urls);
    free((void *)self->settings.exchange);
    free((void *)self->settings.client_name);
    free((void *)self->settings.tls.ca_file);
    free((void *)self->settings.tls.cert_file);
    free((void *)self->settings.tls.key_file);
}
