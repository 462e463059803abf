"""The status page in a real browser: Debian's chromium, headless, driven by its own driver."""
import os
import shutil

import pytest

from processes import wait_for

selenium = pytest.importorskip("selenium", reason="python3-selenium is not installed")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

TOKEN = "letmein-letmein-0123456789"
NASTY = '<img/src=x/onerror=document.title="owned">'

pytestmark = pytest.mark.skipif(not shutil.which("chromium") or not shutil.which("chromedriver"),
                                reason="chromium and chromium-driver are not installed")


@pytest.fixture(scope="module")
def chromium(worker_folder):
    """One for all tests of this file: it takes seconds to start."""
    profile = worker_folder / "chromium"
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


class Page:
    def __init__(self, driver):
        self.driver = driver

    def open(self, node):
        self.driver.get(f"http://127.0.0.1:{node.port}/")
        self.wait_for("#connection", "live")
        return self

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.driver.execute_script("return document.querySelector(arguments[0])?.innerText || ''", selector)

    def texts(self, selector):
        return self.driver.execute_script("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)", selector)

    def wait_for(self, selector, text, timeout=20):
        wait_for(lambda: text in self.text(selector), timeout, lambda: f"{text!r} in {selector}: {self.text(selector)!r}")

    def click(self, selector):
        self.find(selector).click()

    def confirm(self, selector):
        self.click(selector)
        wait_for(lambda: self.find("#sure").get_attribute("open"), 5, "the question")
        self.click("#yes")

    def log_in(self, token):
        self.find("#token").send_keys(token)
        self.click("#login button")

    def complaints(self):
        """What the browser's console has against the page."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def page(chromium, outlives_tests):
    outlives_tests(chromium.service.process.pid)
    chromium.get("about:blank")
    chromium.get_log("browser")
    yield Page(chromium)
    chromium.get("about:blank")


@pytest.fixture
def trio(node, database):
    """Three nodes in a line; the first one leads."""
    nodes = []
    for name in ("ada", "bert", "cleo"):
        nodes.append(node(name, database=database, token=TOKEN, lease_ms=3000))  # the browser takes its part of the processors
        nodes[-1].wait_for_event("standby")
    wait_for(lambda: nodes[0].get("/heir").status == 200, 20, "the heir")
    return nodes


def test_shows_a_succession_within_a_second(page, trio, database):
    ada, bert, cleo = trio
    page.open(cleo)
    page.wait_for("#summary", "ada is the heir")
    assert page.texts("#members .name") == ["ada", "bert", "cleo"]
    assert page.texts("tr.heir .name") == ["ada"]
    page.driver.execute_script("""
        window.changed = null;
        new MutationObserver(() => {
            if (!window.changed && document.querySelector("tr.heir .name")?.innerText === "bert") window.changed = Date.now();
        }).observe(document.querySelector("#members"), {childList: true, subtree: true});""")
    ada.kill()
    shown = wait_for(lambda: page.driver.execute_script("return window.changed"), 20, "bert as heir")
    happened = database.value("select floor(extract(epoch from began_at) * 1000)::float from terms where node = 'bert'")
    assert 0 <= shown - happened < 1000
    page.wait_for("#news", "acceded")
    page.wait_for("#latest", "after the one before")
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#terms rect")) == 2
    assert page.complaints() == []


def test_the_page_needs_nothing_from_elsewhere(page, heir):
    page.open(heir)
    page.wait_for("#summary", "ada is the heir")
    fetched = page.driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith((f"http://127.0.0.1:{heir.port}/events", "data:")) for name in fetched), fetched
    assert page.complaints() == []
    blocked = page.driver.execute_async_script("""
        const done = arguments[0];
        document.addEventListener("securitypolicyviolation", event => done(event.violatedDirective));
        const script = document.createElement("script");
        try { script.text = "window.owned = 1"; } catch (error) { done("trusted types"); return; }
        document.body.append(script);""")
    assert blocked == "trusted types" and page.driver.execute_script("return window.owned") is None


def test_names_are_text(page, node, database):
    ada = node("ada", database=database)
    wait_for(lambda: ada.get("/heir").status == 200, 20, "the heir")
    node(NASTY, database=database)
    database.query("select tell('tests', 'noise', %s, 'ada', 1, %s)", NASTY, NASTY)
    page.open(ada)
    wait_for(lambda: NASTY in page.texts("#members .name"), 20, "the name")
    page.wait_for("#news", NASTY)
    assert page.driver.find_elements(By.CSS_SELECTOR, "main img") == []
    assert "owned" not in page.driver.title
    assert page.complaints() == []


def test_without_a_token_in_the_configuration_no_buttons(page, heir):
    page.open(heir)
    page.wait_for("#summary", "ada is the heir")
    assert not page.find("#changes").is_displayed()


def test_a_wrong_token_does_nothing(page, guarded, database):
    page.open(guarded)
    assert not page.find("#actions").is_displayed()
    page.log_in("not-the-token-not-the-token")
    page.confirm("#pause")
    page.wait_for("#outcome", "wrong token")
    assert page.find("#login").is_displayed()
    assert not database.value("select paused from throne")


def test_the_buttons(page, trio, database):
    ada, bert, cleo = trio
    page.open(ada)
    page.log_in(TOKEN)
    page.confirm("#pause")
    page.wait_for("#summary", "paused")
    page.click("#resume")
    wait_for(lambda: not database.value("select paused from throne"), 10, "the resumption")
    wait_for(lambda: "paused" not in page.text("#summary"), 10, "no pause")
    pid = ada.scheduler()
    page.confirm("#terminate")
    wait_for(lambda: ada.scheduler() not in (None, pid), 20, lambda: "another scheduler\n" + ada.log())
    page.find("#target option[value=cleo]").click()
    page.confirm("#switchover")
    wait_for(lambda: cleo.get("/heir").status == 200, 20, "cleo as heir")
    page.wait_for("#summary", "cleo is the heir")
    page.click("#switchover")
    page.click("#sure button[value=no]")
    assert cleo.get("/heir").status == 200
    page.driver.refresh()
    page.wait_for("#summary", "cleo is the heir")
    assert page.find("#actions").is_displayed()  # the token is kept for this tab
    page.click("#forget")
    assert page.find("#login").is_displayed()
    assert page.complaints() == []


def test_a_lost_database_and_a_lost_node_are_said(page, node, own_database):
    ada = node("ada", database=own_database)
    wait_for(lambda: ada.get("/heir").status == 200, 20, "the heir")
    page.open(ada)
    page.wait_for("#summary", "ada is the heir")
    own_database.server.freeze()
    page.wait_for("#connection", "database away")
    page.wait_for("#fault", "What is below is old")
    own_database.server.thaw()
    page.wait_for("#connection", "live")
    assert not page.find("#fault").is_displayed()
    ada.terminate()
    page.wait_for("#connection", "reconnecting")
    ada.wait()
    ada.start()
    page.wait_for("#connection", "live", timeout=30)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_fits(page, trio, scheme, width):
    """Nothing is cut off at the side, and text stands out from what is behind it."""
    trio[0].kill()
    wait_for(lambda: trio[1].get("/heir").status == 200, 20, "the next heir")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500})
    try:
        page.open(trio[1])
        page.wait_for("#summary", "bert is the heir")
        assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
        faint = page.driver.execute_script(FAINT)
        assert faint == []
        if os.environ.get("HEIRFLOW_SCREENSHOTS"):  # to be looked at
            metrics = page.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
                "width": width, "height": int(metrics["height"]), "deviceScaleFactor": 1, "mobile": width < 500})
            page.driver.save_screenshot(f"{os.environ['HEIRFLOW_SCREENSHOTS']}/{scheme}-{width}.png")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


# Texts whose contrast is below 4.5 to 1 (WCAG AA).
FAINT = """
const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {
  for (; element; element = element.parentElement) {
    const colour = parse(getComputedStyle(element).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  if (!own || !element.checkVisibility() || element.closest("svg, script, style, :disabled")) continue;
  const pair = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
  const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
  if (contrast < 4.5) found.push([element.outerHTML.slice(0, 80), contrast]);
}
return found;
"""
