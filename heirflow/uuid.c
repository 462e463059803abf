/* Owns the drawing of random identifiers. */
#include "uuid.h"

#include <stdio.h>
#include <sys/random.h>

void uuid_draw(char ret_text[UUID_SIZE])
{
    unsigned char b[16];
    while (getrandom(b, sizeof b, 0) != sizeof b) /* only a signal interrupts so short a read */
        continue;
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    (void)snprintf(ret_text, UUID_SIZE, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
                   b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}
