/* Random (version 4) UUIDs as text. */
#pragma once

#define UUID_SIZE 37

/* Writes one with its final NUL; waits for the kernel's entropy at early boot, cannot fail. */
void uuid_draw(char ret_text[UUID_SIZE]);
