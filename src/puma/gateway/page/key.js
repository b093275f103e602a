// The key that a gateway may want: typed once, tried before it is taken, kept by this tab and for this gateway alone.

const KEPT = "puma-key";
const WRONG = "This gateway does not know this key. Look whether all of it is there, or ask the gateway's operator.";
const REVOKED = "This gateway does not know your key any more. Ask the gateway's operator for another one.";
let key = remembered(), latest = 0;

function remembered() {
  try { return sessionStorage.getItem(KEPT) ?? ""; } catch { return ""; }
}
function keep(found) {
  key = found;
  try {
    if (found) sessionStorage.setItem(KEPT, found);
    else sessionStorage.removeItem(KEPT);
  } catch { /* a browser may forbid it: then the page holds it until it is loaded anew */ }
}
function showing(given) { return given ? {authorization: "Bearer " + given} : {}; }

function admit() {
  if (about.keys && !key) {
    if ($("ask-key").hidden) want();
    return;
  }
  $("ask-key").hidden = true;
  $("form").hidden = false;
  $("forget").hidden = !about.keys;
}
function want(problem = "") {
  $("form").hidden = $("forget").hidden = true;
  $("ask-key").hidden = false;
  $("key-problem").textContent = problem;
  $("key").setAttribute("aria-invalid", String(problem !== ""));
  $("key").focus();
}
function revoked() {
  keep("");
  want(REVOKED);
}
async function attempt(given) {
  const mine = ++latest;  // who types another one meanwhile hears of that one alone
  let problem = "";
  try {
    if (!/^[\x21-\x7e]+$/.test(given)) throw new Told(WRONG, "", "", 401);  // no header can hold it, so nobody has it
    await reach("/v1/models", {headers: showing(given)});
  } catch (error) {
    problem = error.status === 401 ? WRONG : [error.message, error.hint].filter(Boolean).map(sentence).join(" ");
  }
  if (mine !== latest) return;
  if (problem) return want(problem);
  keep(given);
  $("key").value = "";
  admit();
  $("text").focus();
}
$("ask-key").addEventListener("submit", event => {
  event.preventDefault();
  attempt($("key").value.trim());
});
$("forget").addEventListener("click", () => {
  begin();
  keep("");
  want();
});
