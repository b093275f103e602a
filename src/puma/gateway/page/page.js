// The page itself: what is clicked and typed, and where what comes back is put.

const EXAMPLES = {
  text: ["Once upon a time", "Lily found a shiny key in the garden.", "The little dog was sad because"],
  chat: ["What is a secret sharing?", "Write a haiku about a mountain lion.", "Explain rain to a child."],
  encoder: ["The cat sat on the mat.", "A contract about a secret.", "Where does it hurt?"],
};
const LOOK = 700;  // milliseconds between two looks at what was sent
let chat = {turns: []}, running = null, shown = null;

function follow() {
  const log = $("log");
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 160) log.scrollTop = log.scrollHeight;
}
function begun(text) {
  const turn = {chat, text, answer: "", state: "running", id: drawnId(), tokens: 0, began: performance.now(),
    most: Number($("tokens").value), temperature: Number($("temperature").value)};
  turn.box = made("article", undefined, "turn running");
  turn.words = made("div", "", "answer");
  turn.words.setAttribute("aria-label", "answer");
  turn.foot = made("div", undefined, "meta");
  turn.box.append(made("div", text, "asked"), turn.words, turn.foot);
  chat.turns.push(turn);
  $("turns").append(turn.box);
  $("empty").hidden = true;
  $("log").scrollTop = $("log").scrollHeight;
  return turn;
}
function show(turn) {
  if (!turn) return;
  shown = turn;
  showDrawing(turn);
  showTiles(turn);
  showInFull(turn);
  for (const button of document.querySelectorAll("button.sent"))
    button.setAttribute("aria-pressed", String(button === turn.sentButton));
}
function said(turn) {
  const seen = turn.watch;
  if (!seen || seen.state === "waiting")
    return seen?.ahead ? `waiting: ${seen.ahead} before yours` : "on its way to the parties";
  return turn.tokens ? `the parties compute token ${turn.tokens + 1} of at most ${turn.most}` : "the parties compute";
}
function tick(turn) {
  if (shown === turn) showTiles(turn);
  const parts = [span((performance.now() - turn.began) / 1000)];
  if (turn.tokens) parts.push(`${turn.tokens} tokens`);
  if (turn.watch) parts.push(`${amount(mine(turn.watch))} to and from you`);
  turn.foot.textContent = parts.join(" · ");
  if ($("status").textContent !== said(turn)) $("status").textContent = said(turn);
}
function busy(turn) {
  running = turn;
  $("send").hidden = turn !== null;
  $("stop").hidden = turn === null;
}

// -- how a turn ends ---------------------------------------------------------------------------------------------

function button(text, act, kind) {
  const node = made("button", text, kind);
  node.type = "button";
  node.addEventListener("click", act);
  return node;
}
async function copy(turn, node) {
  const failed = () => "Select it and press Ctrl+C";
  node.textContent = await Promise.resolve(navigator.clipboard?.writeText(turn.answer)).then(() => "Copied", failed);
  setTimeout(() => { node.textContent = "Copy"; }, 2000);
}
function again(turn, fresh) {
  if (running) return;
  if (about.keys && !key) return want();  // before the turn is gone, and its text with it
  if (fresh) begin();
  else drop(turn);
  ask(turn.text);
}
function drop(turn) {
  turn.chat.turns = turn.chat.turns.filter(other => other !== turn);
  turn.box.remove();
}
function ended(turn, state, problem) {
  turn.state = state;
  turn.seconds ??= (performance.now() - turn.began) / 1000;
  turn.box.classList.remove("running");
  turn.box.classList.add(state);
  turn.box.classList.toggle("empty", !turn.answer);
  if (problem) turn.box.insertBefore(explained(turn, problem), turn.foot);
  $("status").textContent = {done: "done", stopped: "stopped", failed: "failed"}[state];
}
function explained(turn, problem) {
  const box = made("div", undefined, "problem"), row = made("div", undefined, "row");
  box.setAttribute("role", "alert");
  const title = turn.answer ? "The answer is not complete. " : "No answer. ";
  box.append(made("b", title), made("span", sentence(problem.message)));
  if (problem.hint) box.append(made("p", sentence(problem.hint), "hint"));
  box.append(made("p", "This turn is left out of what you send next.", "note"));
  row.append(button("Try again", () => again(turn)));
  if (problem.code === "context_length_exceeded") row.append(button("Ask in a new chat", () => again(turn, true)));
  box.append(row);
  return box;
}
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
function settle(turn) {
  const sent = turn.watch || turn.tokens;
  const stopped = turn.state === "stopped" ? "stopped · " : "";
  const parts = [made("span", sent ? stopped + summary(turn) : "nothing was sent")];
  if (turn.finish === "length") parts[0].title = "it has as many tokens as were asked for";
  if (turn.answer) {
    const node = button("Copy", () => copy(turn, node));
    parts.push(node);
  }
  if (turn.state === "stopped") parts.push(button("Try again", () => again(turn)));
  if (turn.watch) {
    turn.sentButton = button("What was sent", () => show(turn), "sent");
    parts.push(turn.sentButton);
  }
  turn.foot.replaceChildren(...parts);
  follow();
}

