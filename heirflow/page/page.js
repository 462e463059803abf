"use strict";
// Everything that comes from outside is put in as text, never as markup.
const $ = id => document.getElementById(id);
const SILENT_MS = 8000; // the server says something every two seconds
let last = null;        // the last message
let heard = 0;          // when it came, by performance.now()
let told = 0;           // when the last one came that had the group in it
let source = null;

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

function drawn(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function duration(ms) {
  if (!Number.isFinite(ms)) return "–";
  if (ms < 1000) return Math.max(0, Math.round(ms)) + " ms";
  const s = ms / 1000;
  if (s < 10) return s.toFixed(1) + " s";
  if (s < 120) return Math.round(s) + " s";
  if (s < 7200) return Math.round(s / 60) + " min";
  if (s < 172800) return Math.round(s / 3600) + " h";
  return Math.round(s / 86400) + " d";
}

const clock = (at, date) => new Date(at).toLocaleString([], date
  ? {month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23"}
  : {hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23"});
const now = () => last.group.now_ms + performance.now() - told; // by the database's clock

// ---- the group

function showSummary(status, here) {
  const heir = status.heir && status.heir.node;
  const lapsed = status.members.some(member => member.role === "heir" && !member.live);
  document.title = (heir || "no heir") + " · " + status.group;
  $("group").textContent = status.group;
  const words = heir
    ? [element("strong", "", heir), ` is the heir, term ${status.term}, for ${duration(now() - Date.parse(status.acceded_at))} now`]
    : [element("strong", "", "Nobody"), ` is the heir at present; the last term was ${status.term}`];
  $("summary").replaceChildren(...words, `; the lease is ${duration(status.lease_ms)}. `,
    lapsed ? element("span", "pill warn", "its lease has lapsed") : "", " ",
    status.paused ? element("span", "pill warn", "paused: nobody takes over") : "");
  $("here").textContent = `Told by ${here.node} (${here.state}).`;
}

function describeScheduler(scheduler) {
  if (!scheduler) return "";
  const restarts = scheduler.restarts ? `, ${scheduler.restarts} restart${scheduler.restarts === 1 ? "" : "s"}` : "";
  const since = Date.parse(scheduler.started_at);
  return scheduler.state + (since ? " " + duration(now() - since) : "") + restarts;
}

function showMembers(members) {
  $("members").replaceChildren(...members.map(member => {
    const beat = element("td", "beat");
    beat.dataset.ago = member.seen_ms_ago;
    return element("tr", !member.live ? "gone" : member.role === "heir" ? "heir" : "",
      element("td", "number", String(member.rank)), element("td", "name", member.node), element("td", "", member.role), beat,
      element("td", "", describeScheduler(member.scheduler)), element("td", "", member.reason || ""));
  }));
  showBeats();
}

function showBeats() {
  for (const beat of document.querySelectorAll(".beat"))
    beat.textContent = duration(Number(beat.dataset.ago) + performance.now() - told) + " ago";
}

// One row a node, newest heir first; time runs to the right and ends now.
function showTerms(terms, width) {
  const shown = terms.slice(0, 30), nodes = [...new Set(shown.map(term => term.node))].slice(0, 12);
  if (!shown.length) { $("terms").replaceChildren("Nobody has been heir so far."); return; }
  const left = Math.min(140, width / 3), row = 24, height = nodes.length * row + 22, end = now();
  const begin = Math.min(...shown.map(term => Date.parse(term.began_at)), end - 1000);
  const x = at => left + (width - left) * Math.min(1, Math.max(0, (at - begin) / (end - begin)));
  const picture = drawn("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "terms of the last heirs over time"});
  nodes.forEach((node, i) => {
    const most = Math.floor(left / 8), name = [...node].length > most ? [...node].slice(0, most - 1).join("") + "…" : node;
    picture.append(drawn("text", {x: 0, y: i * row + 16}, name),
      drawn("line", {class: "grid", x1: left, x2: width, y1: i * row + 12, y2: i * row + 12}));
  });
  for (const term of shown.filter(each => nodes.includes(each.node))) {
    const from = x(Date.parse(term.began_at)), to = term.ended_at ? x(Date.parse(term.ended_at)) : width;
    const kind = !term.ended_at ? "now" : term.ended_by === "deposed" ? "presumed" : "was";
    const bar = drawn("rect", {class: kind, x: from, y: nodes.indexOf(term.node) * row + 4, width: Math.max(2, to - from), height: 16, rx: 2});
    bar.append(drawn("title", {}, `term ${term.term}: ${term.node}, ${clock(term.began_at, true)}`
      + (term.ended_at ? `, ${term.ended_by || "ended"}${term.reason ? ": " + term.reason : ""}` : ", still heir")));
    picture.append(bar);
  }
  const day = end - begin > 86400000, axis = height - 6;
  picture.append(drawn("text", {x: left, y: axis}, clock(begin, day)), drawn("text", {x: width, y: axis, "text-anchor": "end"}, "now"));
  $("terms").replaceChildren(picture);
  const gap = shown[0].gap_ms;
  $("latest").textContent = `Term ${shown[0].term} began ${clock(shown[0].began_at, true)}`
    + (Number.isFinite(gap) ? `, ${duration(gap)} after the one before.` : ".");
}

function showNews(news) {
  $("news").replaceChildren(...news.slice().reverse().map(event => {
    const data = event.data || {}, type = event.type.replace("heirflow.", "");
    const time = element("time", "quiet", clock(event.time));
    time.dateTime = event.time;
    const more = [event.subject, data.term ? "term " + data.term : "", data.reason || ""].filter(Boolean).join(" · ");
    return element("li", "", time, element("span", "", type), element("span", "", more));
  }));
}

function showTargets(members, heir) {
  const select = $("target"), chosen = select.value;
  const able = members.filter(member => member.role === "standby" && member.live).map(member => member.node);
  const option = (value, text) => { const made = element("option", "", text); made.value = value; return made; };
  const wanted = JSON.stringify(able);
  if (select.dataset.nodes === wanted) return; // an open list stays open
  select.dataset.nodes = wanted;
  select.replaceChildren(option("", "the eldest standby"), ...able.map(node => option(node, node)));
  select.value = able.includes(chosen) ? chosen : "";
}

function showConnection() {
  const silent = performance.now() - heard > SILENT_MS;
  const [kind, text] = !heard || silent || !source || source.readyState !== EventSource.OPEN ? ["warn", "reconnecting"]
    : last.error ? ["bad", "database away"] : ["good", "live"];
  $("connection").className = "pill " + kind;
  $("connection").textContent = text;
}

let seen = null; // the last message that had the group in it
function show(message) {
  const {here, group, error} = message;
  $("fault").hidden = !error;
  $("fault").textContent = error ? "The database does not tell: " + error + (seen ? " What is below is old." : "") : "";
  $("changes").hidden = !here.changes;
  $("terminate").disabled = here.scheduler !== "running";
  if (group) {
    last = seen = message;
    told = heard;
    const {status, terms, news} = group;
    showSummary(status, here);
    showMembers(status.members);
    showTerms(terms, Math.max(280, $("terms").clientWidth));
    showNews(news);
    showTargets(status.members);
    $("pause").hidden = status.paused;
    $("resume").hidden = !status.paused;
    $("switchover").disabled = status.paused || !status.heir;
  } else {
    last = seen ? {...seen, error} : message;
    if (!seen) {
      $("group").textContent = here.group;
      $("summary").textContent = `${here.node} is ${here.state}`;
    }
  }
  showConnection();
}

function listen() {
  source = new EventSource("/events");
  source.onmessage = event => { heard = performance.now(); show(JSON.parse(event.data)); };
  source.onerror = () => {
    showConnection();
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000); // refused: the browser has given up
  };
}

// ---- changes

const token = () => sessionStorage.getItem("heirflow-token");

function showLogin() {
  $("login").hidden = Boolean(token());
  $("actions").hidden = !token();
}

function sure(question) {
  $("question").textContent = question;
  $("sure").returnValue = "no";
  $("sure").showModal();
  return new Promise(resolve => { $("sure").onclose = () => resolve($("sure").returnValue === "yes"); });
}

async function change(path, body, done) {
  $("outcome").textContent = "…";
  try {
    const response = await fetch(path, {method: "POST", cache: "no-store", body: body && JSON.stringify(body),
      headers: {Authorization: "Bearer " + token(), ...(body && {"Content-Type": "application/json"})}});
    if (response.status === 401) { sessionStorage.removeItem("heirflow-token"); showLogin(); }
    $("outcome").textContent = response.ok ? done : "Refused: " + (await response.text()).trim();
  } catch {
    $("outcome").textContent = "No answer from this node.";
  }
}

$("login").onsubmit = event => {
  event.preventDefault();
  sessionStorage.setItem("heirflow-token", $("token").value.trim());
  $("token").value = $("outcome").textContent = "";
  showLogin();
};
$("forget").onclick = () => { sessionStorage.removeItem("heirflow-token"); $("outcome").textContent = ""; showLogin(); };
$("switchover").onclick = async () => {
  const to = $("target").value;
  if (await sure(`Stop the scheduler and hand over to ${to || "the eldest standby"}?`))
    change("/switchover", to ? {to} : null, "Asked for; the heir stops its scheduler first.");
};
$("pause").onclick = async () => {
  if (await sure("Pause? Nobody takes over while the group is paused, whatever happens.")) change("/pause", null, "Paused.");
};
$("resume").onclick = () => change("/resume", null, "Resumed.");
$("terminate").onclick = async () => {
  if (await sure("Send SIGTERM to the scheduler on this node? It is restarted here, or inherited by the next node."))
    change("/terminate-scheduler", null, "SIGTERM is on its way.");
};

showLogin();
listen();
setInterval(() => { if (seen) { showBeats(); showSummary(seen.group.status, seen.here); } showConnection(); }, 1000);
