/* Owns the terminal: modes, colours, keys, and giving it back. Never decides what is shown. */
#define NCURSES_WIDECHAR 1
#include "screen.h"

#include <curses.h>
#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <term.h>
#include <termios.h>
#include <unistd.h>

#include "cleanup.h"
#include "outlet.h"

enum { GIVE_BACK_MS = 300 }; /* for a terminal that has stopped to take what is left */

static struct {
    SCREEN *screen;
    FILE *input;
    bool open;            /* the terminal is ours */
    struct termios modes; /* while it is */
    int input_flags;      /* of a shared description, to be given back; -1: ours alone */
    bool colours;
    int theme;
    attr_t attributes[LAYOUT_ROLES];
    short pairs[LAYOUT_ROLES];
    cchar_t *line;
    int line_size;
} screen;

/* What the crash handler needs, made ready beforehand: there it is too late for anything that allocates or locks. */
static struct {
    volatile sig_atomic_t armed;
    struct termios modes;
    char restore[256];
    size_t length;
} rescue;

/* ---- giving it back */

static void on_crash(int number)
{
    if (rescue.armed) {
        rescue.armed = 0;
        (void)!write(STDOUT_FILENO, rescue.restore, rescue.length);
        (void)tcsetattr(STDOUT_FILENO, TCSANOW, &rescue.modes);
        static const char text[] = "heirflow-interface: crashed; the terminal is restored\n";
        (void)!write(STDERR_FILENO, text, sizeof text - 1);
    }
    (void)raise(number); /* SA_RESETHAND: once we return it ends the process as it would have */
}

/* Terminfo strings without their padding, `$<5>`. */
static void add_restore(const char *capability)
{
    const char *text = tigetstr(capability);
    if (!text || text == (char *)-1)
        return;
    while (*text && rescue.length < sizeof rescue.restore) {
        if (text[0] == '$' && text[1] == '<' && strchr(text, '>'))
            text = strchr(text, '>') + 1;
        else
            rescue.restore[rescue.length++] = *text++;
    }
}

static void arm_rescue(void)
{
    static const char *const capabilities[] = {"sgr0", "op", "rmkx", "cnorm", "rmcup"};
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    static char stack_memory[64 * 1024]; /* a stack that has overflowed is of no use */
    rescue.length = 0;
    for (size_t i = 0; i < sizeof capabilities / sizeof *capabilities; i++)
        add_restore(capabilities[i]);
    stack_t stack = {.ss_sp = stack_memory, .ss_size = sizeof stack_memory};
    (void)sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = (int)(SA_RESETHAND | SA_ONSTACK)};
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
        (void)sigaction(crashes[i], &action, NULL);
    rescue.armed = 1;
}

/* Curses knows only our memory by now, which has no modes. A terminal that has gone needs none. */
static void give_back(void)
{
    (void)endwin();
    outlet_finish(GIVE_BACK_MS);
    (void)tcsetattr(STDOUT_FILENO, TCSANOW, &rescue.modes);
}

void screen_close(void)
{
    if (!screen.open)
        return;
    screen.open = false;
    rescue.armed = 0;
    give_back();
    if (screen.input_flags >= 0)
        (void)fcntl(fileno(screen.input), F_SETFL, screen.input_flags);
}

/* ---- opening */

enum { NO_COLOUR = -1, GREY = 8 };

