/* Owns the filling-in of the start command, and what may be filled in. Never runs it. */
#include "start_command.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static bool is_harmless(const char *value)
{
    if (!*value || *value == '-')
        return false;
    for (; *value; value++) {
        if (!isascii((unsigned char)*value) || (!isalnum((unsigned char)*value) && !strchr("._:@+%-", *value)))
            return false;
    }
    return true;
}

/* Seen from the database, a wrapper beside it has the address of "this host", which here would be ourselves. */
static bool is_elsewhere(const char *address)
{
    return address[0] && strncmp(address, "127.", 4) != 0 && strcmp(address, "::1") != 0;
}

static const char *value_of(const char *name, size_t length, const char *node, const char *address, const char *group)
{
    if (length == 4 && strncmp(name, "node", length) == 0)
        return node;
    if (length == 7 && strncmp(name, "address", length) == 0)
        return is_elsewhere(address) ? address : node;
    if (length == 5 && strncmp(name, "group", length) == 0)
        return group;
    return NULL;
}

/* Braces around anything else stay as they are. */
static bool fill_word(char word[START_COMMAND_WORD], const char *from, const char *node, const char *address,
                      const char *group, char *fault, size_t fault_size)
{
    size_t to = 0;
    while (*from) {
        const char *end = *from == '{' ? strchr(from, '}') : NULL;
        const char *value = end ? value_of(from + 1, (size_t)(end - from - 1), node, address, group) : NULL;
        if (value && !is_harmless(value)) {
            (void)snprintf(fault, fault_size,
                           "\"%s\" has characters that a remote shell might take for a command; start it by hand", value);
            return false;
        }
        size_t length = value ? strlen(value) : 1;
        if (to + length >= START_COMMAND_WORD) {
            (void)snprintf(fault, fault_size, "the start command is too long");
            return false;
        }
        memcpy(word + to, value ? value : from, length);
        to += length;
        from = value ? end + 1 : from + 1;
    }
    word[to] = '\0';
    return true;
}

bool start_command_fill(struct start_command *ret_command, const char *const *words, const char *node, const char *address,
                        const char *group, char *fault, size_t fault_size)
{
    *ret_command = (struct start_command){0};
    for (; words && *words; words++) {
        if (ret_command->count == START_COMMAND_WORDS) {
            (void)snprintf(fault, fault_size, "the start command has more than %d words", START_COMMAND_WORDS);
            return false;
        }
        if (!fill_word(ret_command->words[ret_command->count++], *words, node, address, group, fault, fault_size))
            return false;
    }
    if (ret_command->count == 0)
        (void)snprintf(fault, fault_size, "its wrapper is not running, and no interface.start_command is configured");
    return ret_command->count > 0;
}

void start_command_text(const struct start_command *command, char *text, size_t size)
{
    size_t length = 0;
    text[0] = '\0';
    for (int i = 0; i < command->count && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%s", i ? " " : "", command->words[i]);
}