// -- one request -------------------------------------------------------------------------------------------------

async function ask(text) {
  if (about.keys && !key) return want();
  const turn = begun(text), stop = new AbortController();
  turn.stop = stop;
  busy(turn);
  show(turn);
  const looks = setInterval(() => look(turn).then(() => shown === turn && show(turn)).catch(() => {}), LOOK);
  const ticks = setInterval(() => tick(turn), 100);
  let state = "done", problem;
  try {
    await (about.family === "encoder" ? embed(turn, stop.signal) : continueChat(turn, stop.signal));
  } catch (error) {
    state = stop.signal.aborted ? "stopped" : "failed";
    problem = stop.signal.aborted ? undefined : error instanceof Told ? error : new Told(String(error));
  }
  clearInterval(looks);
  clearInterval(ticks);
  if (turn.chat === chat) ended(turn, state, problem);
  if (running === turn) busy(null);
  if (turn.chat !== chat) return;
  if (!(problem?.status >= 400 && problem.status < 500)) await last(turn);
  settle(turn);
  if (shown === turn) show(turn);
  if (problem?.status === 401) revoked();
  if (state === "failed" || about.problem) greet();
}
async function last(turn) {
  for (let tries = 0; tries < 12; tries++) {  // the parties' reports may come after the last token, or a stop
    try { await look(turn); } catch { return; }
    if (turn.watch.state !== "running" || turn.chat !== chat) return;
    await new Promise(wake => setTimeout(wake, 150));
  }
}
function begin() {
  running?.stop.abort();
  busy(null);
  chat = {turns: []};
  $("turns").replaceChildren();
  $("empty").hidden = false;
  $("status").textContent = "";
}

// -- who is there ------------------------------------------------------------------------------------------------

function introduce() {
  $("model").textContent = about.model;
  document.title = "Puma: " + about.model;
  $("tokens").max = about.max_tokens;
  if (Number($("tokens").value) > about.max_tokens) $("tokens").value = about.max_tokens;
  const encoder = about.family === "encoder", kind = encoder ? "encoder" : about.chat ? "chat" : "text";
  for (const node of document.querySelectorAll("[data-causal]")) node.hidden = encoder;
  $("kind").textContent = {encoder: "This model turns a text into numbers.", chat: "This model answers.",
    text: "This model continues a text: it has no chat template."}[kind];
  $("learn").textContent = encoder ? "" : about.fixed_length ? ", and how many tokens you ask for"
    : ", and how many tokens the answer has";
  $("examples").replaceChildren(...EXAMPLES[kind].map(text => button(text, () => { if (!running) ask(text); })));
  const places = about.parties.map(party => party.place), shared = new Set(places).size < 3;  // two together read all
  $("place").textContent = about.local ? "all three parties on this machine: for trying, not for secrets"
    : about.parties.map(party => `${party.name} at ${party.place}`).join(" · ")
      + (shared ? ": parties share a machine, which could read everything" : "");
  $("place").className = "place" + (shared ? " local" : "");
  $("around").classList.toggle("local", about.local);
  $("drawn-place").textContent = about.local ? "all three run on this machine, which could read everything" : "";
  drawParties(about.local ? [] : about.parties);
}
async function greet() {
  try {
    const response = await fetch("/health");  // 503 says who failed, and the rest as ever
    about = await response.json();
    introduce();
    admit();
    if (about.problem) {
      $("place").textContent = "the last session failed; the next request begins a new one";
      $("place").className = "place down";
    }
    if (shown) show(shown);
  } catch {
    $("place").textContent = LOST + ": " + LOST_HINT;
    $("place").className = "place down";
    setTimeout(greet, 3000);
  }
}
$("form").addEventListener("submit", event => {
  event.preventDefault();
  const text = $("text").value;
  if (running || !text.trim()) return;
  $("text").value = "";
  ask(text);
});
$("text").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});
document.addEventListener("keydown", event => { if (event.key === "Escape") running?.stop.abort(); });
$("stop").addEventListener("click", () => { running?.stop.abort(); $("text").focus(); });
$("new").addEventListener("click", () => { begin(); $("text").focus(); });
drawParties([]);
greet();
