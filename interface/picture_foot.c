/* Owns the last line: what came of an order, else the keys. */
#include "picture.h"
#include "words.h"

static void draw_said(const struct canvas *canvas, int y)
{
    const struct canvas_signs *signs = canvas->signs;
    const struct {
        enum layout_role role;
        const char *sign;
    } moods[] = {
        [DESK_SAYS] = {LAYOUT_PLAIN, signs->next},
        [DESK_GOOD] = {LAYOUT_HEIR, signs->good},
        [DESK_BAD] = {LAYOUT_FAULT, signs->bad},
    };
    enum desk_mood mood = canvas->desk->said.mood;
    for (int x = 0; x < canvas->frame->width; x++)
        (void)canvas_put(canvas, y, x, 1, LAYOUT_PLAIN, " ");
    int x = canvas_put(canvas, y, 1, 1, moods[mood].role, moods[mood].sign);
    (void)canvas_put(canvas, y, x + 1, canvas->frame->width - x - 2, moods[mood].role, canvas->desk->said.text);
}

static const char *word_of(const struct canvas *canvas, const struct keys_key *key)
{
    return key->action == KEYS_PAUSE && canvas->model->snapshot.paused ? "resume" : key->word;
}

/* Those that are not for this user are grey and, for who sees no grey, in brackets. */
static int draw_key(const struct canvas *canvas, int y, int x, const struct keys_key *key)
{
    bool allowed = desk_allows(canvas->desk, canvas->model, key);
    char shown[WORDS_SPAN], word[WORDS_SPAN + 8];
    words_print(shown, sizeof shown, "%s%s", allowed ? "" : "(", canvas->view->ascii ? key->ascii : key->shown);
    words_print(word, sizeof word, " %s%s", word_of(canvas, key), allowed ? "" : ")");
    if (x + canvas_text_width(canvas, shown) + canvas_text_width(canvas, word) > canvas->frame->width - 1)
        return x;
    x = canvas_put(canvas, y, x, WORDS_TEXT, allowed ? LAYOUT_TITLE : LAYOUT_DIM, shown);
    return canvas_put(canvas, y, x, WORDS_TEXT, LAYOUT_DIM, word) + 2;
}

static void draw_keys(const struct canvas *canvas, int y)
{
    char text[WORDS_TEXT];
    int x = 1;
    for (const struct keys_key *key = keys_table; key->action != KEYS_NONE; key++) {
        if (key->word && (!key->replay || canvas->desk->replay))
            x = draw_key(canvas, y, x, key);
    }
    words_print(text, sizeof text, "heirflow %s", HEIRFLOW_VERSION);
    int columns = canvas_text_width(canvas, text);
    if (canvas->frame->width - columns - 1 > x)
        (void)canvas_put(canvas, y, canvas->frame->width - columns - 1, columns, LAYOUT_DIM, text);
}

void picture_foot(const struct canvas *canvas, const struct picture_plan *plan)
{
    if (canvas->desk->said.text[0])
        draw_said(canvas, canvas->frame->height - 1);
    else if (plan->keys >= 0)
        draw_keys(canvas, plan->keys);
}
