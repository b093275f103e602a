// What each party was sent for one request, and what it cost: drawn, in tiles, and in full below.

const HOLDS = ["ab", "ma", "mb"];  // of m = secret + a + b, by P0, P1, P2
const NAMES = ["P0, dealer", "P1, evaluator", "P2, evaluator"];
const LINE = 6, LINES = 4;  // bytes of a line in the drawing
let rate = null;  // rounds and bytes a token, of the last answer that came to its end

function $(id) { return document.getElementById(id); }
function made(tag, text, kind) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
}
function drawn(tag, attributes, text) {
  const node = document.createElementNS($("drawing").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
function amount(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (bytes >= 1024 && at < 4) { bytes /= 1024; at++; }
  return (at && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)) + " " + units[at];
}
function span(seconds) {
  if (seconds < 100) return seconds.toFixed(1) + " s";
  return Math.floor(seconds / 60) + " min " + Math.floor(seconds % 60) + " s";
}
function count(number) { return Math.round(number).toLocaleString("en"); }
function short(text, most) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > most ? line.slice(0, most - 1) + "…" : line;
}
function lines(sample) {
  return (sample.match(/../g) ?? []).slice(0, LINE * LINES).join(" ").match(/.{1,18}/g) ?? [];
}

function drawParties(places) {
  $("drawn-parties").replaceChildren(...NAMES.map((name, rank) => {
    const x = 8 + 154 * rank, group = drawn("g", {});
    group.append(drawn("rect", {class: "party", x, y: 130, width: 136, height: 166, rx: 10}));
    group.append(drawn("text", {class: "name", x: x + 68, y: 151, "text-anchor": "middle"}, name));
    [..."mab"].forEach((part, i) => {
      const lacks = HOLDS[rank].includes(part) ? "" : " lacks", left = x + 22 + 33 * i;
      group.append(drawn("rect", {class: "part " + part + lacks, x: left, y: 162, width: 26, height: 26, rx: 6}));
      group.append(drawn("text", {class: "letter" + lacks, x: left + 13, y: 179.5, "text-anchor": "middle"},
        lacks ? "?" : part));
    });
    const note = rank ? "sees only noise" : "sees masks only";
    group.append(drawn("text", {class: "small", x: x + 68, y: 206, "text-anchor": "middle"}, note));
    for (let i = 0; i < LINES; i++)
      group.append(drawn("text", {class: "bytes", id: `drawn-${rank}-${i}`, x: x + 68, y: 226 + 14.5 * i,
        "text-anchor": "middle"}));
    const place = places?.[rank]?.place ?? "";
    group.append(drawn("text", {class: "small place", x: x + 68, y: 290, "text-anchor": "middle"}, short(place, 22)));
    return group;
  }));
}

// -- one request, from the queue to its cost --------------------------------------------------------------------

function showDrawing(turn) {
  const seen = turn.watch, running = turn.state === "running";
  $("drawn-prompt").textContent = "“" + short(turn.text, 32) + "”";
  $("drawing").classList.toggle("running", running && seen?.state === "running");
  for (let rank = 0; rank < NAMES.length; rank++) {
    const party = seen?.parties[rank], sent = party ? party.data + party.control : 0;
    const shown = !sent ? [] : rank ? lines(party.sample) : ["", "seeds, from which", "it draws noise"];
    $("drawn-to-" + rank).textContent = sent ? amount(sent) : "";
    for (let i = 0; i < LINES; i++) $(`drawn-${rank}-${i}`).textContent = shown[i] ?? "";
  }
  const cost = turn.cost;
  $("drawn-rounds").textContent = cost ? `masked values, ${count(cost.rounds)} rounds`
    : "P1 and P2 swap masked values";
  $("drawn-deals").textContent = "P0 deals corrections to P2" + (cost ? ": " + amount(cost.bytes.offline) : "");
  const quoted = `“${short(turn.text, 40)}”`;
  $("subject").textContent = seen || running ? `Of ${quoted}: the first bytes that this client sent to each.`
    : `Of ${quoted} nothing was sent.`;
  $("drawing-words").textContent = !seen ? "Nothing was sent." : seen.parties.map((party, rank) =>
    `${NAMES[rank]}, holds ${[...HOLDS[rank]].join(" and ")}, was sent ${amount(party.data)} of masked data and `
    + `${amount(party.control)} of lengths and seeds.`).join(" ");
}
function showTiles(turn) {
  const {tokens, cost} = turn, running = turn.state === "running";
  const passed = turn.seconds ?? (performance.now() - turn.began) / 1000;
  const since = turn.first ? ((turn.last ?? performance.now()) - turn.first) / 1000 : 0;
  const about = (key, exact, write) => exact !== undefined ? write(exact)
    : !running ? "–" : rate && tokens ? "≈ " + write(rate[key] * tokens) : "…";
  $("t-seconds").textContent = span(passed);
  $("t-tokens").textContent = count(tokens);
  $("t-speed").textContent = tokens > 1 && since > 0 ? ((tokens - 1) / since).toFixed(1) : "–";
  $("t-rounds").textContent = about("rounds", cost?.rounds, count);
  $("t-all").textContent = about("bytes", cost?.bytes.total, amount);
  $("t-mine").textContent = turn.watch ? amount(mine(turn.watch)) : "–";
  const cached = turn.watch?.cached ?? 0;
  $("cached").hidden = !cached;
  $("cached").textContent = `The parties held ${count(cached)} tokens of this chat already, which were not sent again.`;
}
function mine(watch) {
  return watch.parties.reduce((sum, party) => sum + party.data + party.control + party.received, 0);
}
function showInFull(turn) {
  const seen = turn.watch, rows = $("cost").tBodies[0];
  $("more").hidden = !seen;
  $("parties").replaceChildren(...(seen?.parties ?? []).flatMap((party, rank) => {
    const bytes = party.sample.match(/../g), rest = party.data * 2 > party.sample.length ? " …" : "";
    const sample = bytes ? bytes.join(" ") + rest : "no data: it draws its part from the seeds that it is sent";
    const counts = `${amount(party.data)} of masked data and ${amount(party.control)} of lengths and seeds sent to it; `
      + `${amount(party.received)} of answer shares came back`;
    return [made("h3", `${party.name}, ${party.role}`), made("p", counts, "note"), made("code", sample)];
  }));
  $("cost").hidden = !turn.cost;
  rows.replaceChildren(...(turn.cost?.breakdown ?? []).filter(part => part.bytes).map(part => {
    const row = made("tr"), name = made("th", part.name);
    name.scope = "row";
    const numbers = [count(part.rounds), amount(part.bytes), part.seconds.toFixed(2)];
    row.append(name, ...numbers.map(number => made("td", number)));
    return row;
  }));
}
function summary(turn) {
  const parts = [span(turn.seconds)];
  if (turn.tokens) parts.push(turn.tokens === 1 ? "1 token" : `${turn.tokens} tokens`);
  if (turn.tokens > 1 && turn.last > turn.first)
    parts.push(((turn.tokens - 1) * 1000 / (turn.last - turn.first)).toFixed(1) + " tokens/s");
  const {cost} = turn;
  if (cost) parts.push(`${count(cost.rounds)} rounds`, amount(cost.bytes.total));
  return parts.join(" · ");
}
