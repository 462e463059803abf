/* Lines of a recording, each as it came from the database or the broker, into the model and onto the screen. */
#include "decode_page.h"
#include "desk.h"
#include "fuzz.h"
#include "intake.h"
#include "layout.h"

static void draw(struct model *model, const struct desk *desk)
{
    struct layout_frame frame = {0};
    const struct layout_view view = {.width = 80, .height = 24, .now_ms = 5000, .wall_ms = 5000, .desk = desk};
    (void)layout_draw(&frame, model, &view);
    layout_finish(&frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct page page;
    static struct desk desk;
    struct model model = {0};
    struct intake intake = {.model = &model};
    char *text = fuzz_text(data, size), *rest = text, *line, group[MODEL_NAME];
    int64_t now_ms, wall_ms;
    memset(&desk, 0, sizeof desk);
    fuzz_require(model_init(&model, "g"));
    while ((line = strsep(&rest, "\n"))) {
        (void)intake_read_head(line, group, &now_ms, &wall_ms);
        (void)intake_when(line);
        (void)intake_replay(&intake, line);
        decode_details(line, "g", &page);
        decode_groups(line, "g", &desk);
    }
    memset(&desk, 0, sizeof desk);
    draw(&model, &desk);
    model_finish(&model);
    free(text);
    return 0;
}
