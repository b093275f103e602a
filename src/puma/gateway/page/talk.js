// Chats, their turns, and what is said with the gateway. A turn belongs to its chat: whatever comes later comes to it.

const LOST = "the gateway does not answer";
const LOST_HINT = "is `puma gateway` still running on this machine?";
let about = {model: "", family: "causal", max_tokens: 64, parties: []};

class Told extends Error {  // status: of HTTP, if the gateway refused before anything was sent
  constructor(message, hint = "", code = "", status = 0) {
    super(message);
    Object.assign(this, {hint, code, status});
  }
}
function told(error) {
  const [, message, hint] = /^([^]*?)(?: \(hint: ([^]*)\))?$/.exec(error.message);
  return new Told(message, hint, error.code ?? "");
}
function drawnId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, "0")).join("");
}
async function reach(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Told(LOST, LOST_HINT, "lost");
  }
  if (response.ok) return response;
  const problem = await response.json().then(found => told(found.error), () => new Told("the gateway refused"));
  problem.status = response.status;
  throw problem;
}
function post(path, id, body, signal) {
  const headers = {"content-type": "application/json", "x-client-request-id": id, ...showing(key)};
  return reach(path, {method: "POST", headers, body: JSON.stringify(body), signal});
}
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let found;
    try { found = await reader.read(); } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Told("the answer broke off: " + LOST, LOST_HINT, "lost");
    }
    if (found.done) throw new Told("the answer broke off", "the gateway was stopped, or a proxy before it", "lost");
    const parts = (rest + found.value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

// -- what is asked -------------------------------------------------------------------------------------------------

function history(chat, upTo) {
  const before = chat.turns.slice(0, chat.turns.indexOf(upTo)).filter(turn => turn.answer && turn.state !== "failed");
  const said = before.flatMap(turn => [{role: "user", content: turn.text}, {role: "assistant", content: turn.answer}]);
  return [...said, {role: "user", content: upTo.text}];
}
async function continueChat(turn, signal) {
  const asked = {model: about.model, messages: history(turn.chat, turn), stream: true, max_tokens: turn.most,
    temperature: turn.temperature};
  for await (const event of events(await post("/v1/chat/completions", turn.id, asked, signal))) {
    if (event.error) throw told(event.error);
    const choice = event.choices[0];
    if (!choice || choice.delta.role) continue;
    turn.tokens++;
    turn.last = performance.now();
    turn.first ??= turn.last;
    turn.finish = choice.finish_reason;
    if (!choice.delta.content) continue;
    turn.answer += choice.delta.content;
    turn.words.textContent = turn.answer;
    follow();
  }
}
async function embed(turn, signal) {
  const body = {model: about.model, input: turn.text, encoding_format: "float"};
  const found = await (await post("/v1/embeddings", turn.id, body, signal)).json(), vector = found.data[0].embedding;
  turn.answer = `${vector.length} numbers: ${vector.slice(0, 8).map(x => x.toFixed(4)).join(", ")}, …`;
  turn.words.textContent = turn.answer;
}
async function look(turn) {
  const seen = await (await reach("/watch/" + turn.id)).json();
  turn.watch = seen;
  turn.cost = seen.cost ?? undefined;
  if (turn.cost && turn.tokens > 1 && turn.state === "done")
    rate = {rounds: turn.cost.rounds / turn.tokens, bytes: turn.cost.bytes.total / turn.tokens};
}
