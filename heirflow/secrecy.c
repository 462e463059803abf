/* Owns who may open a file that holds a secret. Never opens it. */
#include "secrecy.h"

#include <sys/stat.h>

bool secrecy_is_open(const char *path)
{
    struct stat file;
    return stat(path, &file) == 0 && S_ISREG(file.st_mode) && (file.st_mode & S_IRWXO);
}
