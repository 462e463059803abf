/* Owns what OpenSSL verifies for a broker connection, and the wording of what it complains of. Never connects, never shows
 * what is in a file. */
#include "tls.h"

#include <amqp_ssl_socket.h>
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "secrecy.h"

struct tls {
    char host[256];
    bool has_certificate; /* of our own */
    int verdict;          /* on the broker's: X509_V_OK or why not */
    char text[512];
};

static int own_index(void)
{
    return SSL_get_ex_data_X509_STORE_CTX_idx();
}

static int on_verify(int fine, X509_STORE_CTX *store)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, own_index());
    struct tls *self = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    if (!fine)
        self->verdict = X509_STORE_CTX_get_error(store);
    return fine;
}

/* Instead of asking at the terminal. */
static int no_password(char *buffer, int size, int writing, void *data)
{
    return -1;
}

static bool fail_file(const char *key, const char *path, struct error *error)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(code);
    if (access(path, R_OK) != 0)
        return error_set(error, EXIT_CODE_USAGE, "cannot read %s %.300s: %s", key, path, strerror(errno));
    return error_set(error, EXIT_CODE_USAGE, "%s %.300s cannot be used: %s; it must be in PEM form%s", key, path,
                     reason ? reason : "unknown error",
                     strcmp(key, "rabbitmq.key_file") == 0 ? ", without a password, and belong to rabbitmq.cert_file" : "");
}

static bool load_files(SSL_CTX *context, const struct tls_files *files, struct error *error)
{
    ERR_clear_error();
    SSL_CTX_set_default_passwd_cb(context, no_password);
    if (files->ca_file && SSL_CTX_load_verify_locations(context, files->ca_file, NULL) != 1)
        return fail_file("rabbitmq.ca_file", files->ca_file, error);
    if (!files->ca_file && SSL_CTX_set_default_verify_paths(context) != 1)
        return error_set(error, EXIT_CODE_USAGE, "the system's certificates cannot be read; name some in rabbitmq.ca_file");
    if (files->cert_file && SSL_CTX_use_certificate_chain_file(context, files->cert_file) != 1)
        return fail_file("rabbitmq.cert_file", files->cert_file, error);
    if (files->key_file && secrecy_is_open(files->key_file))
        return error_set(error, EXIT_CODE_USAGE, "rabbitmq.key_file %.300s is open to every user of this host: chmod o= it",
                         files->key_file);
    if (files->key_file && SSL_CTX_use_PrivateKey_file(context, files->key_file, SSL_FILETYPE_PEM) != 1)
        return fail_file("rabbitmq.key_file", files->key_file, error);
    return true;
}

static bool is_address(const char *host)
{
    struct in6_addr address;
    return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

static void verify_peer(SSL_CTX *context, struct tls *self)
{
    X509_VERIFY_PARAM *parameters = SSL_CTX_get0_param(context);
    SSL_CTX_set_app_data(context, self);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, on_verify);
    X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    /* without a name to look for nothing would be compared, so an unusable one must match nothing */
    if ((is_address(self->host) ? X509_VERIFY_PARAM_set1_ip_asc(parameters, self->host)
                                : X509_VERIFY_PARAM_set1_host(parameters, self->host, 0)) != 1)
        abort(); /* out of memory */
}

bool tls_socket(amqp_connection_state_t connection, const struct tls_files *files, const char *host,
                amqp_socket_t **ret_socket, struct tls **ret_tls, struct error *error)
{
    amqp_socket_t *socket = amqp_ssl_socket_new(connection);
    struct tls *self = calloc(1, sizeof *self);
    *ret_tls = self;
    if (!socket || !self)
        return error_set_retryable(error, EXIT_CODE_BROKER, "out of memory");
    if (strlen(host) >= sizeof self->host)
        return error_set(error, EXIT_CODE_USAGE, "rabbitmq.url has a host name that no certificate can hold");
    strcpy(self->host, host);
    self->has_certificate = files->cert_file;
    SSL_CTX *context = amqp_ssl_socket_get_context(socket);
    amqp_ssl_socket_set_verify_hostname(socket, false); /* OpenSSL does it, and knows addresses too */
    verify_peer(context, self);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1)
        abort(); /* this OpenSSL knows TLS 1.2 */
    *ret_socket = socket;
    return load_files(context, files, error);
}

static const char *judge_certificate(struct tls *self)
{
    switch (self->verdict) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return "its certificate has expired; renew it there";
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "its certificate is not valid yet; compare the clocks";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        (void)snprintf(self->text, sizeof self->text,
                       "its certificate is for another name than \"%s\"; write the name it is for in rabbitmq.url, or have "
                       "one issued for this name",
                       self->host);
        return self->text;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        return "its certificate comes from an unknown authority; name that authority's certificate in rabbitmq.ca_file";
    default:
        (void)snprintf(self->text, sizeof self->text, "its certificate is not accepted: %s",
                       X509_verify_cert_error_string(self->verdict));
        return self->text;
    }
}

const char *tls_complaint(struct tls *self, bool shaken)
{
    if (self->verdict != X509_V_OK)
        return judge_certificate(self);
    unsigned long code = ERR_peek_last_error();
    if (ERR_GET_LIB(code) != ERR_LIB_SSL)
        return NULL;
    int reason = ERR_GET_REASON(code);
    bool alert = reason >= SSL_AD_REASON_OFFSET; /* what the broker complained of */
    if (shaken && !alert)
        return NULL;
    if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return "it does not speak TLS on that port; is it the one for amqps://, usually 5671?";
    if (reason == SSL_R_TLSV1_ALERT_PROTOCOL_VERSION || reason == SSL_R_UNSUPPORTED_PROTOCOL)
        return "it speaks no TLS 1.2 or newer; allow it there (ssl_options.versions)";
    if (alert && !self->has_certificate)
        (void)snprintf(self->text, sizeof self->text,
                       "it ended the TLS handshake (%s); it may want a client certificate: set rabbitmq.cert_file and "
                       "rabbitmq.key_file",
                       ERR_reason_error_string(code));
    else
        (void)snprintf(self->text, sizeof self->text,
                       alert ? "it does not accept the certificate in rabbitmq.cert_file (%s)"
                             : "the TLS handshake failed: %s",
                       ERR_reason_error_string(code));
    return self->text;
}

void tls_free(struct tls *self)
{
    free(self);
}