/* Without colour the attributes alone tell the roles apart, and the signs in front of the lines do so without either. */
static const struct theme {
    const char *name;
    short colours[LAYOUT_ROLES];
} themes[] = {
    {"for a dark background",
     {[LAYOUT_PLAIN] = NO_COLOUR,
      [LAYOUT_TITLE] = NO_COLOUR,
      [LAYOUT_HEIR] = COLOR_GREEN,
      [LAYOUT_NEXT] = COLOR_CYAN,
      [LAYOUT_STANDBY] = NO_COLOUR,
      [LAYOUT_RETIRED] = GREY,
      [LAYOUT_LOST] = COLOR_YELLOW,
      [LAYOUT_FAULT] = COLOR_RED,
      [LAYOUT_DIM] = GREY}},
    {"for a light background",
     {[LAYOUT_PLAIN] = NO_COLOUR,
      [LAYOUT_TITLE] = NO_COLOUR,
      [LAYOUT_HEIR] = COLOR_BLUE,
      [LAYOUT_NEXT] = COLOR_GREEN,
      [LAYOUT_STANDBY] = NO_COLOUR,
      [LAYOUT_RETIRED] = GREY,
      [LAYOUT_LOST] = COLOR_MAGENTA,
      [LAYOUT_FAULT] = COLOR_RED,
      [LAYOUT_DIM] = GREY}},
    {"without colours",
     {NO_COLOUR, NO_COLOUR, NO_COLOUR, NO_COLOUR, NO_COLOUR, NO_COLOUR, NO_COLOUR, NO_COLOUR, NO_COLOUR}},
};

enum { THEMES = sizeof themes / sizeof *themes };

static const attr_t attributes[LAYOUT_ROLES] = {
    [LAYOUT_TITLE] = A_BOLD, [LAYOUT_HEIR] = A_BOLD,  [LAYOUT_RETIRED] = A_DIM,
    [LAYOUT_LOST] = 0,       [LAYOUT_FAULT] = A_BOLD, [LAYOUT_DIM] = A_DIM,
};

static void use_theme(const struct theme *theme)
{
    for (int role = 0; role < LAYOUT_ROLES; role++) {
        short colour = theme->colours[role];
        bool shown = screen.colours && colour >= 0 && colour < COLORS;
        screen.pairs[role] = (short)(shown ? role : 0);
        screen.attributes[role] = shown && colour == GREY ? A_NORMAL : attributes[role];
        if (shown)
            (void)init_pair((short)role, colour, -1);
    }
}

static void choose_colours(void)
{
    const char *refused = getenv("NO_COLOR");
    screen.colours = has_colors();
    if (screen.colours) {
        (void)start_color();
        (void)use_default_colors();
    }
    screen.theme = !screen.colours || (refused && *refused) ? THEMES - 1 : 0;
    use_theme(&themes[screen.theme]);
}

const char *screen_next_theme(void)
{
    screen.theme = (screen.theme + 1) % THEMES;
    use_theme(&themes[screen.theme]);
    screen_repaint();
    return themes[screen.theme].name;
}

static bool open_input(struct error *error)
{
    int own = isatty(STDIN_FILENO) ? outlet_own_terminal(STDIN_FILENO) : open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    screen.input_flags = -1;
    screen.input = own >= 0 ? fdopen(own, "r") : isatty(STDIN_FILENO) ? stdin : NULL;
    if (screen.input == stdin)
        screen.input_flags = fcntl(STDIN_FILENO, F_GETFL); /* watching it changes them */
    return screen.input || error_set(error, EXIT_CODE_USAGE, "no terminal to read keys from; for plain text use --once");
}

bool screen_open(struct error *error)
{
    if (!isatty(STDOUT_FILENO) || tcgetattr(STDOUT_FILENO, &rescue.modes) != 0)
        return error_set(error, EXIT_CODE_USAGE, "the output is no terminal; for plain text use --once");
    if (!open_input(error))
        return false;
    FILE *output = outlet_open();
    screen.screen = output ? newterm(NULL, output, screen.input) : NULL;
    if (!screen.screen)
        return error_set(error, EXIT_CODE_USAGE,
                         "the terminal type \"%s\" is not known here; set TERM (xterm will often do), or use --once",
                         getenv("TERM") ? getenv("TERM") : "");
    screen.open = true;
    arm_rescue();
    (void)atexit(screen_close); /* for whoever calls exit */
    (void)cbreak();
    (void)noecho();
    (void)nonl();
    (void)keypad(stdscr, TRUE);
    (void)nodelay(stdscr, TRUE);
    (void)leaveok(stdscr, TRUE);
    (void)set_escdelay(25);
    (void)curs_set(0);
    choose_colours();
    (void)tcgetattr(STDOUT_FILENO, &screen.modes);
    (void)outlet_divert(); /* else a terminal that stops stops us */
    return true;
}

