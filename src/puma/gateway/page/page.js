const $ = id => document.getElementById(id);
let asking = "";
let messages = [], model = "", family = "causal", running = null;

function made(tag, text, kind) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
}
function turn(kind, who, text) {
  const box = made("div", undefined, "turn " + kind), words = made("span", text);
  box.append(made("b", who), words);
  $("log").append(box);
  $("log").scrollTop = $("log").scrollHeight;
  return words;
}
function amount(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (bytes >= 1024 && at < 3) { bytes /= 1024; at++; }
  return (at ? bytes.toFixed(1) : bytes) + " " + units[at];
}
async function answered(response) {
  if (response.ok) return response;
  let said = response.statusText;
  try { said = (await response.json()).error.message; } catch { /* no JSON: the status must do */ }
  throw new Error(said);
}
function post(path, body, signal) {
  const headers = {"content-type": "application/json", "x-client-request-id": asking};
  return fetch(path, {method: "POST", headers, body: JSON.stringify(body), signal}).then(answered);
}
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}
async function chat(words, signal) {
  const asked = {model, messages, stream: true, max_tokens: Number($("tokens").value),
    temperature: Number($("temperature").value)};
  let text = "";
  try {
    for await (const event of events(await post("/v1/chat/completions", asked, signal))) {
      if (event.error) throw new Error(event.error.message);
      text += event.choices[0]?.delta?.content ?? "";
      words.textContent = text;
      $("log").scrollTop = $("log").scrollHeight;
    }
  } finally {
    messages.push({role: "assistant", content: text});
  }
}
async function embed(words, text, signal) {
  const found = await (await post("/v1/embeddings", {model, input: text, encoding_format: "float"}, signal)).json();
  const vector = found.data[0].embedding;
  words.textContent = vector.length + " numbers: " + vector.slice(0, 8).map(x => x.toFixed(4)).join(", ") + ", ...";
}
function party(seen) {
  const sample = seen.sample ? seen.sample.match(/../g).join(" ") + (seen.data * 2 > seen.sample.length ? " ..." : "")
    : "no data: it draws its part from the seeds that it is sent";
  const counts = amount(seen.data) + " of masked data and " + amount(seen.control)
    + " of lengths and seeds sent to it; " + amount(seen.received) + " of answer shares came back";
  return [made("h3", seen.name + ", " + seen.role), made("p", counts, "note"), made("code", sample)];
}
async function look() {
  const seen = await (await fetch("/watch/" + asking).then(answered)).json();
  $("parties").replaceChildren(...seen.parties.flatMap(party));
  if (!seen.cost) return;
  const {seconds, rounds, bytes, breakdown} = seen.cost, rows = $("cost").tBodies[0];
  $("total").textContent = `${seconds.toFixed(2)} s, ${rounds.toLocaleString("en")} rounds, ${amount(bytes.online)} online, `
    + `${amount(bytes.offline)} offline; sent by P0, P1, P2: ${bytes.per_party.map(amount).join(", ")}`;
  rows.replaceChildren(...breakdown.filter(part => part.bytes).map(part => {
    const row = made("tr"), name = made("th", part.name);
    name.scope = "row";
    row.append(name, made("td", part.rounds), made("td", amount(part.bytes)), made("td", part.seconds.toFixed(2)));
    return row;
  }));
  $("cost").hidden = false;
}
function busy(controller) {
  running = controller;
  $("send").disabled = controller !== null;
  $("stop").disabled = controller === null;
}
async function ask(text) {
  messages.push({role: "user", content: text});
  turn("user", "you", text);
  const words = turn("answer", "answer", ""), controller = new AbortController();
  asking = [...crypto.getRandomValues(new Uint8Array(16))].map(x => x.toString(16).padStart(2, "0")).join("");
  busy(controller);
  $("status").textContent = "the parties compute";
  const watching = setInterval(() => look().catch(() => {}), 700);
  try {
    await (family === "encoder" ? embed(words, text, controller.signal) : chat(words, controller.signal));
    $("status").textContent = "done";
  } catch (error) {
    if (error.name === "AbortError") {
      $("status").textContent = "stopped";
    } else {
      words.textContent = error.message;
      words.parentNode.classList.add("error");
      $("status").textContent = "failed";
    }
  }
  clearInterval(watching);
  busy(null);
  await look().catch(() => {});
  $("text").focus();
}
$("form").addEventListener("submit", event => {
  event.preventDefault();
  const text = $("text").value;
  if (running || !text.trim()) return;
  $("text").value = "";
  ask(text);
});
$("text").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});
$("stop").addEventListener("click", () => running?.abort());
$("clear").addEventListener("click", () => {
  running?.abort();
  messages = [];
  $("log").replaceChildren();
});
fetch("/health").then(response => response.json()).then(found => {
  ({model, family} = found);
  $("model").textContent = model;
  document.title = "Puma: " + model;
});
