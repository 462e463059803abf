/* What is run to start a wrapper on another node: the configured words with {node}, {address} and {group} filled in. Pure.
 *
 * The values come from the roster, so from whoever may register. There is no shell here, but ssh has one at its other end,
 * and programs take words that begin with a dash for options: values that could be either are refused. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { START_COMMAND_WORDS = 32, START_COMMAND_WORD = 512, START_COMMAND_TEXT = 1024 };

struct start_command {
    int count;
    char words[START_COMMAND_WORDS][START_COMMAND_WORD];
};

/* `words` ends with NULL; NULL or no words: none is configured. The address is the node's name where the member's own is
 * unknown or says only "this host". False with a text for people. */
bool start_command_fill(struct start_command *ret_command, const char *const *words, const char *node, const char *address,
                        const char *group, char *fault, size_t fault_size);

/* As one line, for people. */
void start_command_text(const struct start_command *command, char *text, size_t size);