/* ---- keys */

int screen_input(void)
{
    return fileno(screen.input);
}

bool screen_input_gone(void)
{
    struct pollfd input = {.fd = screen_input(), .events = POLLIN};
    int waiting = 0;
    return poll(&input, 1, 0) > 0 &&
           (input.revents & (POLLHUP | POLLERR | POLLNVAL) || (ioctl(input.fd, FIONREAD, &waiting) == 0 && waiting == 0));
}

uint32_t screen_key(void)
{
    int key = getch();
    switch (key) {
    case ERR:
        return KEYS_CODE_NONE;
    case KEY_UP:
        return KEYS_CODE_UP;
    case KEY_DOWN:
        return KEYS_CODE_DOWN;
    case KEY_PPAGE:
        return KEYS_CODE_PAGE_UP;
    case KEY_NPAGE:
        return KEYS_CODE_PAGE_DOWN;
    case KEY_HOME:
        return KEYS_CODE_HOME;
    case KEY_END:
        return KEYS_CODE_END;
    case KEY_ENTER:
    case '\r':
    case '\n':
        return KEYS_CODE_ENTER;
    case 27:
        return KEYS_CODE_ESCAPE;
    case KEY_BACKSPACE:
    case 127:
    case '\b':
        return KEYS_CODE_BACKSPACE;
    default:
        return key > 0 && key < 127 ? (uint32_t)key : KEYS_CODE_OTHER;
    }
}

/* ---- painting */

void screen_size(int *ret_width, int *ret_height)
{
    getmaxyx(stdscr, *ret_height, *ret_width);
}

bool screen_ascii(void)
{
    const char *term = getenv("TERM");
    return strcmp(nl_langinfo(CODESET), "UTF-8") != 0 || (term && strcmp(term, "linux") == 0); /* its font is too small */
}

void screen_resize(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0)
        (void)resizeterm(size.ws_row, size.ws_col); /* without memory the old size stays */
}

static void draw_line(const struct layout_frame *frame, int y)
{
    int count = 0;
    for (int x = 0; x < frame->width; x++) {
        const struct layout_cell *cell = &frame->cells[(size_t)y * (size_t)frame->width + (size_t)x];
        if (!cell->glyph)
            continue;
        const wchar_t text[] = {cell->glyph, 0};
        attr_t attribute = screen.attributes[cell->role] | (cell->reversed ? A_REVERSE : 0);
        (void)setcchar(&screen.line[count++], text, attribute, screen.pairs[cell->role], NULL);
    }
    (void)mvadd_wchnstr(y, 0, screen.line, count); /* what does not fit is not shown */
}

void screen_draw(const struct layout_frame *frame)
{
    if (frame->width > screen.line_size) {
        cchar_t *line = realloc(screen.line, sizeof *line * (size_t)frame->width);
        if (!line)
            return;
        screen.line = line;
        screen.line_size = frame->width;
    }
    (void)erase();
    for (int y = 0; y < frame->height; y++)
        draw_line(frame, y);
    (void)wnoutrefresh(stdscr);
    (void)doupdate();
}

bool screen_ready(void)
{
    return outlet_send();
}

void screen_repaint(void)
{
    (void)clearok(curscr, TRUE);
}

void screen_suspend(void)
{
    give_back();
    (void)raise(SIGSTOP);
    (void)tcsetattr(STDOUT_FILENO, TCSANOW, &screen.modes);
    screen_resize();
    screen_repaint();
}
